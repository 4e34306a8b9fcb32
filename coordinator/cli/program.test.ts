import { readFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import type { Command } from 'commander'
import { expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { createContext } from './context.ts'
import { exitCodeHelp } from './exit-codes.ts'
import { buildProgram } from './program.ts'

const idle = async () => {}
const streams = { in: new PassThrough(), out: new PassThrough(), err: new PassThrough(), env: {} }
const context = createContext({
  terminal: streams,
  clock: systemClock,
  daemons: { coordinator: idle, provider: idle, agent: idle },
})
const program = buildProgram(context, '1.2.3')
const documentation = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')

function* leaves(command: Command, path: string): Generator<[string, Command]> {
  if (command.commands.length === 0) yield [path, command]
  for (const child of command.commands) yield* leaves(child, `${path} ${child.name()}`)
}
const commands = [...leaves(program, 'hotsite')]

function helpOf(command: Command): string {
  let text = ''
  command.configureOutput({
    writeOut: (part) => {
      text += part
    },
  })
  command.outputHelp()
  return text
}

it('has the vocabulary of the product', () => {
  const vocabulary = `vault create|list|show|set-certificate|credentials|regenerate-key · server list|show|remove · register
    · cloud list|pair|unpair · vm list|show|protect|unprotect|set-policy|pause|resume|resync|verify|export-seed|import-seed
    · point list|pin|unpin
    · failover test|cleanup-test|planned|unplanned|change-point|commit|reverse · job list|show|picture|watch|cancel · event list
    · status · coordinator · provider · agent`
  const expected = vocabulary.split('·').flatMap((group) => {
    const [name = '', actions] = group.trim().split(/\s+/)
    return actions ? actions.split('|').map((action) => `hotsite ${name} ${action}`) : [`hotsite ${name}`]
  })
  expect(commands.map(([path]) => path).sort()).toEqual(expected.sort())
})

it.each(commands)(
  '%s --help: says what it does, with an example that begins with the command itself',
  (path, command) => {
    const help = helpOf(command)
    expect(command.description()).not.toBe('')
    for (const option of command.options) expect([path, option.flags, option.description]).not.toContain('')
    const examples = [...help.matchAll(/^ {2}\$ (.*)$/gm)].map(([, example = '']) => example)
    expect(examples.length).toBeGreaterThan(0)
    for (const example of examples) expect(example.startsWith(path)).toBe(true)
    for (const global of ['--json', '--socket']) expect(help).toContain(global)
  },
)

it.each(commands)('docs/cli.md has %s, with every option of its own and its examples', (path, command) => {
  const start = documentation.indexOf(`### \`${path}`)
  expect(start, `a heading "### \`${path} …\`" in docs/cli.md`).toBeGreaterThan(-1)
  const end = documentation.indexOf('\n### ', start + 1)
  const section = documentation.slice(start, end === -1 ? undefined : end)
  for (const option of command.options) expect(section).toContain(option.long)
  for (const [, example = ''] of helpOf(command).matchAll(/^ {2}\$ (.*)$/gm))
    expect(section).toContain(example)
})

it('the exit codes are in the help and in docs/cli.md', () => {
  const help = helpOf(program)
  for (const [code, meaning] of exitCodeHelp) {
    expect(help).toMatch(new RegExp(`^  ${code} +${meaning}$`, 'm'))
    expect(documentation).toContain(`| ${code} | ${meaning} |`)
  }
})
