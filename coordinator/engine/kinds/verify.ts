/**
 * Every block, or a sample, is read again: at the source against its hash tree, which catches a tracker that lied, then at
 * the target against what was attested, which catches rot and heals it. Replication goes on all the while.
 */
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId } from '#shared/ids.ts'
import { type VerifyFinding, verifyFindings } from '../../domain/verify-outcome.ts'
import { pointName } from '../peers.ts'
import { byCommand, jobKind, observedOf, type StepContext, type StepOutcome, vmOf } from '../step.ts'

const params = z.object({ percent: z.number().gt(0).max(100) })
type Params = z.infer<typeof params>

const atSource = z.object({
  disks: z.array(
    z.object({ diskId, checkedBlocks: z.int(), totalBlocks: z.int(), untrackedBlocks: z.int() }),
  ),
})
const atTarget = z.object({
  disks: z.array(
    z.object({
      diskId,
      checkedBlocks: z.int(),
      totalBlocks: z.int(),
      badBlocks: z.int(),
      healedBlocks: z.int(),
      healedLayers: z.int().default(0),
    }),
  ),
  damagedPoints: z.array(z.object({ epoch: z.int(), seq: z.int() })),
})

export const verify = jobKind<Params>({
  kind: 'verify',
  params,
  steps: [
    {
      name: 'verify-source',
      title: 'Read the blocks again at the source',
      run: (context) => {
        const { source, vmId, protection } = vmOf(context)
        // A paused source captures nothing, and reading is a part of its cycle.
        if (protection.kind === 'paused') return sourceNotRead('replication is paused')
        const request = { vmId, percent: context.params.percent }
        const command = { server: source.agentId, kind: 'replication.verify', request } as const
        return byCommand(context, command, ({ disks }) => ({
          kind: 'done',
          observed: {
            checkedBlocks: sum(disks, 'checkedBlocks'),
            untrackedBlocks: sum(disks, 'untrackedBlocks'),
            disks,
          },
        }))
      },
    },
    {
      name: 'verify-target',
      title: 'Read the blocks again at the target, and heal them',
      run: verifyTarget,
    },
    { name: 'conclude', title: 'Compare what was found', run: conclude },
  ],
  undoSteps: [],
  undo: () => [],
})

const sourceNotRead = (reason: string): Promise<StepOutcome> =>
  Promise.resolve({ kind: 'skipped', observed: { reason } })

/** null: the source was not read. */
function readAtSource(context: StepContext<Params>) {
  const wasRead = context.steps.some(({ name, state }) => name === 'verify-source' && state === 'succeeded')
  return wasRead ? observedOf(context, 'verify-source', atSource).disks : null
}

const sum = <Key extends string>(disks: readonly Readonly<Record<Key, number>>[], key: Key): number =>
  disks.reduce((total, disk) => total + disk[key], 0)

/** The events belong to this step: what was found stands whatever becomes of the job. */
function verifyTarget(context: StepContext<Params>): Promise<StepOutcome> {
  const { target, vmId, name } = vmOf(context)
  const request = { vmId, percent: context.params.percent }
  const command = { server: target.agentId, kind: 'replica.verify', request } as const
  return byCommand(context, command, ({ disks, damagedPoints }) => {
    const findings = verifyFindings(readAtSource(context), disks)
    const notices = findings.flatMap(({ diskId: disk, event }) =>
      event
        ? [
            {
              severity: event.severity,
              code: 'verify-differences',
              message: `verification of ${name}: ${event.message}`,
              eventId: `verify/${context.job.jobId}/${disk}`,
            },
          ]
        : [],
    )
    return {
      kind: 'done',
      observed: {
        checkedBlocks: sum(disks, 'checkedBlocks'),
        badBlocks: sum(disks, 'badBlocks'),
        healedBlocks: sum(disks, 'healedBlocks'),
        healedLayers: sum(disks, 'healedLayers'),
        disks,
        damagedPoints,
      },
      effect: { notices },
    }
  })
}

function conclude(context: StepContext<Params>): Promise<StepOutcome> {
  const target = observedOf(context, 'verify-target', atTarget)
  const findings = verifyFindings(readAtSource(context), target.disks)
  const sentences = findings.map(({ sentence }) => sentence)
  const damaged = target.damagedPoints.map(pointName)
  if (target.disks.every(({ badBlocks }) => badBlocks === 0) && damaged.length === 0)
    return Promise.resolve({ kind: 'done', observed: { sentences } })
  return Promise.resolve({ kind: 'failed', error: damageError(context, findings, damaged) })
}

function damageError(
  { job }: StepContext<Params>,
  findings: readonly VerifyFinding[],
  damaged: readonly string[],
): HotsiteError {
  const sentences = findings.map(({ sentence }) => sentence)
  const points =
    damaged.length === 0
      ? []
      : [
          `recovery ${damaged.length === 1 ? 'point' : 'points'} ${damaged.join(', ')} cannot be used until healed`,
        ]
  const message = `${job.vmName}: ${[...sentences, ...points].join('. ')}`
  return new HotsiteError('verify-failed', message, { details: { sentences, damagedPoints: damaged } })
}
