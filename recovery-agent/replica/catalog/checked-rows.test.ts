import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { OverlayId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { openSqlite } from '#shared/sqlite.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'
import { Catalog } from './catalog.ts'
import { replicaMigrations } from './schema.ts'

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(3), { 'disk-0': 12 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
  for (let point = 0; point < 2; point++) {
    vm.scribble(3)
    fixture.deliver(vm.capture())
  }
})

afterEach(() => fixture[Symbol.dispose]())

/** What a bad sector does, seen through SQLite. */
function turn(sql: string): void {
  const db = new Database(join(fixture.dir, 'replica.db'))
  db.exec(sql)
  db.close()
}

function openCatalog(): Catalog {
  const path = join(fixture.dir, 'replica.db')
  return new Catalog(openSqlite({ path, migrations: replicaMigrations, profile: 'control' }))
}

describe('rows that were read before', () => {
  it('what a transaction did that was taken back is not remembered', () => {
    const catalog = openCatalog()
    const before = catalog.chain(testVm)
    const cancelled = () =>
      catalog.transaction(() => {
        catalog.setPinned(testVm, 1, true)
        expect(catalog.chain(testVm)[0]?.pinned).toBe(true)
        throw new Error('taken back')
      })
    expect(cancelled).toThrow('taken back')
    expect(catalog.chain(testVm)).toEqual(before)
    catalog.transaction(() => {
      catalog.setPinned(testVm, 1, true)
      catalog.setPinned(testVm, 2, true)
    })
    expect(catalog.chain(testVm).map(({ pinned }) => pinned)).toEqual([true, true])
    catalog.close()
    fixture.reopen()
    expect(fixture.store.points(testVm).map(({ pinned }) => pinned)).toEqual([true, true])
  })

  it('rows that turned behind an open store are found before a point is served, and before they are changed', () => {
    const catalog = openCatalog()
    expect(catalog.chain(testVm)).toHaveLength(2)
    turn('UPDATE point_disks SET size_bytes = size_bytes + 65536 WHERE seq = 2')
    const overlay = { vmId: testVm, overlayId: 'ov' as OverlayId, purpose: 'test', format: 'raw' } as const
    // They came back from the copy beside the layers.
    const { disks } = fixture.store.createOverlay({ ...overlay, point: { epoch: 1, seq: 2 } })
    expect(disks.map(({ sizeBytes }) => sizeBytes)).toEqual([12 * 65_536])
    turn('UPDATE points SET captured_at_ms = 1 WHERE seq = 1')
    expect(() => catalog.setPinned(testVm, 2, true)).toThrow(/are not what was written/)
    catalog.close()
  })

  it('a source is refused once because of damaged rows, and served when it comes again', () => {
    turn("DELETE FROM catalog_sums WHERE kind = 'chain'")
    vm.scribble(2)
    const delta = vm.capture()
    expect(() => fixture.deliver(delta)).toThrow(/are not what was written/)
    fixture.history.delete(delta.header.seq)
    fixture.deliver(delta)
    expect(fixture.store.get(testVm)?.newestSeq).toBe(3)
  })

  it('a fence falls whatever is damaged, and nobody is left out', () => {
    fixture.reopen()
    turn("DELETE FROM catalog_sums WHERE kind = 'chain'")
    fixture.store.raiseEpoch(testVm, 2)
    expect(fixture.store.list().map(({ vmId, epoch }) => [vmId, epoch])).toEqual([[testVm, 2]])
    turn('UPDATE replicas SET epoch = 1')
    expect(fixture.store.list().map(({ epoch }) => epoch)).toEqual([2])
    expect(fixture.store.raiseEpoch(testVm, 3)).toMatchObject({ epoch: 3, newestSeq: 2 })
  })

  it.each([
    ['replica', 'UPDATE replicas SET epoch = epoch + 1'],
    ['overlays', "INSERT INTO catalog_sums VALUES ('vm-1', 'overlays', 5)"],
    ['sum', "DELETE FROM catalog_sums WHERE kind = 'replica'"],
  ])(
    'no change is made beside damaged rows of another kind (%s): the copy knows nothing of it, and takes their place',
    (_kind, damage) => {
      turn(damage)
      expect(() => fixture.store.pin(testVm, { epoch: 1, seq: 1 }, true)).toThrow(/are not what was written/)
      fixture.store.pin(testVm, { epoch: 1, seq: 1 }, true)
      fixture.reopen()
      expect(fixture.store.points(testVm).map(({ seq, pinned }) => [seq, pinned])).toEqual([
        [1, true],
        [2, false],
      ])
    },
  )
})
