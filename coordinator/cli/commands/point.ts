import type { Command } from 'commander'
import type { PointView } from '#coordinator/admin/views.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { visible } from '../text/style.ts'
import type { Cell } from '../text/table.ts'
import { clockText, durationText, sizeText, timeText } from '../text/units.ts'
import { withExample } from './example.ts'

export function addPointCommands(program: Command, context: Context): void {
  const group = program.command('point').description('recovery points')

  withExample(
    group
      .command('list <vm>')
      .description('the recovery points of a VM, newest first')
      .option('--why', 'say of every point why retention keeps it')
      .action(async (vm: string, options: { why?: boolean }, command: Command) => {
        const points = await clientFor(context, command).call('listPoints', { params: { vm } })
        show(context, command, points, (all) => (options.why ? whyLines : listLines)(context, vm, all))
      }),
    'hotsite point list shop',
    'hotsite point list shop --why',
  )
  const pinning = [
    ['pin', 'pinPoint', 'keep a recovery point whatever the retention says', 'is kept until it is unpinned'],
    [
      'unpin',
      'unpinPoint',
      'give a recovery point back to the retention',
      'is kept as long as the retention says',
    ],
  ] as const
  for (const [name, operation, description, result] of pinning) {
    withExample(
      group
        .command(`${name} <vm> <point>`)
        .description(description)
        .action(async (vm: string, point: string, _options: unknown, command: Command) => {
          await clientFor(context, command).call(operation, { params: { vm, point } })
          show(context, command, { vm, point, pinned: name === 'pin' }, () => [
            `Point ${point} of ${vm} ${result}.`,
          ])
        }),
      `hotsite point ${name} shop 1.42`,
    )
  }
}

function listLines(context: Context, vm: string, points: readonly PointView[]): string[] {
  if (points.length === 0) return [`${vm} has no recovery point yet. See: hotsite vm show ${vm}`]
  const columns = [
    { title: 'POINT' },
    { title: 'CAPTURED (UTC)' },
    { title: 'AGE', align: 'right' as const },
    { title: 'KIND' },
    { title: 'SOUND' },
    { title: 'CHANGED', align: 'right' as const },
    { title: 'KEPT FOR', shrinks: true },
  ]
  const sorted = newestFirst(points)
  const rows = sorted.map((point) => [
    point.name,
    clockText(point.capturedAtMs),
    durationText(point.ageMs),
    point.consistency === 'application' ? 'app' : 'crash',
    soundCell(point),
    sizeText(point.changedBytes),
    keptFor(point),
  ])
  return [...table(context, columns, rows), ...suspicions(sorted)]
}

const newestFirst = (points: readonly PointView[]): readonly PointView[] =>
  points.toSorted((a, b) => b.epoch - a.epoch || b.seq - a.seq)

function soundCell({ attested, damaged, suspect }: PointView): Cell {
  if (damaged) return { text: 'damaged', style: 'bad' }
  if (!attested) return { text: 'not attested', style: 'bad' }
  return suspect === null ? { text: 'attested', style: 'good' } : { text: 'suspect', style: 'warn' }
}

/** A word in the table is not enough for what a person has to decide. */
function suspicions(points: readonly PointView[]): string[] {
  const lines = points.flatMap(({ name, suspect }) =>
    suspect === null ? [] : [`${name} is suspect: ${suspect}`],
  )
  return lines.length === 0 ? [] : ['', ...lines.map(visible)]
}

function whyLines(context: Context, vm: string, points: readonly PointView[]): string[] {
  if (points.length === 0) return [`${vm} has no recovery point yet. See: hotsite vm show ${vm}`]
  return newestFirst(points).flatMap((point) => [
    `${context.paint('bold', point.name)}  ${timeText(point.capturedAtMs)}`,
    ...reasonsOf(point).map((reason) => `    ${visible(reason)}`),
  ])
}

/** Why retention keeps a point, in a word for the table and in a sentence for --why. */
const keptWords: ReadonlyMap<string, readonly [string, string]> = new Map([
  ['newest', ['newest', 'it is the newest: the base of the next copy, kept under every policy']],
  ['pinned', ['pin', 'somebody pinned it: it stays until "hotsite point unpin"']],
  ['in-use', ['running VM', 'a VM runs on it: a test failover, or a failover that is not committed']],
  ['newest-sound', ['newest sound', 'the newest point is damaged, and this is the newest that is not']],
  [
    'before-suspect',
    [
      'before suspect',
      'it is the last one before a suspect point: held for a while, in case the suspicion is right',
    ],
  ],
  ['suspect', ['suspect', 'it marks where a suspicion began: the point before it is held because of it']],
  [
    'spaced',
    ['spacing', 'it lies far enough behind the point kept before it, and within the amount of the policy'],
  ],
  ['fine-window', ['newest 90 min', 'it is one of the newest points, of which every one stays']],
  ['last-of-hour', ['hourly', 'it stands for its hour']],
  ['may-heal', ['may heal', 'it is damaged, would stay if it were not, and may be healed']],
])

function keptFor({ pinned, overlays, keptBecause }: PointView): string {
  const first = keptWords.get(keptBecause)?.[0] ?? keptBecause
  const all = [first, ...(pinned ? ['pin'] : []), ...(overlays.length > 0 ? ['running VM'] : [])]
  return [...new Set(all)].join(', ')
}

function reasonsOf({ keptBecause, pinned, overlays, suspect, damaged, attested }: PointView): string[] {
  const kept = keptWords.get(keptBecause)?.[1] ?? keptBecause
  const extra = [
    ...(pinned && keptBecause !== 'pinned' ? ['it is also pinned'] : []),
    ...(overlays.length > 0 && keptBecause !== 'in-use' ? ['a VM runs on it as well'] : []),
    ...(suspect === null ? [] : [`suspect: ${suspect} (a hint, not a verdict)`]),
    ...(damaged ? ['damaged: it is not used until it is healed (hotsite vm verify)'] : []),
    ...(attested ? [] : ['not attested: the target has not re-derived its hashes']),
  ]
  return [`kept: ${kept}`, ...extra]
}
