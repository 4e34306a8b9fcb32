import type { hotsite } from '#proto/gen/hotsite.js'

/** Each body of the `Frame` oneof with its fields; uint64 fields are safe integers (checked by the codec). */
export interface Bodies {
  hello: hotsite.Hello.$Shape
  proof: hotsite.Proof.$Shape
  ping: hotsite.Ping.$Shape
  pong: hotsite.Pong.$Shape
  refusal: hotsite.Refusal.$Shape
  command: hotsite.Command.$Shape
  commandResult: hotsite.CommandResult.$Shape
  report: hotsite.Report.$Shape
  reportAck: hotsite.ReportAck.$Shape
  openReplica: hotsite.OpenReplica.$Shape
  replicaOpened: hotsite.ReplicaOpened.$Shape
  deltaBegin: hotsite.DeltaBegin.$Shape
  deltaAccepted: hotsite.DeltaAccepted.$Shape
  blocks: hotsite.Blocks.$Shape
  blocksDurable: hotsite.BlocksDurable.$Shape
  deltaEnd: hotsite.DeltaEnd.$Shape
  pointAck: hotsite.PointAck.$Shape
  treeQuery: hotsite.TreeQuery.$Shape
  treeNodes: hotsite.TreeNodes.$Shape
  replicaRefusal: hotsite.ReplicaRefusal.$Shape
}

export type MessageKind = keyof Bodies

/**
 * One message of the channel: `{ kind: 'pointAck', body: { vmId, epoch, seq } }`.
 * `tail` is raw payload behind the header; it shares memory with the frame it came in.
 */
export type Message = {
  [Kind in MessageKind]: { readonly kind: Kind; readonly body: Bodies[Kind]; readonly tail?: Buffer }
}[MessageKind]
