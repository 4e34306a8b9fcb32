/**
 * Which members of a chain are merged into which, as data. A run of neighbours that are due goes into the first member
 * behind it that stays, in one merge: of each block only its newest version is copied, however many of them have it.
 */
import { MAX_MERGED_LAYERS } from '#shared/formats/qcow2/merge.ts'
import type { DiskId } from '#shared/ids.ts'
import type { Chain, ChainPoint } from './chain.ts'

export interface MergeRun {
  /** Oldest first; they go. */
  readonly members: readonly ChainPoint[]
  /** It stays, and has everything afterwards. */
  readonly target: ChainPoint
  /** What the oldest member stands on. */
  readonly below: ChainPoint | undefined
}

/** The oldest run, or undefined when nothing is due. Due are bases, what a merge was begun with, and `dropped` points. */
export function nextRun(chain: Chain, dropped: ReadonlySet<number>): MergeRun | undefined {
  const isDue = (member: ChainPoint | undefined) =>
    member !== undefined && (member.state !== 'point' || dropped.has(member.seq))
  const first = chain.findIndex(isDue)
  if (first < 0) return undefined
  let end = first
  while (end - first < MAX_MERGED_LAYERS - 1 && isDue(chain[end])) end++
  const target = chain[end]
  return target && { members: chain.slice(first, end), target, below: chain[first - 1] }
}

/** Layers that are still to be copied downwards, from the run's second one to its target. */
export function uppersOf(run: MergeRun): readonly ChainPoint[] {
  return [...run.members.slice(1), run.target]
}

/** Every run there is, as if nothing else came: for the debt. */
export function allRuns(chain: Chain, dropped: ReadonlySet<number>): MergeRun[] {
  const runs: MergeRun[] = []
  let rest = chain
  for (let run = nextRun(rest, dropped); run; run = nextRun(rest, dropped)) {
    runs.push(run)
    const { target } = run
    rest = rest.slice(rest.indexOf(target))
    // Bounded runs follow each other: what one merged into is the next one's oldest, unless it stays.
    if (rest.length === 1) break
  }
  return runs
}

/** Whether the layer of a member of the run stood on another one before the merge; asked of the disk's lowest one in a row. */
export function hasBacking({ members, below }: MergeRun, member: ChainPoint, diskId: DiskId): boolean {
  const has = (one: ChainPoint | undefined) => one?.disks.some((disk) => disk.diskId === diskId) ?? false
  const place = members.findIndex(({ seq }) => seq === member.seq)
  return members.slice(0, place + 1).every(has) && has(below)
}
