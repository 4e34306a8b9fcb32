/**
 * Which members of a chain are merged into which, as data. A run of neighbours that are due goes into the first member
 * behind it that stays, in one merge: of each block only its newest version is copied, however many of them have it.
 */
import { MAX_MERGED_LAYERS } from '#shared/formats/qcow2/merge.ts'
import type { DiskId } from '#shared/ids.ts'
import type { Chain, ChainPoint } from '../catalog/chain.ts'

export interface MergeRun {
  /** Oldest first; they go. */
  readonly members: readonly ChainPoint[]
  /** It stays, and has everything afterwards. */
  readonly target: ChainPoint
  /** What the oldest member stands on. */
  readonly below: ChainPoint | undefined
}

/**
 * Every run there is, in their order. `dropped`: points that retention gives up; a base without a point is always due.
 *
 * A merge that was begun comes first, with exactly the members that are marked: some of its files may have been renamed
 * already, and what else is due waits until no file is in between.
 */
export function mergeRuns(chain: Chain, dropped: ReadonlySet<number>): MergeRun[] {
  const runs: MergeRun[] = []
  let rest = chain
  for (;;) {
    const run = nextRun(rest, dropped)
    if (!run) return runs
    const below = chain[chain.indexOf(run.members[0] ?? run.target) - 1]
    runs.push({ ...run, below })
    const gone = new Set(run.members)
    rest = rest.filter((member) => !gone.has(member))
  }
}

function nextRun(chain: Chain, dropped: ReadonlySet<number>): Omit<MergeRun, 'below'> | undefined {
  const isMarked = (member: ChainPoint | undefined) => member?.state === 'merging'
  const isDue = (member: ChainPoint | undefined) =>
    member !== undefined && (member.state !== 'point' || dropped.has(member.seq))
  const belongs = chain.some(isMarked) ? isMarked : isDue
  const first = chain.findIndex(belongs)
  if (first < 0) return undefined
  let end = first
  while (end - first < MAX_MERGED_LAYERS - 1 && belongs(chain[end])) end++
  const target = chain[end]
  return target && { members: chain.slice(first, end), target }
}

export function isSameRun(a: MergeRun, b: MergeRun): boolean {
  const seqs = ({ members, target }: MergeRun) => [...members, target].map(({ seq }) => seq).join()
  return seqs(a) === seqs(b)
}

/** Layers that are still to be copied downwards, from the run's second one to its target. */
export function uppersOf(run: MergeRun): readonly ChainPoint[] {
  return [...run.members.slice(1), run.target]
}

/** Whether a layer stands below that of this member, and below all of the run's that it stands on. */
export function hasBacking({ members, below }: MergeRun, member: ChainPoint, diskId: DiskId): boolean {
  const has = (one: ChainPoint | undefined) => one?.disks.some((disk) => disk.diskId === diskId) ?? false
  const place = members.findIndex(({ seq }) => seq === member.seq)
  return members.slice(0, place + 1).every(has) && has(below)
}
