import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { loadCoordinatorConfig } from '#coordinator/config.ts'
import { loadProviderConfig } from '#provider-agent/config.ts'
import { loadAgentConfig } from '#recovery-agent/config.ts'
import { hasTool } from '#shared/testing/tools.ts'

const script = fileURLToPath(new URL('install-service', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const into = mkdtempSync(join(tmpdir(), 'hotsite-install-'))
afterAll(() => rmSync(into, { recursive: true, force: true }))

const install = (...args: string[]) =>
  execFileSync(script, [...args, '--into', into], { encoding: 'utf8', env: { PATH: process.env['PATH'] } })
const unitOf = (kind: string) => join(into, 'etc/systemd/system', `hotsite-${kind}.service`)
const configOf = (kind: string) => join(into, 'etc/hotsite', `${kind}.yaml`)

const kinds = [
  ['coordinator', loadCoordinatorConfig],
  ['provider', loadProviderConfig],
  ['agent', loadAgentConfig],
] as const

describe.each(kinds)('%s', (kind, load) => {
  it('the unit starts this checkout, as the user that was named, on the configuration beside it', () => {
    install(kind, '--user', 'dr')
    const unit = readFileSync(unitOf(kind), 'utf8')
    expect(unit).toContain(`ExecStart=${root}/scripts/hotsite ${kind} --config /etc/hotsite/${kind}.yaml\n`)
    expect(unit).toContain('User=dr\n')
    expect(unit).not.toMatch(/@(ROOT|USER)@/)
  })

  it('the configuration that comes with it is valid, and its data folder is the one of the unit', () => {
    install(kind)
    const { dataDir } = load(configOf(kind))
    expect(readFileSync(unitOf(kind), 'utf8')).toContain(
      `StateDirectory=${dataDir.replace(/^\/var\/lib\//, '')}\n`,
    )
  })

  it('a configuration that is there stays', () => {
    writeFileSync(configOf(kind), 'mine\n')
    expect(install(kind)).toContain('kept')
    expect(readFileSync(configOf(kind), 'utf8')).toBe('mine\n')
  })

  it.skipIf(!hasTool('systemd-analyze'))('systemd finds no fault in the unit', () => {
    install(kind, '--user', 'root')
    const run = spawnSync('systemd-analyze', ['verify', '--man=no', unitOf(kind)], { encoding: 'utf8' })
    expect(run.stderr.split('\n').filter((line) => line.includes('hotsite'))).toEqual([])
  })
})

it.each([[[]], [['nothing']], [['agent', 'provider']], [['agent', '--user', 'a b']]])(
  '%j is refused and writes nothing',
  (args: string[]) => {
    const run = spawnSync(script, [...args, '--into', join(into, 'none')], { encoding: 'utf8' })
    expect([run.status, run.stderr === '']).toEqual([2, false])
    expect(hasFile(join(into, 'none'))).toBe(false)
  },
)

function hasFile(path: string): boolean {
  return spawnSync('test', ['-e', path]).status === 0
}
