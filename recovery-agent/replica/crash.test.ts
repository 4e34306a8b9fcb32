import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import { silentLog } from '#shared/log.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { replicaCrashPoints } from './crash-points.ts'
import { openReplicaStore } from './store.ts'
import { lifeOf } from './testing/life.ts'
import { type LosingFiles, losingFiles } from './testing/losing-files.ts'
import { testVm } from './testing/model-vm.ts'
import { testFolder } from './testing/test-folder.ts'
import { comparePoints, verifyPoints } from './testing/truth.ts'

class Crash extends Error {}

/** Throws at the n-th passage of a name; counts them all. */
function crashAt(name: string, nth: number): CrashPoint {
  let left = nth
  return (passed) => {
    if (passed === name && --left === 0) throw new Crash(name)
  }
}

let dir: ReturnType<typeof testFolder>
let scratch: ReturnType<typeof testFolder>

beforeEach(() => {
  dir = testFolder('replica')
  scratch = testFolder('truth')
})

afterEach(() => {
  dir[Symbol.dispose]()
  scratch[Symbol.dispose]()
})

function openWith(crashPoint: CrashPoint, files: LosingFiles) {
  const options = { dir: dir.path, clock: systemClock, log: silentLog, crashPoint, files }
  return openReplicaStore({ ...options, leavesInMemoryBytes: 100 })
}

/** How often a whole life passes each point. */
function passages(seed: number): Map<string, number> {
  const counts = new Map<string, number>()
  using folder = testFolder('count')
  const count: CrashPoint = (name) => counts.set(name, (counts.get(name) ?? 0) + 1)
  const store = openReplicaStore({ dir: folder.path, clock: systemClock, log: silentLog, crashPoint: count })
  for (const step of lifeOf(seed).steps) step(store)
  store[Symbol.dispose]()
  return counts
}

const seed = Number(process.env['HOTSITE_TEST_SEED'] ?? 7)
const counts = passages(seed)
const cases = [...counts].map(([name, count], i) => ({
  name,
  nth: 1 + ((seededRng(seed + i).next() * count) | 0),
}))

it('a life passes every named point but those of retire.test.ts and heal.test.ts', () => {
  const elsewhere = /adopt|commit-recorded|remove-marked|remove-files-removed|names-aside|rebuild|repair/
  const expected = replicaCrashPoints.filter((name) => !elsewhere.test(name))
  expect([...counts.keys()].sort()).toEqual([...expected].sort())
})

describe.skipIf(!hasTool('qemu-img'))(
  `a replica store that dies at a named point and loses what was not synced, seed ${seed}`,
  () => {
    it.each(cases)('$name, passage $nth', ({ name, nth }) => {
      const files = losingFiles()
      const { steps, history } = lifeOf(seed)
      let store = openWith(crashAt(name, nth), files)
      let crashes = 0
      let acked = 0
      store.recover()
      for (let i = 0; i < steps.length; i++) {
        try {
          steps[i]?.(store)
          acked = Math.max(acked, store.get(testVm)?.newestSeq ?? 0)
        } catch (error) {
          if (!(error instanceof Crash)) throw error
          crashes++
          store[Symbol.dispose]()
          files.losePower(seededRng(nth))
          store = openWith(noCrash, files)
          store.recover()
          expect(store.get(testVm)?.newestSeq ?? 0).toBeGreaterThanOrEqual(acked)
          comparePoints(store, history, scratch.path)
          i--
        }
      }
      expect(crashes).toBe(1)
      expect(verifyPoints(store, history, scratch.path)).toEqual([8, 10])
      store[Symbol.dispose]()
    })
  },
)
