/** What a verification found, in a sentence for each disk. */
import type { CommandResultOf } from '#shared/messages/commands.ts'
import { describeBlocks } from './quantities.ts'

export type SourceVerified = CommandResultOf<'replication.verify'>['disks'][number]
export type TargetVerified = CommandResultOf<'replica.verify'>['disks'][number]

export interface VerifyFinding {
  readonly diskId: string
  readonly sentence: string
  /** null: nothing differed. */
  readonly event: { readonly severity: 'warning' | 'critical'; readonly message: string } | null
}

/** Disks in the order of their ids. source null: it was not read. */
export function verifyFindings(
  source: readonly SourceVerified[] | null,
  target: readonly TargetVerified[],
): readonly VerifyFinding[] {
  if (source === null) return target.toSorted(byDiskId).map(ofTargetAlone)
  const ids = [...new Set([...source, ...target].map(({ diskId }) => diskId as string))].sort()
  return ids.map((diskId) => {
    const atSource = source.find((disk) => disk.diskId === diskId)
    const atTarget = target.find((disk) => disk.diskId === diskId)
    return {
      diskId,
      sentence: `${diskId}: ${sentenceOf(atSource, atTarget)}`,
      event: eventOf(diskId, atSource, atTarget),
    }
  })
}

const byDiskId = (a: TargetVerified, b: TargetVerified): number => (a.diskId < b.diskId ? -1 : 1)

/** What the source has meanwhile is unknown: only that the target holds what was attested. */
function ofTargetAlone(target: TargetVerified): VerifyFinding {
  const covered = shareOf(target)
  const share = covered >= 1 ? '100 % of blocks' : `a sample of ${percentText(covered)} of blocks`
  const parts =
    target.badBlocks > 0 ? [badText(target.badBlocks)] : [`the target is as attested, ${share}, just now`]
  parts.push(...healedTexts(target))
  const { diskId } = target
  return {
    diskId,
    sentence: `${diskId}: ${[...parts, 'the source was not read'].join('; ')}`,
    event: eventOf(diskId, undefined, target),
  }
}

function sentenceOf(source: SourceVerified | undefined, target: TargetVerified | undefined): string {
  if (!source) return 'not at the source: nothing to compare it with'
  if (!target) return 'not at the target yet: it comes with the next copy'
  const notes = [
    ...(source.untrackedBlocks > 0 ? [untrackedText(source.untrackedBlocks)] : []),
    ...healedTexts(target),
  ]
  const covered = Math.min(shareOf(source), shareOf(target))
  const all = covered >= 1
  const share = all ? '100 % of blocks' : `a sample of ${percentText(covered)} of blocks`
  if (target.badBlocks > 0) return [badText(target.badBlocks), ...notes].join('; ')
  if (source.untrackedBlocks > 0) return [...notes, `the rest of ${share} is equal`].join('; ')
  return [all ? `proved equal, ${share}, just now` : `found equal, ${share}, just now`, ...notes].join('; ')
}

function eventOf(
  diskId: string,
  source: SourceVerified | undefined,
  target: TargetVerified | undefined,
): VerifyFinding['event'] {
  const bad = target?.badBlocks ?? 0
  const untracked = source?.untrackedBlocks ?? 0
  const parts = [
    ...(bad > 0 ? [badText(bad)] : []),
    ...(untracked > 0 ? [untrackedText(untracked)] : []),
    ...(target ? healedTexts(target) : []),
  ]
  if (parts.length === 0) return null
  return { severity: bad > 0 ? 'critical' : 'warning', message: `${diskId}: ${parts.join('; ')}` }
}

const badText = (count: number): string =>
  `${describeBlocks(count)} at the target ${count === 1 ? 'is' : 'are'} not what was attested, and the source could not heal ${count === 1 ? 'it' : 'them'}`
const untrackedText = (count: number): string =>
  `${describeBlocks(count)} had changed at the source without its tracker saying so: the next copy brings ${count === 1 ? 'it' : 'them'}`

function healedTexts({ healedBlocks, healedLayers }: TargetVerified): string[] {
  const texts: string[] = []
  if (healedLayers > 0)
    texts.push(
      `${healedLayers === 1 ? 'a layer file' : `${healedLayers} layer files`} of the target had wrong tables, size or name, or ` +
        `${healedLayers === 1 ? 'was' : 'were'} gone, and ${healedLayers === 1 ? 'is' : 'are'} right again`,
    )
  if (healedBlocks > 0)
    texts.push(
      `${describeBlocks(healedBlocks)} had rotted at the target and ${healedBlocks === 1 ? 'was' : 'were'} healed from the source`,
    )
  return texts
}

/** 0 to 1; a disk without blocks is covered. */
const shareOf = ({ checkedBlocks, totalBlocks }: { checkedBlocks: number; totalBlocks: number }): number =>
  totalBlocks === 0 ? 1 : checkedBlocks / totalBlocks

/** Never rounded up to all: "99.9 %" is not a proof. */
const percentText = (share: number): string => `${Math.min(99.9, Math.floor(share * 1000) / 10)} %`
