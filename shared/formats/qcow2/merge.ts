import { assert } from '#shared/assert.ts'
import { CLUSTER_BYTES, encodeHeader } from './header.ts'
import type { Layer } from './layer-reader.ts'
import { type MergePlan, planMerge } from './merge-plan.ts'
import { ENTRIES_PER_CLUSTER, encodeL2, encodeReferences } from './tables.ts'

/** Between any two of these the process may die; the merge is then run again from the start. */
export const mergeSteps = [
  'data-written',
  'refcounts-written',
  'refcounts-synced',
  'l2-written',
  'l2-synced',
  'l1-written',
  'l1-synced',
  'freed-written',
  'freed-synced',
] as const
export type MergeStep = (typeof mergeSteps)[number]

/**
 * Writes the blocks of `upper` into the file of `lower`, which afterwards reads like both, with the upper one's size.
 * Data and refcounts, L2, L1 and header, released refcounts: each is on stable storage before the next begins, so a
 * table never points to what is not there, and a cluster in use never looks free.
 */
export function mergeInto(lower: Layer, upper: Layer, step: (step: MergeStep) => void = () => {}): void {
  const plan = planMerge(lower, upper)
  const { file } = lower
  copyData(lower, upper, plan)
  step('data-written')
  writeRefcounts(lower, plan, 'during')
  step('refcounts-written')
  file.sync()
  step('refcounts-synced')

  for (const tableIndex of plan.changedTables) {
    const table = plan.map.table(tableIndex)
    assert(table, 'a changed table exists')
    file.write([encodeL2(table)], (plan.l2Clusters[tableIndex] ?? 0) * CLUSTER_BYTES)
  }
  step('l2-written')
  file.sync()
  step('l2-synced')

  writeL1AndHeader(lower, plan)
  step('l1-written')
  file.sync()
  step('l1-synced')

  writeRefcounts(lower, plan, 'after')
  step('freed-written')
  file.sync()
  step('freed-synced')
  for (const run of neighbours(plan.freed)) {
    file.punchHole(run.first * CLUSTER_BYTES, run.count * CLUSTER_BYTES)
  }
}

function copyData(lower: Layer, upper: Layer, plan: MergePlan): void {
  const buffer = Buffer.allocUnsafe(16 * CLUSTER_BYTES)
  for (const run of plan.copies) {
    const bytes = buffer.subarray(0, run.count * CLUSTER_BYTES)
    upper.file.read(bytes, run.from * CLUSTER_BYTES)
    lower.file.write([bytes], run.to * CLUSTER_BYTES)
  }
}

function writeRefcounts(lower: Layer, plan: MergePlan, when: 'during' | 'after'): void {
  const use = when === 'during' ? plan.useDuring : plan.useAfter
  plan.refcountBlocks.forEach((cluster, i) => {
    lower.file.write([use.refcountBlock(i)], cluster * CLUSTER_BYTES)
  })
  if (when === 'after') return
  assert(
    plan.refcountBlocks.length <= plan.refcountTableClusters * ENTRIES_PER_CLUSTER,
    'a layer of more than 16 TiB',
  )
  const offsets = plan.refcountBlocks.map((cluster) => cluster * CLUSTER_BYTES)
  lower.file.write([encodeReferences(offsets, 'plain')], plan.refcountTableStart * CLUSTER_BYTES)
  lower.file.truncate(Math.max(lower.file.sizeBytes(), plan.useDuring.end * CLUSTER_BYTES))
}

function writeL1AndHeader(lower: Layer, plan: MergePlan): void {
  const offsets = plan.l2Clusters.map((cluster) => cluster * CLUSTER_BYTES)
  lower.file.write([encodeReferences(offsets, 'copied')], plan.l1Start * CLUSTER_BYTES)
  const grown = plan.sizeBytes !== lower.header.sizeBytes || plan.l2Clusters.length !== lower.header.l1Entries
  if (!grown) return
  // The header names the L1 table and its length: it may only do so once they are there.
  lower.file.sync()
  const cluster = Buffer.alloc(4096)
  encodeHeader({
    sizeBytes: plan.sizeBytes,
    backingName: lower.header.backingName,
    l1Offset: plan.l1Start * CLUSTER_BYTES,
    l1Entries: plan.l2Clusters.length,
    refcountTableOffset: plan.refcountTableStart * CLUSTER_BYTES,
    refcountTableClusters: plan.refcountTableClusters,
  }).copy(cluster)
  lower.file.write([cluster], 0)
}

function* neighbours(clusters: readonly number[]): Generator<{ first: number; count: number }> {
  let run: { first: number; count: number } | undefined
  for (const cluster of [...clusters].sort((a, b) => a - b)) {
    if (run && run.first + run.count === cluster) run.count++
    else {
      if (run) yield run
      run = { first: cluster, count: 1 }
    }
  }
  if (run) yield run
}
