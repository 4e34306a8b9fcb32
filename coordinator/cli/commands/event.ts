import type { Command } from 'commander'
import type { EventView } from '#coordinator/admin/views.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import type { Style } from '../text/style.ts'
import { clockText } from '../text/units.ts'
import { withExample } from './example.ts'
import { addLimitOption } from './job.ts'

const severityStyle: Readonly<Record<EventView['severity'], Style>> = {
  info: 'plain',
  warning: 'warn',
  critical: 'bad',
}

export function addEventCommands(program: Command, context: Context): void {
  const group = program.command('event').description('what happened by itself')

  withExample(
    addLimitOption(group.command('list'))
      .description('events, newest first')
      .action(async (options: { limit: number }, command: Command) => {
        const events = await clientFor(context, command).call('listEvents', {
          query: { limit: options.limit },
        })
        show(context, command, events, (all) => listLines(context, all))
      }),
    'hotsite event list --limit 20',
  )
}

function listLines(context: Context, events: readonly EventView[]): string[] {
  if (events.length === 0) return ['Nothing has happened yet.']
  const columns = [
    { title: 'TIME (UTC)' },
    { title: 'SEVERITY' },
    { title: 'VM', shrinks: true },
    { title: 'CODE', shrinks: true },
    { title: 'MESSAGE', shrinks: true },
  ]
  return table(
    context,
    columns,
    events.map((event) => [
      clockText(event.atMs),
      { text: event.severity, style: severityStyle[event.severity] },
      event.vm ?? '–',
      event.code,
      event.message,
    ]),
  )
}
