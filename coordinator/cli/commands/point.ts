import type { Command } from 'commander'
import type { PointView } from '#coordinator/admin/views.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { clockText, durationText, sizeText } from '../text/units.ts'
import { withExample } from './example.ts'

export function addPointCommands(program: Command, context: Context): void {
  const group = program.command('point').description('recovery points')

  withExample(
    group
      .command('list <vm>')
      .description('the recovery points of a VM, newest first')
      .action(async (vm: string, _options: unknown, command: Command) => {
        const points = await clientFor(context, command).call('listPoints', { params: { vm } })
        show(context, command, points, (all) => listLines(context, vm, all))
      }),
    'hotsite point list shop',
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
    { title: 'ATTESTED' },
    { title: 'CHANGED', align: 'right' as const },
    { title: 'KEPT FOR', shrinks: true },
  ]
  const newestFirst = [...points].sort((a, b) => b.epoch - a.epoch || b.seq - a.seq)
  return table(
    context,
    columns,
    newestFirst.map((point) => [
      point.name,
      clockText(point.capturedAtMs),
      durationText(point.ageMs),
      point.consistency === 'application' ? 'app' : 'crash',
      point.attested ? { text: 'yes', style: 'good' } : { text: 'no', style: 'bad' },
      sizeText(point.changedBytes),
      keptFor(point),
    ]),
  )
}

function keptFor({ pinned, overlays }: PointView): string {
  const reasons = [...(pinned ? ['pin'] : []), ...(overlays.length > 0 ? ['running VM'] : [])]
  return reasons.join(', ') || 'retention'
}
