import type { Command } from 'commander'

/** Every command shows how it is used; docs/cli.md and a test hold it to that. */
export function withExample(command: Command, ...examples: readonly string[]): Command {
  const title = examples.length > 1 ? 'Examples:' : 'Example:'
  return command.addHelpText('after', `\n${title}\n${examples.map((example) => `  $ ${example}`).join('\n')}`)
}
