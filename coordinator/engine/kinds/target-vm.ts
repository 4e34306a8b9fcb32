/** Steps at the target that test, planned and unplanned failover and change of point share: disks, definition, start. */
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type FabricVmId, type JobId, type OverlayId, overlayId } from '#shared/ids.ts'
import type { OverlayDisk, PointRef } from '#shared/messages/commands.ts'
import type { NicSpec, VmObservation } from '#shared/messages/vm.ts'
import { misplacedNics } from '../../domain/network-mapping.ts'
import type { ProtectedVm, Side } from '../../store/documents.ts'
import type { Effect } from '../apply-effect.ts'
import type { Notice } from '../emit.ts'
import { pointName, pointsAt } from '../peers.ts'
import {
  byCommand,
  byTidyCommand,
  type Observed,
  observedOf,
  type StepContext,
  type StepOutcome,
  vmOf,
} from '../step.ts'

/** Ids made of the job's: asked again after a restart, a step names the same things. */
export const overlayOf = (jobId: JobId): OverlayId => overlayId.parse(`overlay-${jobId}`)

const createdOverlay = z.object({
  point: z.object({ epoch: z.int(), seq: z.int() }),
  capturedAtMs: z.number(),
  disks: z.array(
    z.object({
      diskId: z.string(),
      path: z.string(),
      format: z.enum(['raw', 'qcow2']),
      sizeBytes: z.int(),
    }),
  ),
})

export const createDisksStep = 'create-disks'

export function overlayMade(context: StepContext) {
  const { point, capturedAtMs, disks } = observedOf(context, createDisksStep, createdOverlay)
  return { point, capturedAtMs, disks: disks as unknown as OverlayDisk[] }
}

/** What the coordinator says of a point beside that it was taken: warnings, for the step and as events. */
async function remarksOn(
  { engine }: StepContext,
  vm: ProtectedVm,
  { point, verify, purpose }: { point: PointRef; verify: boolean; purpose: 'test' | 'failover' },
): Promise<{ observed: Observed; notices: Notice[] }> {
  const points = await pointsAt(engine.db, vm, vm.target)
  const at = points.findIndex(({ epoch, seq }) => epoch === point.epoch && seq === point.seq)
  const suspect = points[at]?.suspect
  const notices: Notice[] = []
  if (!verify) {
    const message = `${vm.name}: the blocks of point ${pointName(point)} were not proved before the ${purpose} (--skip-verify)`
    notices.push({ severity: 'warning', code: 'verify-skipped', message })
  }
  if (!suspect) return { observed: { verified: verify }, notices }
  const older = points.slice(at + 1).find((each) => !each.suspect && !each.damaged)
  const command = purpose === 'test' ? 'hotsite failover test' : 'hotsite failover change-point'
  const hint = older ? `; before it: ${command} ${vm.name} --point ${pointName(older)}` : ''
  const message = `${vm.name}: point ${pointName(point)} is suspect (${suspect})${hint}`
  notices.push({ severity: 'warning', code: 'point-suspect-used', message })
  return { observed: { verified: verify, warning: `suspect: ${suspect}${hint}` }, notices }
}

export function createDisks(
  context: StepContext,
  vm: ProtectedVm,
  overlay: {
    overlayId: OverlayId
    point: PointRef | null
    purpose: 'test' | 'failover'
    /** false: in a hurry; said in the step and as an event. */
    verify: boolean
  },
  effectOf: (point: PointRef) => Effect = () => ({}),
): Promise<StepOutcome> {
  const request = { vmId: vm.vmId, ...overlay }
  return byCommand(context, { server: vm.target.agentId, kind: 'overlay.create', request }, async (made) => {
    const { observed, notices } = await remarksOn(context, vm, { ...overlay, point: made.point })
    return {
      kind: 'done',
      observed: { ...observed, point: made.point, capturedAtMs: made.capturedAtMs, disks: made.disks },
      effect: { ...effectOf(made.point), notices },
    }
  })
}

export function defineVm(
  context: StepContext,
  vm: ProtectedVm,
  definition: {
    side: Side
    fabricVmId: FabricVmId
    name: string
    disks: OverlayDisk[]
    nics: readonly NicSpec[]
    purpose?: 'replica' | 'test'
  },
  effect: Effect = {},
): Promise<StepOutcome> {
  const { side, fabricVmId, name, disks, purpose = 'replica' } = definition
  const nics = [...definition.nics]
  const description = { ...vm.description, fabricVmId, name, host: side.host, nics }
  const request = { fabricVmId, name, host: side.host, description, disks, nics, purpose }
  return byCommand(context, { server: side.providerId, kind: 'vm.define', request }, (seen) =>
    seen.exists
      ? { kind: 'done', observed: { exists: true, power: seen.power }, effect }
      : {
          kind: 'failed',
          error: new HotsiteError('vm-not-running', `${name} was defined on ${side.host} but is not there`),
        },
  )
}

/** The last step towards protection: the first point stands, and the VM is known at the target, without disks. */
export function defineReplicaVm(context: StepContext, effect: Effect = {}): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { target: side, name } = vm
  const definition = { side, fabricVmId: side.fabricVmId, name, disks: [], nics: side.nics }
  const notice = { severity: 'info' as const, code: 'vm-protected', message: `${name} is protected` }
  return defineVm(context, vm, definition, { ...effect, event: { kind: 'ready' }, notices: [notice] })
}

export interface StartRequest {
  readonly side: Side
  readonly fabricVmId: FabricVmId
  readonly nics: readonly NicSpec[]
  /**
   * strict: without heartbeat and networks the step fails, because there is a way back (test, planned).
   * lenient: a VM that runs is better than none; what is amiss becomes a warning (unplanned).
   */
  readonly demand: 'strict' | 'lenient'
}

/** Green only from what was seen: running, NICs where they belong, a heartbeat (I8). */
export async function startVm(
  context: StepContext,
  { side, fabricVmId, nics, demand }: StartRequest,
  effect: Effect,
): Promise<StepOutcome> {
  const request = { fabricVmId, heartbeatTimeoutMs: context.engine.limits.heartbeatTimeoutMs }
  const start = { server: side.providerId, kind: 'vm.start', request, attempts: 2 } as const
  const started = await context.command(start)
  if (started.kind === 'open') return started.outcome
  if (started.kind === 'done')
    return judgeStarted(context, started.result, { nics, demand, effect, amiss: [] })
  if (demand === 'strict' || started.error.code !== 'heartbeat-missing')
    return { kind: 'failed', error: started.error }
  const look = {
    server: side.providerId,
    kind: 'vm.observe',
    request: { fabricVmId },
    label: 'look',
  } as const
  return byCommand(context, look, (seen) =>
    judgeStarted(context, seen, { nics, demand, effect, amiss: [started.error.message] }),
  )
}

interface Judgement extends Pick<StartRequest, 'nics' | 'demand'> {
  readonly effect: Effect
  readonly amiss: readonly string[]
}

function judgeStarted(
  { job }: StepContext,
  seen: VmObservation,
  { nics, demand, effect, amiss }: Judgement,
): StepOutcome {
  if (!seen.exists || seen.power !== 'running')
    return {
      kind: 'failed',
      error: new HotsiteError(
        'vm-not-running',
        `${job.vmName} was started but is ${seen.exists ? 'off' : 'gone'}`,
      ),
    }
  const misplaced = misplacedNics(nics, seen.nics)
  if (misplaced.length > 0 && demand === 'strict')
    return {
      kind: 'failed',
      error: new HotsiteError('nic-not-connected', `${job.vmName} runs, but ${misplaced.join(', ')}`),
    }
  const warnings = [...amiss, ...misplaced]
  const notices = warnings.map((message) => ({
    severity: 'warning' as const,
    code: 'started-with-warning',
    message: `${job.vmName} runs at the target, but ${message}`,
  }))
  return {
    kind: 'done',
    observed: { power: seen.power, nics: seen.nics, heartbeatAgeMs: seen.heartbeatAgeMs, warnings },
    effect: { ...effect, notices: [...(effect.notices ?? []), ...notices] },
  }
}

/** Before the VM may start on a side that was fenced when it ran elsewhere. */
export function liftFence(context: StepContext, side: Side, effect: Effect): Promise<StepOutcome> {
  if (!side.fenced) return Promise.resolve({ kind: 'skipped' })
  const request = { fabricVmId: side.fabricVmId }
  return byCommand(context, { server: side.providerId, kind: 'vm.unfence', request }, (seen) => ({
    kind: 'done',
    observed: { fenced: seen.fenced },
    effect,
  }))
}

/** Powers a VM off, and does not go on before it was seen off: two of them must never run. */
export function stopVm(context: StepContext, side: Side, fabricVmId: FabricVmId): Promise<StepOutcome> {
  return byCommand(context, { server: side.providerId, kind: 'vm.stop', request: { fabricVmId } }, (seen) =>
    seen.power === 'off'
      ? { kind: 'done', observed: { power: seen.power } }
      : { kind: 'failed', error: new HotsiteError('vm-still-running', `${fabricVmId} was stopped but runs`) },
  )
}

export function removeDisks(
  context: StepContext,
  vm: ProtectedVm,
  overlay: OverlayId,
  effect: Effect = {},
): Promise<StepOutcome> {
  const request = { vmId: vm.vmId, overlayId: overlay }
  return byCommand(context, { server: vm.target.agentId, kind: 'overlay.remove', request }, () => ({
    kind: 'done',
    effect,
  }))
}

/** As `removeDisks`, but a target that is away does not hold the job up. */
export function tidyDisks(context: StepContext, vm: ProtectedVm, overlay: OverlayId): Promise<StepOutcome> {
  const request = { vmId: vm.vmId, overlayId: overlay }
  return byTidyCommand(context, { server: vm.target.agentId, kind: 'overlay.remove', request })
}
