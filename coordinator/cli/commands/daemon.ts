import type { Command } from 'commander'
import type { Context, DaemonName } from '../context.ts'
import { withExample } from './example.ts'

const daemons: readonly (readonly [DaemonName, string])[] = [
  ['coordinator', 'run the coordinator: metadata and orchestration'],
  ['provider', 'run the provider agent beside a VMM server'],
  ['agent', 'run the recovery agent on a host'],
]

export function addDaemonCommands(program: Command, context: Context): void {
  for (const [name, description] of daemons) {
    withExample(
      program
        .command(name)
        .description(description)
        .requiredOption('-c, --config <file>', 'its configuration, YAML')
        .action((options: { config: string }) => runDaemon(context, name, options.config)),
      `hotsite ${name} --config ${name}.yaml`,
    )
  }
}

/** The first signal asks for a clean stop; a second one finds the system's own handling, which ends the process. */
async function runDaemon(context: Context, name: DaemonName, configPath: string): Promise<void> {
  const stopping = new AbortController()
  const signals = ['SIGTERM', 'SIGINT'] as const
  const onSignal = (signal: NodeJS.Signals) => {
    forget()
    stopping.abort(new Error(`stopped by ${signal}`))
  }
  const forget = () => {
    for (const signal of signals) process.off(signal, onSignal)
  }
  for (const signal of signals) process.on(signal, onSignal)
  try {
    await context.daemons[name](configPath, stopping.signal)
  } catch (error) {
    if (!stopping.signal.aborted || error !== stopping.signal.reason) throw error
  } finally {
    forget()
  }
}
