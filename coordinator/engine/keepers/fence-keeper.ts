/**
 * Tells an old source that the VM runs elsewhere, for as long as it takes (I5). A fence that was refused is tried again
 * under a new command id; one that could not be delivered stays in the outbox.
 */
import { errorFromDocument } from '#shared/errors/hotsite-error.ts'
import { type CommandId, commandId } from '#shared/ids.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { findCommand, type NewCommand, type OutboxRow, putCommand } from '../../store/outbox.ts'
import { findProtectedVm, listProtectedVms } from '../../store/protected-vms.ts'
import { applyEffect } from '../apply-effect.ts'
import type { Engine } from '../engine.ts'

type Part = 'vmFenced' | 'replicationFenced'

export async function keepFences(engine: Engine): Promise<void> {
  for (const { vm } of await listProtectedVms(engine.db)) {
    if (!vm.sourceFence) continue
    for (const part of ['vmFenced', 'replicationFenced'] as const)
      if (!vm.sourceFence[part]) await pursue(engine, vm, part)
  }
}

async function pursue(engine: Engine, vm: ProtectedVm, part: Part): Promise<void> {
  const idOf = (attempt: number): CommandId =>
    commandId.parse(
      `fence:${part === 'vmFenced' ? 'vm' : 'rep'}:${vm.vmId.slice(0, 50)}:${vm.sourceFence?.epoch}:${attempt}`,
    )
  let attempt = 1
  let row: OutboxRow | undefined
  for (;;) {
    const found = await findCommand(engine.db, vm.vaultId, idOf(attempt))
    if (!found) break
    row = found
    attempt += 1
  }
  if (row?.state === 'open') return
  if (row?.state === 'done') return confirm(engine, vm, part)
  const sinceMs = engine.clock.now() - (row?.endedAtMs ?? 0)
  if (row && sinceMs >= 0 && sinceMs < engine.limits.fenceRetryMs) return
  const command = fenceCommand(vm, part, idOf(attempt))
  await engine.db.transaction().execute(async (tx) => {
    await putCommand(tx, command, engine.clock.now())
    if (row?.error && attempt === 2)
      await applyEffect(engine, tx, { ...vm, jobId: null }, { notices: [refusedNotice(vm, row.error)] })
  })
  engine.bus.notify()
}

function refusedNotice(vm: ProtectedVm, error: string) {
  const message = `the old source of ${vm.name} on ${vm.source.host} could not be fenced: ${errorFromDocument(JSON.parse(error)).message}`
  return { severity: 'critical', code: 'fence-failed', message } as const
}

function fenceCommand(vm: ProtectedVm, part: Part, id: CommandId): NewCommand {
  const { vaultId, vmId, epoch, source, target, name } = vm
  if (part === 'replicationFenced')
    return {
      vaultId,
      vmId,
      commandId: id,
      serverId: source.agentId,
      kind: 'replication.fence',
      request: { vmId, epoch },
    }
  const reason = `${name} runs on ${target.host} at ${target.vmmServer} since epoch ${epoch}`
  const request = { fabricVmId: source.fabricVmId, epoch, reason }
  return { vaultId, vmId, commandId: id, serverId: source.providerId, kind: 'vm.fence', request }
}

async function confirm(engine: Engine, vm: ProtectedVm, part: Part): Promise<void> {
  await engine.db.transaction().execute(async (tx) => {
    const stored = await findProtectedVm(tx, vm.vaultId, vm.vmId)
    const fence = stored?.vm.sourceFence
    if (!fence || fence.epoch !== vm.sourceFence?.epoch) return
    const sourceFence = { ...fence, [part]: true }
    const settled = sourceFence.vmFenced && sourceFence.replicationFenced
    const message = `the old source of ${vm.name} on ${vm.source.host} is fenced`
    await applyEffect(
      engine,
      tx,
      { ...vm, jobId: null },
      {
        patch: { sourceFence },
        notices: settled ? [{ severity: 'info', code: 'source-fence-confirmed', message }] : [],
      },
    )
  })
  engine.bus.notify()
}
