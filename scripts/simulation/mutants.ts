/**
 * Deliberate bugs, each of which the simulation must find: `./scripts/simulate --break NAME`. mutants.test.ts keeps
 * their lines alive and runs the quick ones.
 */
import type { Mutation } from '../mutation/mutate.ts'
import type { HistoryPlan, PlannedAction } from './plan.ts'

export interface Mutant {
  readonly name: string
  /** What the bug is. */
  readonly bug: string
  /** Invariants by which it may show. */
  readonly breaks: readonly string[]
  /** What a history must meet for the bug to show at all; others are not run. Undefined: every history meets it. */
  readonly meets?: (plan: HistoryPlan) => boolean
  /** Histories that meet it, from seed 1 on, within which it is found. */
  readonly seeds: number
  readonly mutations: readonly Mutation[]
}

/** Power is lost at an instant of such a name; a star stands for the rest of one. */
function losesPowerAt(...names: readonly string[]): (plan: HistoryPlan) => boolean {
  const isMeant = (name: string) =>
    names.some((one) => (one.endsWith('*') ? name.startsWith(one.slice(0, -1)) : name === one))
  return ({ crashes }) => crashes.some(({ name, power }) => power && isMeant(name))
}

function plans(...kinds: readonly PlannedAction['kind'][]): (plan: HistoryPlan) => boolean {
  return ({ actions }) => actions.some(({ kind }) => kinds.includes(kind))
}

export const mutants: readonly Mutant[] = [
  {
    name: 'base-released-early',
    bug: 'the base is released when the last batch was sent, before the target has the point',
    breaks: ['I2', 'I7'],
    seeds: 10,
    mutations: [
      {
        file: 'recovery-agent/stream/source/send-delta.ts',
        find: '  await endDelta(transfer, {\n    epoch,\n    seq,\n    manifest: delta.manifest,',
        replace:
          '  await engine.acknowledge(vmId, seq)\n  await endDelta(transfer, {\n    epoch,\n    seq,\n    manifest: delta.manifest,',
      },
    ],
  },
  {
    name: 'root-not-checked',
    bug: 'a point is made although its root is not the one the source signed',
    breaks: ['I3'],
    meets: plans('memory-spoils', 'snapshot-torn'),
    seeds: 20,
    mutations: [
      {
        file: 'recovery-agent/replica/receiving/receive.ts',
        find: 'if (diverging.length > 0) {',
        replace: 'if (diverging.length > 1_000_000) {',
      },
    ],
  },
  {
    name: 'journal-before-data',
    bug: 'the journal of a delta speaks of data that was never synced',
    breaks: ['I3', 'I7', 'convergence'],
    meets: losesPowerAt('replica.sync-journal-*'),
    seeds: 40,
    mutations: [
      {
        file: 'recovery-agent/replica/receiving/receiving-delta.ts',
        find: 'for (const disk of dirty) disk.syncData()',
        replace: '',
      },
    ],
  },
  {
    name: 'resume-skips-a-batch',
    bug: 'a resumed delta goes on one batch too late',
    breaks: ['I4', 'I7', 'convergence'],
    meets: ({ crashes }) => crashes.some(({ name }) => name.startsWith('replica.sync-')),
    seeds: 15,
    mutations: [
      {
        file: 'recovery-agent/replica/receiving/receiving-disk.ts',
        find: "if (kind !== 'sync') this.#nextBatch = batch + 1",
        replace: "if (kind !== 'sync') this.#nextBatch = batch + 2",
      },
    ],
  },
  {
    name: 'merge-not-synced',
    bug: 'pruning renames a merged layer whose tables were not synced',
    breaks: ['I3'],
    meets: losesPowerAt('replica.prune-*'),
    seeds: 15,
    mutations: [
      {
        file: 'shared/formats/qcow2/merge.ts',
        find: "    this.#step('l2-written')\n    file.sync()",
        replace: "    this.#step('l2-written')",
      },
      {
        file: 'shared/formats/qcow2/merge.ts',
        find: "    this.#step('l1-written')\n    file.sync()",
        replace: "    this.#step('l1-written')",
      },
      {
        file: 'shared/formats/qcow2/merge.ts',
        find: "    this.#step('freed-written')\n    file.sync()",
        replace: "    this.#step('freed-written')",
      },
    ],
  },
  {
    name: 'names-not-synced',
    bug: 'a point is recorded before the names of its layers are on stable storage',
    breaks: ['I3', 'I4', 'I10'],
    meets: losesPowerAt(
      'replica.seal-files-durable',
      'replica.seal-in-transaction',
      'replica.seal-committed',
    ),
    seeds: 10,
    mutations: [
      {
        file: 'recovery-agent/replica/receiving/receiving-delta.ts',
        find: "    this.#syncFolders()\n    crash('replica.seal-files-durable')",
        replace: "    crash('replica.seal-files-durable')",
      },
    ],
  },
  {
    name: 'pinned-point-dropped',
    bug: 'retention takes a pinned point',
    breaks: ['I10'],
    meets: plans('pin'),
    seeds: 5,
    mutations: [
      {
        file: 'recovery-agent/replica/catalog/catalog.ts',
        find: "pinned: row['pinned'] === 1",
        replace: 'pinned: false',
      },
    ],
  },
  {
    name: 'used-point-dropped',
    bug: 'retention takes a point a test failover stands on',
    breaks: ['I10'],
    meets: plans('overlay'),
    seeds: 10,
    mutations: [
      {
        file: 'recovery-agent/replica/merging/prune.ts',
        find: 'inUse: overlaysOn(overlays, point).length > 0,',
        replace: 'inUse: overlays.length < 0,',
      },
    ],
  },
  {
    name: 'older-epoch-accepted',
    bug: 'a fence is a number that nobody checks',
    breaks: ['I5'],
    meets: plans('failover'),
    seeds: 20,
    mutations: [
      {
        file: 'recovery-agent/stream/target/check-open.ts',
        find: 'if (replica && epoch < replica.epoch) throw',
        replace: 'if (replica && epoch < 0) throw',
      },
      {
        file: 'recovery-agent/stream/target/receiver.ts',
        find: 'if (replica.epoch !== epoch) throw',
        replace: 'if (replica.epoch < 0) throw',
      },
      {
        file: 'recovery-agent/replica/context.ts',
        find: 'if (epoch >= replica.epoch) return',
        replace: 'if (epoch >= 0) return',
      },
    ],
  },
  {
    name: 'tree-outside-of-the-seal',
    bug: 'the leaves of a delta are stored before it is sealed, in a transaction of their own',
    breaks: ['I7', 'I3', 'convergence'],
    meets: ({ crashes }) =>
      crashes.some(({ name }) => name === 'capture.before-seal' || name === 'capture.in-seal'),
    seeds: 20,
    mutations: [
      {
        file: 'recovery-agent/capture/capture-cycle.ts',
        find: "  deps.crashPoint('capture.before-seal')",
        replace:
          "  deps.buffer.atomically(() => storeDiskTrees(deps.buffer, vm.vmId, disksOf(cycle)))\n  deps.crashPoint('capture.before-seal')",
      },
    ],
  },
  {
    name: 'seam-forgotten',
    bug: 'a disk that shrank or grew keeps the leaf of the block at its old end',
    breaks: ['I7', 'I3'],
    meets: plans('shrink'),
    seeds: 25,
    mutations: [
      {
        file: 'recovery-agent/capture/scan.ts',
        find: 'Math.floor(Math.min(formerSizeBytes, disk.sizeBytes) / BLOCK_BYTES)',
        replace: 'Math.ceil(Math.min(formerSizeBytes, disk.sizeBytes) / BLOCK_BYTES)',
      },
    ],
  },
  {
    name: 'unacked-delta-collected',
    bug: 'garbage collection deletes a sealed delta that the target does not have yet',
    breaks: ['convergence', 'I2', 'I7', 'engine'],
    seeds: 10,
    mutations: [
      {
        file: 'recovery-agent/buffer/delta-rows.ts',
        find: '(deltas.seq <= vms.acked_seq AND NOT',
        replace: '(deltas.seq <= vms.acked_seq + 1 AND NOT',
      },
    ],
  },
  {
    name: 'owed-released-with-the-union',
    bug: 'the acknowledgement of the newest point releases the deltas that older ones are still made of',
    breaks: ['backfill'],
    seeds: 10,
    mutations: [
      {
        file: 'recovery-agent/buffer/delta-rows.ts',
        find: '(deltas.seq <= vms.acked_seq AND NOT',
        replace: '(deltas.seq <= vms.acked_seq OR 0 AND NOT',
      },
    ],
  },
  {
    name: 'oldest-first',
    bug: 'after an outage the points come in their order',
    breaks: ['newest-first'],
    seeds: 10,
    mutations: [
      {
        file: 'recovery-agent/source/catching-up.ts',
        find: 'const mayOwe = takesBackfills &&',
        replace: 'const mayOwe = !takesBackfills &&',
      },
    ],
  },
  {
    name: 'base-of-a-backfill-pruned',
    bug: 'a point is pruned while older ones are still to be put on it',
    breaks: ['backfill', 'I3', 'I10'],
    meets: (plan) =>
      plans('outage')(plan) && plan.vms.some(({ policy }) => policy.retentionIntervalSeconds === 60),
    seeds: 20,
    mutations: [
      {
        file: 'recovery-agent/replica/merging/prune.ts',
        find: '!keep && !held.has(seq)',
        replace: '!keep',
      },
    ],
  },
]

export function mutantCalled(name: string): Mutant {
  const found = mutants.find((mutant) => mutant.name === name)
  if (found) return found
  throw new Error(`there is no mutant ${name}, but ${mutants.map((mutant) => mutant.name).join(', ')}`)
}
