/**
 * Tells an old source that the VM runs elsewhere, for as long as it takes (I5). A fence that was refused is tried again
 * under a new command id; one that could not be delivered stays in the outbox.
 */
import { errorFromDocument } from '#shared/errors/hotsite-error.ts'
import { type CommandId, commandId } from '#shared/ids.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { type NewCommand, newestCommand, putCommand } from '../../store/outbox.ts'
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
  const idPrefix = `fence:${part === 'vmFenced' ? 'vm' : 'rep'}:${vm.vmId.slice(0, 50)}:${vm.sourceFence?.epoch}:`
  const row = await newestCommand(engine.db, vm.vaultId, idPrefix)
  if (row?.state === 'open') return
  if (row?.state === 'done') return confirm(engine, vm, part)
  const attempt = row ? Number(row.commandId.slice(idPrefix.length)) + 1 : 1
  const sinceMs = engine.clock.now() - (row?.endedAtMs ?? 0)
  if (row && sinceMs >= 0 && sinceMs < retryAfterMs(engine, attempt)) return
  const command = fenceCommand(vm, part, commandId.parse(`${idPrefix}${attempt}`))
  await engine.db.transaction().execute(async (tx) => {
    await putCommand(tx, command, engine.clock.now())
    if (row?.error && attempt === 2)
      await applyEffect(engine, tx, { ...vm, jobId: null }, { notices: [refusedNotice(vm, row.error)] })
  })
  engine.bus.notify()
}

/** Ever more seldom: a fence that cannot be set for weeks must not fill the outbox. */
function retryAfterMs({ limits }: Engine, attempt: number): number {
  return Math.min(limits.fenceRetryMs * 2 ** Math.max(0, attempt - 2), limits.fenceRetryMaxMs)
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
