import type { Command } from 'commander'
import type { EventView } from '#coordinator/admin/views.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { widthOf } from '../terminal.ts'
import type { Style } from '../text/style.ts'
import type { Cell } from '../text/table.ts'
import { clockText } from '../text/units.ts'
import { wrapped } from '../text/wrap.ts'
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
    events.flatMap((event) => eventRows(event, widthOf(context.terminal) - widthBeside(events))),
  )
}

/** What happened is never cut: a long message goes on below itself. */
function eventRows(event: EventView, messageWidth: number): readonly (readonly Cell[])[] {
  const [first = '', ...more] = wrapped(event.message, Math.max(messageWidth, narrowestMessage))
  return [
    [
      clockText(event.atMs),
      { text: event.severity, style: severityStyle[event.severity] },
      event.vm ?? '–',
      event.code,
      first,
    ],
    ...more.map((line) => ['', '', '', '', line]),
  ]
}

const narrowestMessage = 16

/** Of the other columns with their gaps. */
function widthBeside(events: readonly EventView[]): number {
  const longest = (texts: readonly string[]) => Math.max(...texts.map((text) => text.length))
  const vm = longest(events.map((event) => event.vm ?? '–'))
  const code = longest(events.map((event) => event.code))
  return 'YYYY-MM-DD hh:mm:ss  critical  '.length + vm + 2 + code + 2
}
