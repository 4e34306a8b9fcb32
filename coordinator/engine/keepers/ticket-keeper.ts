/**
 * Renews tickets every day, so that replication outlives a week without the coordinator (I12), and at once when the target
 * listens elsewhere or was registered anew.
 */
import { createHash } from 'node:crypto'
import { commandId } from '#shared/ids.ts'
import { isReplicating } from '../../domain/protection.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { findActiveJob } from '../../store/jobs.ts'
import { dueCommands, newestCommand, putCommand } from '../../store/outbox.ts'
import { findProtectedVm, listProtectedVms } from '../../store/protected-vms.ts'
import { applyEffect } from '../apply-effect.ts'
import type { Engine } from '../engine.ts'
import { isTicketOf, peerAddress, ticketFor, ticketTarget } from '../peers.ts'
import { randomId } from '../random-id.ts'

/**
 * A source or target under a new identity: before a ticket is of use, the replica must exist and name its source. Without
 * this the target would refuse the ticket, or have nothing to put the points in. What it has already it keeps.
 */
async function isPrepared(engine: Engine, vm: ProtectedVm): Promise<boolean> {
  const { vaultId, vmId, epoch, source, target, ticket, policy, description } = vm
  if (ticket && isTicketOf(ticket, source.agentId, target.agentId)) return true
  const pair = createHash('sha256').update(`${source.agentId} ${target.agentId}`).digest('hex').slice(0, 16)
  const idPrefix = `prepare:${vmId.slice(0, 30)}:${epoch}:${pair}:`
  const newest = await newestCommand(engine.db, vaultId, idPrefix)
  if (newest?.state === 'done') return true
  if (newest?.state === 'open') return false
  const nowMs = engine.clock.now()
  const sinceMs = nowMs - (newest?.endedAtMs ?? 0)
  if (newest && sinceMs >= 0 && sinceMs < engine.limits.fenceRetryMs) return false
  const command = {
    vaultId,
    vmId,
    commandId: commandId.parse(`${idPrefix}${nowMs.toString(36)}`),
    serverId: target.agentId,
    kind: 'replica.prepare',
    request: { vmId, epoch, disks: description.disks, sourceServerId: source.agentId, policy },
  } as const
  await putCommand(engine.db, command, nowMs)
  engine.bus.notify()
  return false
}

export async function keepTickets(engine: Engine): Promise<void> {
  for (const { vm } of await listProtectedVms(engine.db)) {
    const { source, target, ticket, epoch, vaultId, vmId } = vm
    // A first copy may wait for weeks for its time; its job sends no ticket any more.
    const first = vm.protection.kind === 'initialReplication' && ticket !== null
    if (!isReplicating(vm.protection) && !first) continue
    const address = await peerAddress(engine.db, vaultId, target.agentId)
    if (!address || !engine.connections.isConnected(vaultId, source.agentId)) continue
    const ageMs = engine.clock.now() - (ticket?.issuedAtMs ?? 0)
    // A clock that was set back makes the ticket look as if it came from the future: renewed as well.
    const fresh = ticket !== null && ageMs >= 0 && ageMs < engine.limits.ticketRenewMs
    if (fresh && ticket.target === ticketTarget(source.agentId, address)) continue
    if (!first && (await findActiveJob(engine.db, vaultId, vmId))) continue
    const due = await dueCommands(engine.db, vaultId, source.agentId)
    if (due.some((row) => row.vmId === vmId && row.kind === 'replication.renewTicket')) continue
    if (!(await isPrepared(engine, vm))) continue
    const issued = await ticketFor(engine, vm, { epoch, source, target })
    await engine.db.transaction().execute(async (tx) => {
      const stored = await findProtectedVm(tx, vaultId, vmId)
      if (!stored || stored.vm.epoch !== epoch) return
      const id = commandId.parse(`${randomId('ticket', engine.rng)}:${epoch}`)
      const request = { vmId, epoch, ticket: issued.ticket, target: issued.target }
      const command = {
        vaultId,
        vmId,
        commandId: id,
        serverId: source.agentId,
        kind: 'replication.renewTicket',
        request,
      } as const
      await putCommand(tx, command, engine.clock.now())
      await applyEffect(engine, tx, { vaultId, vmId, jobId: null }, { patch: { ticket: issued.kept } })
    })
    engine.bus.notify()
  }
}
