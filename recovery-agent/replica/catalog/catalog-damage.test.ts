import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { OverlayId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { damageOnce } from '../../testing/damage-rows.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'
import { verifyPoints } from '../testing/truth.ts'

let fixture: StoreFixture
let vm: ModelVm

beforeEach(begin)

function begin(): void {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(3), { 'disk-0': 40 * 65_536 + 512, 'disk-1': 12 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
  for (let point = 0; point < 3; point++) {
    vm.scribble(5)
    fixture.deliver(vm.capture())
  }
}

afterEach(() => fixture[Symbol.dispose]())

const tables = [
  'replicas',
  'points',
  'point_disks',
  'catalog_sums',
  'layers',
  'layer_groups',
  'tree_pages',
  'trees',
]

/** The error of an attempt that may be repeated, if there was one. */
function codeOf(work: () => unknown): string | null {
  try {
    work()
    return null
  } catch (error) {
    if (error instanceof Error && 'code' in error) return String(error.code)
    throw error
  }
}

describe.skipIf(!hasTool('qemu-img'))('a replica.db that rots', () => {
  it('any one damaged row is found and made good from layers and copy; points stay, epochs never fall', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(), fc.nat(), fc.boolean(), (kind, a, b, whileOpen) => {
        fixture[Symbol.dispose]()
        begin()
        const db = new Database(join(fixture.dir, 'replica.db'))
        db.pragma('foreign_keys = OFF')
        db.pragma('ignore_check_constraints = ON')
        let what = ''
        try {
          what = damageOnce(db, tables, [kind, a, b])
        } catch {
          // A row SQLite itself would not take.
          return
        } finally {
          db.close()
        }
        if (!whileOpen) fixture.reopen()
        const known = ['catalog-damaged', 'tree-damaged', 'replica-unknown', 'base-unknown', 'delta-diverged']
        // The first one may find it; whoever repeats it is served.
        for (let attempt = 0; attempt < 4; attempt++) {
          const code = codeOf(() => {
            fixture.store.verify({ vmId: testVm, percent: 100, seed: 1 })
            for (const { diskId } of vm.disks)
              fixture.store.treeNodes({ vmId: testVm, diskId, level: 0, first: 0, count: 12 })
          })
          if (code === null) break
          expect(known, what).toContain(code)
        }
        expect(fixture.store.get(testVm), what).toMatchObject({ epoch: 1 })
        const seqs = [...fixture.history.keys()]
        expect(verifyPoints(fixture.store, fixture.history, fixture.scratch), what).toEqual(seqs)
        for (const { epoch, seq, damaged } of fixture.store.points(testVm)) {
          expect(damaged, what).toBe(false)
          const overlayId = `ov-${seq}` as OverlayId
          fixture.store.createOverlay({
            vmId: testVm,
            overlayId,
            point: { epoch, seq },
            purpose: 'test',
            format: 'qcow2',
          })
          fixture.store.removeOverlay(testVm, overlayId)
        }
        vm.scribble(1)
        const delta = vm.capture()
        for (let attempt = 0; attempt < 3 && !fixture.history.has(delta.header.seq); attempt++) {
          const code = codeOf(() => fixture.deliver(delta))
          if (code !== null) fixture.history.delete(delta.header.seq)
          expect([null, ...known], what).toContain(code)
        }
        expect(fixture.store.get(testVm)?.newestSeq, what).toBe(delta.header.seq)
      }),
      { numRuns: 25 },
    )
  }, 300_000)

  it('a file that is no database, cut off, empty or gone is set aside, and everything comes back from the copies', () => {
    const path = join(fixture.dir, 'replica.db')
    const damages = [
      () => truncateSync(path, 0),
      () => truncateSync(path, 10_000),
      () => writeFileSync(path, Buffer.concat([Buffer.alloc(64, 7), readFileSync(path).subarray(64)])),
    ]
    for (const damage of damages) {
      fixture.store[Symbol.dispose]()
      damage()
      fixture.reopenClosed()
      expect(fixture.store.get(testVm)).toMatchObject({ epoch: 1, newestSeq: 3 })
      expect(fixture.store.verify({ vmId: testVm, percent: 100, seed: 1 }).damagedPoints).toEqual([])
      expect(fixture.verified()).toEqual([1, 2, 3])
    }
    expect(readdirSync(fixture.dir).some((name) => name.startsWith('replica.db.damaged-'))).toBe(true)
    expect(existsSync(`${path}.is-damaged`)).toBe(false)
  })
})
