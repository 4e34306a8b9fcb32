import { Command } from 'commander'
import { addCloudCommands } from './commands/cloud.ts'
import { addDaemonCommands } from './commands/daemon.ts'
import { addEventCommands } from './commands/event.ts'
import { addFailoverCommands } from './commands/failover.ts'
import { addJobCommands } from './commands/job.ts'
import { addPointCommands } from './commands/point.ts'
import { addRegisterCommand } from './commands/register.ts'
import { addServerCommands } from './commands/server.ts'
import { addStatusCommand } from './commands/status.ts'
import { addVaultCommands } from './commands/vault.ts'
import { addVmCommands } from './commands/vm.ts'
import type { Context } from './context.ts'
import { exitCodeHelp } from './exit-codes.ts'

/** The whole vocabulary. Nothing here loads a daemon, zod or cryptography: --help must feel instant. */
export function buildProgram(context: Context, version: string): Command {
  const { out, err } = context.terminal
  const program = new Command('hotsite')
    .description('Disaster recovery for virtual machines: replicate, test, fail over, come back.')
    .version(version, '-V, --version', 'print the version')
    .option('--json', 'print JSON for programs instead of text for people')
    .option('--socket <path>', 'admin socket of the coordinator (or HOTSITE_SOCKET)')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => out.write(text),
      writeErr: (text) => err.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'Error: ')),
      getOutHelpWidth: () => out.columns || 100,
      getErrHelpWidth: () => err.columns || 100,
    })
    .exitOverride()
    .showSuggestionAfterError()
    .showHelpAfterError('(add --help for the options and an example)')
    .addHelpText('after', footing)

  addStatusCommand(program, context)
  addVaultCommands(program, context)
  addServerCommands(program, context)
  addRegisterCommand(program, context)
  addCloudCommands(program, context)
  addVmCommands(program, context)
  addPointCommands(program, context)
  addFailoverCommands(program, context)
  addJobCommands(program, context)
  addEventCommands(program, context)
  addDaemonCommands(program, context)
  return program
}

const footing = `
Example:
  $ hotsite status

Exit codes:
${exitCodeHelp.map(([code, meaning]) => `  ${String(code).padEnd(4)} ${meaning}`).join('\n')}`
