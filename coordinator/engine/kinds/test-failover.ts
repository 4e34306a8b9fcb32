import { z } from 'zod'
import { assert } from '#shared/assert.ts'
import { fabricVmId, type JobId } from '#shared/ids.ts'
import { testNics } from '../../domain/network-mapping.ts'
import type { TestRun } from '../../domain/test-failover.ts'
import type { ProtectedVm } from '../../store/documents.ts'
import { pointName } from '../peers.ts'
import { byCommand, byTidyCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import {
  createDisks,
  createDisksStep,
  defineVm,
  overlayMade,
  overlayOf,
  removeDisks,
  startVm,
  stopVm,
  tidyDisks,
} from './target-vm.ts'

const pointRef = z.object({ epoch: z.int(), seq: z.int() })
/** A job of an earlier version did not say so. */
const verify = z.boolean().default(true)
const params = z.object({ point: pointRef.nullable(), network: z.string().nullable(), verify })
type Params = z.infer<typeof params>

const testVmOf = (jobId: JobId) => fabricVmId.parse(`test-${jobId}`)

function runOf(vm: ProtectedVm): TestRun {
  assert(vm.test.kind !== 'none', `a test of ${vm.vmId} is under way`)
  return vm.test.run
}

/** Replication goes on all the while; only the point the test stands on is leased (I10). */
export const testFailover = jobKind<Params>({
  kind: 'testFailover',
  params,
  steps: [
    { name: 'begin', title: 'Begin the test', run: begin },
    {
      name: createDisksStep,
      title: 'Make disks on the recovery point',
      run: (context) => {
        const vm = vmOf(context)
        const overlay = {
          overlayId: runOf(vm).overlayId,
          point: context.params.point,
          purpose: 'test' as const,
          verify: context.params.verify,
        }
        return createDisks(context, vm, overlay, (point) => ({ test: [{ kind: 'testOverlayReady', point }] }))
      },
    },
    { name: 'define-vm', title: 'Define the test VM', run: defineTestVm },
    { name: 'start-vm', title: 'Start the test VM and see it run', run: startTestVm },
    { name: 'picture', title: 'Keep a picture of its console', run: keepPicture },
  ],
  undoSteps: [
    {
      name: 'stop-vm',
      title: 'Power the test VM off',
      run: (context) => {
        const { target, test } = vmOf(context)
        if (test.kind === 'none') return Promise.resolve({ kind: 'skipped' })
        const request = { fabricVmId: test.run.fabricVmId }
        return byTidyCommand(context, { server: target.providerId, kind: 'vm.stop', request })
      },
    },
    {
      name: 'remove-vm',
      title: 'Remove the test VM',
      run: (context) => {
        const vm = vmOf(context)
        const request = { fabricVmId: runOf(vm).fabricVmId }
        return byTidyCommand(context, { server: vm.target.providerId, kind: 'vm.remove', request })
      },
    },
    {
      name: 'remove-disks',
      title: 'Remove the disks of the test',
      run: (context) => {
        const vm = vmOf(context)
        return tidyDisks(context, vm, runOf(vm).overlayId)
      },
    },
    { name: 'record', title: 'Keep the outcome', run: recordFailure },
  ],
  undo: (begun) => [
    ...(begun.has('define-vm') ? ['stop-vm', 'remove-vm'] : []),
    ...(begun.has(createDisksStep) ? ['remove-disks'] : []),
    'record',
  ],
  disturbsAt: () => 'start-vm',
})

function begin({ job, params, nowMs }: StepContext<Params>): Promise<StepOutcome> {
  const run: TestRun = {
    overlayId: overlayOf(job.jobId),
    fabricVmId: testVmOf(job.jobId),
    startedAtMs: nowMs,
    point: params.point,
    network: params.network,
  }
  return Promise.resolve({ kind: 'done', effect: { test: [{ kind: 'testBegan', run }] } })
}

function defineTestVm(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const nics = testNics(vm.target.nics, context.params.network)
  const { disks } = overlayMade(context)
  const name = `${vm.name}-test`
  const { fabricVmId } = runOf(vm)
  return defineVm(context, vm, { side: vm.target, fabricVmId, name, disks, nics, purpose: 'test' })
}

function startTestVm(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { point } = overlayMade(context)
  const message = `the test of ${vm.name} runs on point ${pointName(point)}; clean it up when you have looked at it`
  return startVm(
    context,
    {
      side: vm.target,
      fabricVmId: runOf(vm).fabricVmId,
      nics: testNics(vm.target.nics, context.params.network),
      demand: 'strict',
    },
    { test: [{ kind: 'testRunning' }], notices: [{ severity: 'info', code: 'test-running', message }] },
  )
}

/** Evidence, if it can be had: a test that runs is not taken down for want of it. */
async function keepPicture(context: StepContext<Params>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const request = { fabricVmId: runOf(vm).fabricVmId }
  const command = { server: vm.target.providerId, kind: 'vm.screenshot', request, attempts: 1 } as const
  const outcome = await context.command(command)
  if (outcome.kind === 'open')
    return outcome.connected && context.askedForMs < context.engine.limits.tidyWaitMs
      ? outcome.outcome
      : { kind: 'done', observed: { picture: 'none: the provider does not answer' } }
  if (outcome.kind === 'failed')
    return { kind: 'done', observed: { picture: `none: ${outcome.error.message}` } }
  const { pngBase64 } = outcome.result
  if (pngBase64 === null)
    return {
      kind: 'done',
      observed: { picture: 'none: the VM has no display, or a picture of it is too large' },
    }
  const png = Buffer.from(pngBase64, 'base64')
  return {
    kind: 'done',
    observed: { picture: `hotsite job picture ${context.job.jobId}` },
    effect: { picture: { takenAtMs: context.nowMs, png } },
  }
}

function recordFailure(context: StepContext<Params>): Promise<StepOutcome> {
  const { test, name } = vmOf(context)
  if (test.kind === 'none') return Promise.resolve({ kind: 'skipped' })
  const notes = context.error?.message ?? 'the test failed'
  const notice = {
    severity: 'warning' as const,
    code: 'test-failed',
    message: `test failover of ${name}: ${notes}`,
  }
  return Promise.resolve({
    kind: 'done',
    effect: {
      test: [
        { kind: 'testCleanupBegan', notes, outcome: 'failed' },
        { kind: 'testCleaned', atMs: context.nowMs },
      ],
      notices: [notice],
    },
  })
}

const cleanupParams = z.object({ notes: z.string(), outcome: z.enum(['passed', 'failed']) })
type CleanupParams = z.infer<typeof cleanupParams>

/** What is left when a clean-up fails stays listed as a test, so that it can be cleaned up again. */
export const cleanupTest = jobKind<CleanupParams>({
  kind: 'cleanupTest',
  params: cleanupParams,
  steps: [
    {
      name: 'begin',
      title: 'Begin to clean up',
      run: ({ params }) =>
        Promise.resolve({ kind: 'done', effect: { test: [{ kind: 'testCleanupBegan', ...params }] } }),
    },
    {
      name: 'stop-vm',
      title: 'Power the test VM off',
      run: (context) => {
        const vm = vmOf(context)
        return stopVm(context, vm.target, runOf(vm).fabricVmId)
      },
    },
    {
      name: 'remove-vm',
      title: 'Remove the test VM',
      run: (context) => {
        const vm = vmOf(context)
        const request = { fabricVmId: runOf(vm).fabricVmId }
        const command = { server: vm.target.providerId, kind: 'vm.remove', request } as const
        return byCommand(context, command, () => ({ kind: 'done' }))
      },
    },
    {
      name: 'remove-disks',
      title: 'Remove the disks of the test',
      run: (context) => {
        const vm = vmOf(context)
        const done = { kind: 'testCleaned', atMs: context.nowMs } as const
        return removeDisks(context, vm, runOf(vm).overlayId, { test: [done] })
      },
    },
  ],
  undoSteps: [],
  undo: () => [],
})
