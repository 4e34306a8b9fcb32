/** The source is killed at every named instant, and at random ones; then it goes on and nothing is lost (I2). */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { intBelow, seededRng } from '#shared/rng.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { captureCrashPoints } from './crash-points.ts'

const child = fileURLToPath(new URL('./test-kit/crash-child.ts', import.meta.url))
let dir = ''

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-crash-'))
  writeFileSync(join(dir, 'key'), generateKeys().secretKey)
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [child, dir, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

async function exitOf(
  running: ChildProcess,
): Promise<{ code: number | null; signal: string | null; out: string }> {
  let out = ''
  running.stdout?.on('data', (chunk: Buffer) => {
    out += chunk
  })
  const [code, signal] = await once(running, 'close')
  return { code, signal, out }
}

function integrity(): unknown {
  const db = new Database(join(dir, 'data', 'buffer.db'))
  try {
    return db.pragma('integrity_check', { simple: true })
  } finally {
    db.close()
  }
}

async function expectGoesOn(): Promise<{ seq: number; synchronizations: number }> {
  const { code, out } = await exitOf(start(['1']))
  expect(code).toBe(0)
  return JSON.parse(out.trim().split('\n').at(-1) ?? '')
}

it('killed at every crash point, one after the other, on the same buffer', async () => {
  for (const point of captureCrashPoints) {
    const { signal, out } = await exitOf(
      start(['3', point.startsWith('sync.') ? 'sync' : ''], { HOTSITE_CRASH_AT: point }),
    )
    expect([point, signal], out).toEqual([point, 'SIGKILL'])
    expect([point, integrity()]).toEqual([point, 'ok'])
  }
  await expectGoesOn()
}, 120_000)

it('killed after a seal, it goes on with deltas and without a synchronization', async () => {
  expect((await exitOf(start(['2']))).code).toBe(0)
  const { signal } = await exitOf(start(['2'], { HOTSITE_CRASH_AT: 'capture.after-seal' }))
  expect(signal).toBe('SIGKILL')
  expect(await expectGoesOn()).toMatchObject({ synchronizations: 0 })
})

it('killed at random instants', async () => {
  const seed = Number(process.env['HOTSITE_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  const rng = seededRng(seed)
  for (let round = 0; round < 5; round++) {
    const running = start(['-1', round % 2 === 0 ? 'sync' : ''])
    await once(running.stdout ?? running, 'data')
    // An instant, not a wait for something: any will do.
    await sleep(intBelow(rng, 300))
    running.kill('SIGKILL')
    expect((await exitOf(running)).signal, `HOTSITE_SEED=${seed}`).toBe('SIGKILL')
    expect(integrity(), `HOTSITE_SEED=${seed}`).toBe('ok')
  }
  await expectGoesOn()
}, 120_000)
