import type { hotsite } from '#proto/gen/hotsite.js'

/** Every field present: a decoded message has them all, and a sender cannot forget one. */
export type Filled<T> = T extends Uint8Array
  ? Uint8Array
  : T extends readonly (infer Item)[]
    ? readonly Filled<Item>[]
    : T extends object
      ? { readonly [Key in keyof T as Key extends '$unknowns' ? never : Key]-?: Filled<NonNullable<T[Key]>> }
      : T

/** Each body of the `Frame` oneof with its fields; uint64 fields are safe integers (checked by the codec). */
export interface Bodies {
  hello: Filled<hotsite.Hello.$Shape>
  proof: Filled<hotsite.Proof.$Shape>
  ping: Filled<hotsite.Ping.$Shape>
  pong: Filled<hotsite.Pong.$Shape>
  refusal: Filled<hotsite.Refusal.$Shape>
  command: Filled<hotsite.Command.$Shape>
  commandResult: Filled<hotsite.CommandResult.$Shape>
  report: Filled<hotsite.Report.$Shape>
  reportAck: Filled<hotsite.ReportAck.$Shape>
  openReplica: Filled<hotsite.OpenReplica.$Shape>
  replicaOpened: Filled<hotsite.ReplicaOpened.$Shape>
  deltaBegin: Filled<hotsite.DeltaBegin.$Shape>
  deltaAccepted: Filled<hotsite.DeltaAccepted.$Shape>
  blocks: Filled<hotsite.Blocks.$Shape>
  blocksDurable: Filled<hotsite.BlocksDurable.$Shape>
  deltaEnd: Filled<hotsite.DeltaEnd.$Shape>
  pointAck: Filled<hotsite.PointAck.$Shape>
  treeQuery: Filled<hotsite.TreeQuery.$Shape>
  treeNodes: Filled<hotsite.TreeNodes.$Shape>
  replicaRefusal: Filled<hotsite.ReplicaRefusal.$Shape>
  repairRequest: Filled<hotsite.RepairRequest.$Shape>
  repairBlocks: Filled<hotsite.RepairBlocks.$Shape>
  backfills: Filled<hotsite.Backfills.$Shape>
}

export type MessageKind = keyof Bodies

/**
 * One message of the channel: `{ kind: 'pointAck', body: { vmId, epoch, seq } }`.
 * `tail` is raw payload behind the header; it shares memory with the frame it came in.
 */
export type Message = {
  [Kind in MessageKind]: { readonly kind: Kind; readonly body: Bodies[Kind]; readonly tail?: Buffer }
}[MessageKind]
