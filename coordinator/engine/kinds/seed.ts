/**
 * The first copy, carried: the source writes the disks as an encrypted seed into a folder, a person brings it to the target,
 * the target makes its replica of it, and the synchronization that follows sends what changed meanwhile.
 *
 *   exportSeed:  (not protected) ──▶ awaitingSeed        again: the same key, the same state; the export goes on
 *   importSeed:  awaitingSeed ──▶ initialReplication ──▶ protected       given up: back to awaitingSeed
 */
import { z } from 'zod'
import { describeBytes } from '../../domain/quantities.ts'
import { startReplicationRequest } from '../peers.ts'
import { BLANK_KEY, ensureSeedKey } from '../seed-keys.ts'
import { byCommand, byTidyCommand, jobKind, type StepContext, type StepOutcome, vmOf } from '../step.ts'
import { awaitFirstPoint } from './first-copy.ts'
import { checkVm, choosePlace, placeParams } from './placement-steps.ts'
import { defineReplicaVm } from './target-vm.ts'

const exportParams = placeParams.extend({ folder: z.string(), partBytes: z.int().positive() })
type ExportParams = z.infer<typeof exportParams>

export const exportSeed = jobKind<ExportParams>({
  kind: 'exportSeed',
  params: exportParams,
  steps: [
    {
      name: 'check',
      title: 'Check that the VM can be protected',
      run: (context) => (context.vm ? skipped() : checkVm(context)),
    },
    {
      name: 'place',
      title: 'Choose the host of the replica',
      run: (context) => (context.vm ? skipped() : choosePlace(context, { kind: 'awaitingSeed' })),
    },
    { name: 'export', title: 'Write the disks as an encrypted seed at the source', run: writeSeed },
  ],
  undoSteps: [
    { name: 'forget', title: 'Forget the protection, if nothing was exported yet', run: forgetIfNew },
  ],
  undo: () => ['forget'],
})

const skipped = (): Promise<StepOutcome> => Promise.resolve({ kind: 'skipped' })

async function writeSeed(context: StepContext<ExportParams>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { folder, partBytes } = context.params
  await ensureSeedKey(context.engine, context.engine.db, vm)
  const { fabricVmId, agentId, host } = vm.source
  const request = { vmId: vm.vmId, fabricVmId, folder, partBytes, keyBase64: BLANK_KEY }
  const command = { server: agentId, kind: 'seed.export', request } as const
  return byCommand(context, command, ({ files, blocks, bytes, capturedAtMs }) => {
    const message =
      `the disks of ${vm.name} are in ${folder} on ${host} (${files === 1 ? '1 file' : `${files} files`}, ` +
      `${describeBytes(bytes)}, encrypted): bring the folder to ${vm.target.host}, then import it`
    return {
      kind: 'done',
      observed: { files, sizeBytes: bytes, blocks, capturedAtMs },
      effect: {
        patch: { seed: { folder, files, bytes, exportedAtMs: capturedAtMs } },
        notices: [{ severity: 'info', code: 'seed-exported', message }],
      },
    }
  })
}

/**
 * A failure (a full disk, an agent that died) keeps VM and key, so that the same command goes on where it stopped. A
 * person who cancels the first export wants the VM as it was.
 */
function forgetIfNew({ vm, error }: StepContext<ExportParams>): Promise<StepOutcome> {
  if (!vm || vm.seed || error?.code !== 'job-cancelled') return skipped()
  return Promise.resolve({ kind: 'done', effect: { forget: true } })
}

const importParams = z.object({ folder: z.string() })
type ImportParams = z.infer<typeof importParams>

export const importSeed = jobKind<ImportParams>({
  kind: 'importSeed',
  params: importParams,
  steps: [
    { name: 'import', title: 'Make the replica of the seed at the target', run: readSeed },
    { name: 'start-replication', title: 'Start replication at the source', run: startReplication },
    {
      name: 'first-copy',
      title: 'Send what changed since the export',
      run: (context) => {
        const vm = vmOf(context)
        return awaitFirstPoint(context, vm, { from: vm.source, to: vm.target })
      },
    },
    {
      name: 'define-replica-vm',
      title: 'Define the VM at the target',
      run: (context) => defineReplicaVm(context, { forgetSeedKey: true, patch: { seed: null } }),
    },
  ],
  undoSteps: [
    {
      name: 'stop-replication',
      title: 'Stop replication at the source',
      run: (context) => {
        const { source, vmId } = vmOf(context)
        return byTidyCommand(context, { server: source.agentId, kind: 'replication.stop', request: { vmId } })
      },
    },
    {
      name: 'return',
      title: 'Wait for the seed again',
      run: (context) =>
        vmOf(context).protection.kind === 'initialReplication'
          ? Promise.resolve({ kind: 'done', effect: { event: { kind: 'seedReturned' } } })
          : skipped(),
    },
  ],
  undo: (begun) => (begun.has('start-replication') ? ['stop-replication', 'return'] : []),
})

/** Parts that are missing or damaged cost a transfer over the network, not the import. */
function readSeed(context: StepContext<ImportParams>): Promise<StepOutcome> {
  const { vmId, epoch, source, target, policy, name } = vmOf(context)
  const { folder } = context.params
  const sourceServerId = source.agentId
  const request = { vmId, epoch, sourceServerId, policy, folder, keyBase64: BLANK_KEY }
  const command = { server: target.agentId, kind: 'seed.import', request } as const
  return byCommand(context, command, ({ blocks, bytes, problems }) => {
    const told = problemsText(problems)
    if (told === undefined) return { kind: 'done', observed: { blocks, sizeBytes: bytes } }
    const notice = {
      severity: 'warning' as const,
      code: 'seed-incomplete',
      message: `the seed of ${name} is not complete: ${told}`,
    }
    return {
      kind: 'done',
      observed: { blocks, sizeBytes: bytes, warning: `the seed is not complete: ${told}` },
      effect: { notices: [notice] },
    }
  })
}

/** Parts named in one sentence; the log of the agent has them all. */
const namedProblems = 5

function problemsText(problems: readonly string[]): string | undefined {
  if (problems.length === 0) return undefined
  const more = problems.length - namedProblems
  const named = problems.slice(0, namedProblems).join('; ')
  return `${named}${more > 0 ? `; and ${more} more` : ''}. What they held is sent over the network`
}

async function startReplication(context: StepContext<ImportParams>): Promise<StepOutcome> {
  const vm = vmOf(context)
  const { source: from, target: to, epoch } = vm
  const start = { from, to, epoch, cause: 'initial' as const }
  const { request, kept } = await startReplicationRequest(context.engine, vm, start)
  return byCommand(context, { server: from.agentId, kind: 'replication.start', request }, () => ({
    kind: 'done',
    effect: { event: { kind: 'replicationStarted' }, patch: { ticket: kept } },
  }))
}
