/** What planned and unplanned failover share: raising the epoch, fencing, and the VM on the replica. */
import { defined } from '#shared/assert.ts'
import type { Landing } from '../../domain/protection.ts'
import type { Side } from '../../store/documents.ts'
import type { Effect } from '../apply-effect.ts'
import { pointName } from '../peers.ts'
import { byCommand, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import { defineVm, overlayMade, overlayOf, startVm } from './target-vm.ts'

/** Who is away of those a failover needs: "the provider of vmm-a is not connected". */
export function absentAt({ engine, job }: StepContext, sides: readonly Side[]): string | undefined {
  for (const side of sides) {
    const needed = [
      [side.agentId, `the recovery agent of ${side.host}`],
      [side.providerId, `the provider of ${side.vmmServer}`],
    ] as const
    for (const [server, what] of needed)
      if (!engine.connections.isConnected(job.vaultId, server)) return `${what} is not connected`
  }
  return undefined
}

/** The epoch is stored here, before any command carries it (I5). */
export function raiseEpoch(
  context: StepContext,
  { fenceSource }: { fenceSource: boolean },
): Promise<StepOutcome> {
  const vm = vmOf(context)
  const epoch = vm.epoch + 1
  return Promise.resolve({
    kind: 'done',
    observed: { epoch },
    effect: {
      patch: {
        epoch,
        overlay: overlayOf(context.job.jobId),
        ...(fenceSource ? { sourceFence: { epoch, vmFenced: false, replicationFenced: false } } : {}),
      },
    },
  })
}

/** From here on the target refuses what the old source still sends. */
export function fenceReplica(context: StepContext): Promise<StepOutcome> {
  const { target, vmId, epoch } = vmOf(context)
  const command = { server: target.agentId, kind: 'replica.fence', request: { vmId, epoch } } as const
  return byCommand(context, command, ({ newest }) => ({ kind: 'done', observed: { newest } }))
}

/**
 * Waits until the old source confirmed its fence, as long as there is hope: the fence keeper goes on in any case, and a
 * source that is gone must not hold up a failover.
 */
export function awaitSourceFence(context: StepContext, effect: Effect = {}): Promise<StepOutcome> {
  const { engine, askedForMs, job } = context
  const { source, sourceFence } = vmOf(context)
  const confirmed = !sourceFence || (sourceFence.vmFenced && sourceFence.replicationFenced)
  if (confirmed) return Promise.resolve({ kind: 'done', observed: { fenced: true }, effect })
  const reachable =
    (!sourceFence.vmFenced && engine.connections.isConnected(job.vaultId, source.providerId)) ||
    (!sourceFence.replicationFenced && engine.connections.isConnected(job.vaultId, source.agentId))
  if (reachable && askedForMs < engine.limits.fenceWaitMs) return Promise.resolve({ kind: 'pending' })
  const observed = {
    vmFenced: sourceFence.vmFenced,
    replicationFenced: sourceFence.replicationFenced,
    deferred: 'the source is fenced when it answers',
  }
  return Promise.resolve({ kind: 'done', observed, effect })
}

/** The replica VM with the disks that were made, under its own id and the VM's name. */
export function defineFailoverVm(context: StepContext): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { target: side, name } = vm
  const { disks } = overlayMade(context)
  return defineVm(context, vm, { side, fabricVmId: side.fabricVmId, name, disks, nics: side.nics })
}

/** Without disks: the definition must not point at an overlay that is going away. */
export function resetReplicaVm(context: StepContext): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { target: side, name } = vm
  return defineVm(context, vm, { side, fabricVmId: side.fabricVmId, name, disks: [], nics: side.nics })
}

export function startFailoverVm(
  context: StepContext,
  demand: 'strict' | 'lenient',
  effect: Effect,
): Promise<StepOutcome> {
  const { target: side } = vmOf(context)
  return startVm(context, { side, fabricVmId: side.fabricVmId, nics: side.nics, demand }, effect)
}

export function landingOf(context: StepContext): Landing {
  const { overlay } = vmOf(context)
  const { point, capturedAtMs } = overlayMade(context)
  return { overlayId: defined(overlay, 'the overlay of the failover'), point, capturedAtMs }
}

export function landedEffect(context: StepContext, what: string): Effect {
  const { name, target } = vmOf(context)
  const landing = landingOf(context)
  const message = `${name}: ${what} done; it runs on ${target.host} from point ${pointName(landing.point)}`
  return {
    event: { kind: 'failedOver', landing },
    notices: [{ severity: 'info', code: 'failed-over', message }],
  }
}

export const fenceLifted = (side: Side): Effect => ({ patch: { target: { ...side, fenced: false } } })
