import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { hasTool } from '#shared/testing/tools.ts'
import { StoreFixture } from './testing/fixture.ts'
import { lifeOf } from './testing/life.ts'

const child = fileURLToPath(new URL('./testing/life-child.ts', import.meta.url))

function live(dir: string, seed: number, crashAt?: string) {
  return spawnSync(process.execPath, [child, dir, String(seed)], {
    env: { ...process.env, ...(crashAt ? { HOTSITE_CRASH_AT: crashAt } : {}) },
    encoding: 'utf8',
  })
}

describe.skipIf(!hasTool('qemu-img'))('a replica store that is killed', () => {
  it.each(['replica.seal-disk-renamed:5', 'replica.prune-l2-written:2', 'replica.prune-renamed:3'])(
    'goes on in its next life, killed at %s',
    (crashAt) => {
      const seed = 11
      using fixture = new StoreFixture()
      const { history } = lifeOf(seed)
      for (const [seq, delta] of history) fixture.history.set(seq, delta)
      fixture.store[Symbol.dispose]()

      expect(live(fixture.dir, seed, crashAt).signal).toBe('SIGKILL')
      const again = live(fixture.dir, seed)
      expect(again.stderr).toBe('')
      expect(again.status).toBe(0)

      fixture.reopen()
      expect(fixture.verified()).toEqual([8, 10])
    },
  )
})
