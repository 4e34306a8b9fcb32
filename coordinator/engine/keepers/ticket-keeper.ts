/**
 * Renews tickets every day, so that replication outlives a week without the coordinator (I12), and at once when the target
 * listens elsewhere or was registered anew.
 */
import { commandId } from '#shared/ids.ts'
import { isReplicating } from '../../domain/protection.ts'
import { findActiveJob } from '../../store/jobs.ts'
import { dueCommands, putCommand } from '../../store/outbox.ts'
import { findProtectedVm, listProtectedVms } from '../../store/protected-vms.ts'
import { applyEffect } from '../apply-effect.ts'
import type { Engine } from '../engine.ts'
import { peerAddress, ticketFor, ticketTarget } from '../peers.ts'
import { randomId } from '../random-id.ts'

export async function keepTickets(engine: Engine): Promise<void> {
  for (const { vm } of await listProtectedVms(engine.db)) {
    const { source, target, ticket, epoch, vaultId, vmId } = vm
    if (!isReplicating(vm.protection)) continue
    const address = await peerAddress(engine.db, vaultId, target.agentId)
    if (!address || !engine.connections.isConnected(vaultId, source.agentId)) continue
    const ageMs = engine.clock.now() - (ticket?.issuedAtMs ?? 0)
    // A clock that was set back makes the ticket look as if it came from the future: renewed as well.
    const fresh = ticket !== null && ageMs >= 0 && ageMs < engine.limits.ticketRenewMs
    if (fresh && ticket.target === ticketTarget(source.agentId, address)) continue
    if (await findActiveJob(engine.db, vaultId, vmId)) continue
    const due = await dueCommands(engine.db, vaultId, source.agentId)
    if (due.some((row) => row.vmId === vmId && row.kind === 'replication.renewTicket')) continue
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
