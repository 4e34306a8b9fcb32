import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId, VaultId } from '#shared/ids.ts'
import type { CommandRequest, PeerAddress, ResyncCause } from '#shared/messages/commands.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import { issueTicket } from '#shared/trust/ticket.ts'
import type { ProtectedVm, Side } from '../store/documents.ts'
import { listReports } from '../store/reports.ts'
import type { Db } from '../store/schema.ts'
import type { Engine } from './engine.ts'

/** Where an agent listens for peers, as it last said. undefined: it never reported. */
export async function peerAddress(
  db: Db,
  vaultId: VaultId,
  agentId: ServerId,
): Promise<PeerAddress | undefined> {
  const rows = await listReports(db, 'agent')
  const row = rows.find((each) => each.vaultId === vaultId && each.serverId === agentId)
  if (!row) return undefined
  const { listen, certificatePem } = row.report
  return { serverId: agentId, host: listen.host, port: listen.port, certificatePem }
}

export interface IssuedTicket {
  readonly ticket: string
  readonly target: PeerAddress
  /** What the VM's row keeps, to know when a new one is due. */
  readonly kept: { readonly issuedAtMs: number; readonly target: string }
}

/** Signed leave for `source` to send this VM at this epoch to `target` (DESIGN §4). */
export async function ticketFor(
  engine: Engine,
  vm: Pick<ProtectedVm, 'vaultId' | 'vmId'>,
  leave: { epoch: number; source: Side; target: Side },
): Promise<IssuedTicket> {
  const target = await peerAddress(engine.db, vm.vaultId, leave.target.agentId)
  if (!target)
    throw new HotsiteError(
      'agent-disconnected',
      `the agent of ${leave.target.host} has not said yet where it listens`,
    )
  const issuedAtMs = engine.clock.now()
  const ticket = issueTicket(
    {
      vaultId: vm.vaultId,
      vmId: vm.vmId,
      epoch: leave.epoch,
      sourceServerId: leave.source.agentId,
      targetServerId: leave.target.agentId,
      issuedAtMs,
      expiresAtMs: issuedAtMs + engine.limits.ticketLifetimeMs,
    },
    engine.vaultSecretKey(vm.vaultId),
  )
  const kept = { issuedAtMs, target: ticketTarget(leave.source.agentId, target) }
  return { ticket: Buffer.from(ticket).toString('base64'), target, kept }
}

/** Changes when a ticket would no longer fit: another source, another target, or the target elsewhere. */
export const ticketTarget = (sourceAgentId: ServerId, target: PeerAddress): string =>
  JSON.stringify([sourceAgentId, target.serverId, target.host, target.port, target.certificatePem])

/** Whether a ticket was made for these two servers, wherever the target listened then. */
export function isTicketOf(kept: IssuedTicket['kept'], source: ServerId, target: ServerId): boolean {
  const [ticketSource, ticketTargetId] = JSON.parse(kept.target) as readonly unknown[]
  return ticketSource === source && ticketTargetId === target
}

export interface StartReplication {
  readonly from: Side
  readonly to: Side
  readonly epoch: number
  readonly cause: ResyncCause
  /** The first synchronization begins no earlier. */
  readonly notBeforeMs?: number | null
}

export async function startReplicationRequest(
  engine: Engine,
  vm: ProtectedVm,
  { from, to, epoch, cause, notBeforeMs = null }: StartReplication,
): Promise<{ request: CommandRequest<'replication.start'>; kept: IssuedTicket['kept'] }> {
  const { ticket, target, kept } = await ticketFor(engine, vm, { epoch, source: from, target: to })
  const { vmId, policy } = vm
  return {
    request: { vmId, epoch, fabricVmId: from.fabricVmId, target, ticket, policy, cause, notBeforeMs },
    kept,
  }
}

/** Points as the target last reported them, newest first. */
export async function pointsAt(db: Db, vm: ProtectedVm, side: Side): Promise<readonly PointReport[]> {
  const rows = await listReports(db, 'replica', vm.vmId)
  const row = rows.find((each) => each.vaultId === vm.vaultId && each.serverId === side.agentId)
  return [...(row?.report.points ?? [])].sort((a, b) => b.epoch - a.epoch || b.seq - a.seq)
}

export async function replicationAt(db: Db, vm: ProtectedVm, side: Side) {
  const rows = await listReports(db, 'replication', vm.vmId)
  return rows.find((each) => each.vaultId === vm.vaultId && each.serverId === side.agentId)?.report
}

export async function replicaAt(db: Db, vm: ProtectedVm, side: Side) {
  const rows = await listReports(db, 'replica', vm.vmId)
  return rows.find((each) => each.vaultId === vm.vaultId && each.serverId === side.agentId)?.report
}

export const pointName = ({ epoch, seq }: { epoch: number; seq: number }): string => `${epoch}.${seq}`
