import type { Command } from 'commander'
import type { ServerView } from '#coordinator/admin/views.ts'
import { addYesOption, confirmed } from '../confirm.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { factLines } from '../text/table.ts'
import { durationText, sizeText, timeText } from '../text/units.ts'
import { withExample } from './example.ts'

export function addServerCommands(program: Command, context: Context): void {
  const group = program.command('server').description('registered servers: providers and recovery agents')

  withExample(
    group
      .command('list')
      .description('all servers and whether they are connected')
      .action(async (_options: unknown, command: Command) => {
        const servers = await clientFor(context, command).call('listServers')
        show(context, command, servers, (all) => listLines(context, all))
      }),
    'hotsite server list',
  )

  withExample(
    group
      .command('show <server>')
      .description('one server')
      .action(async (server: string, _options: unknown, command: Command) => {
        const view = await clientFor(context, command).call('showServer', { params: { server } })
        show(context, command, view, (shown) => factsOf(context, shown))
      }),
    'hotsite server show host-a',
  )

  withExample(
    addYesOption(group.command('remove <server>'))
      .description('revoke the membership of a server and drop its connections')
      .action(async (server: string, options: { yes?: boolean }, command: Command) => {
        const consequence = `${server} can no longer connect, and what it replicates stops.`
        if (!(await confirmed(context, consequence, options.yes))) return
        await clientFor(context, command).call('removeServer', { params: { server } })
        show(context, command, { removed: server }, () => [`${server} is removed.`])
      }),
    'hotsite server remove host-a --yes',
  )
}

function listLines(context: Context, servers: readonly ServerView[]): string[] {
  if (servers.length === 0)
    return ['No server is registered. Make a registration file with: hotsite vault credentials VAULT']
  const columns = [
    { title: 'NAME', shrinks: true },
    { title: 'KIND' },
    { title: 'HOST', shrinks: true },
    { title: 'CONNECTED' },
    { title: 'LAST SEEN', align: 'right' as const },
    { title: 'CLOCK SKEW', align: 'right' as const },
    { title: 'VERSION' },
  ]
  const nowMs = context.clock.now()
  return table(
    context,
    columns,
    servers.map((server) => [
      server.name,
      server.kind,
      server.host ?? '–',
      server.connected ? { text: 'yes', style: 'good' } : { text: 'no', style: 'bad' },
      server.lastSeenAtMs === null ? 'never' : `${durationText(nowMs - server.lastSeenAtMs)} ago`,
      skewText(server),
      server.version ?? '–',
    ]),
  )
}

function skewText({ clockSkewMs }: ServerView): string {
  if (clockSkewMs === null) return '–'
  const text = durationText(Math.abs(clockSkewMs))
  return clockSkewMs < 0 && text !== durationText(0) ? `-${text}` : text
}

function factsOf(context: Context, server: ServerView): string[] {
  return factLines(
    [
      ['name', server.name],
      ['id', server.serverId],
      ['kind', server.kind],
      ['host', server.host ?? '–'],
      ['version', server.version ?? '–'],
      ['connected', server.connected ? 'yes' : 'no'],
      ['registered', timeText(server.registeredAtMs)],
      ['last seen', server.lastSeenAtMs === null ? 'never' : timeText(server.lastSeenAtMs)],
      ['clock skew', skewText(server)],
      ['received', sizeText(server.bytesReceived)],
      ['sent', sizeText(server.bytesSent)],
    ],
    context.paint,
  )
}
