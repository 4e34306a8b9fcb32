import type { Command } from 'commander'
import { type Context, clientFor, show } from '../context.ts'
import { statusLines } from '../status-screen.ts'
import { widthOf } from '../terminal.ts'
import { withExample } from './example.ts'

export function addStatusCommand(program: Command, context: Context): void {
  withExample(
    program
      .command('status')
      .description('am I safe? data age of every VM, and what needs a person')
      .action(async (_options: unknown, command: Command) => {
        const status = await clientFor(context, command).call('status')
        const { paint, terminal } = context
        show(context, command, status, (shown) => statusLines(shown, { width: widthOf(terminal), paint }))
      }),
    'hotsite status',
  )
}
