import type { ReplicaState } from '#recovery-agent/replica/port.ts'
import type { Peer } from '#shared/channel/port.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId, VmId } from '#shared/ids.ts'
import { verifyTicket } from '#shared/trust/ticket.ts'
import type { OpenRequest } from './parse.ts'

export interface Opening {
  readonly vmId: VmId
  readonly request: OpenRequest
  readonly replica: ReplicaState | undefined
  readonly source: Peer
  readonly self: { readonly serverId: ServerId; readonly vaultPublicKey: Uint8Array }
  readonly nowMs: number
}

/** Whether this source may write to this replica now; answers it. Throws why not. */
export function checkOpen({ vmId, request, replica, source, self, nowMs }: Opening): ReplicaState {
  const { epoch, ticket } = request
  const { vaultId, serverId } = source
  // Before the ticket: a source that was away learns that it was failed over, not that its ticket is old.
  if (replica && epoch < replica.epoch) throw staleEpoch(vmId, epoch, replica.epoch)
  verifyTicket({
    encoded: ticket,
    vaultPublicKey: self.vaultPublicKey,
    nowMs,
    scope: { vaultId, vmId, epoch, sourceServerId: serverId, targetServerId: self.serverId },
  })
  if (!replica) throw new HotsiteError('replica-unknown', `there is no replica of VM ${vmId} here`)
  if (epoch > replica.epoch)
    throw new HotsiteError(
      'replica-not-prepared',
      `the replica of VM ${vmId} is at epoch ${replica.epoch}, not yet at ${epoch}`,
    )
  if (replica.sourceServerId !== serverId)
    throw new HotsiteError('ticket-invalid', `VM ${vmId} is replicated from ${replica.sourceServerId} now`)
  return replica
}

export function staleEpoch(vmId: VmId, epoch: number, held: number): HotsiteError {
  return new HotsiteError(
    'epoch-stale',
    `VM ${vmId} is at epoch ${held}; epoch ${epoch} may not write any more`,
    { details: { epoch: held } },
  )
}
