import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DiskId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'

const disk = 'disk-0' as DiskId
const added = 'disk-1' as DiskId

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(8), { [disk]: 300 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 5, retentionIntervalSeconds: 0 })
  for (let point = 0; point < 2; point++) {
    vm.scribble(9)
    fixture.deliver(vm.capture())
  }
})

afterEach(() => fixture[Symbol.dispose]())

function inDatabase(...statements: readonly string[]): void {
  const db = new Database(join(fixture.dir, 'replica.db'))
  for (const statement of statements) db.exec(statement)
  db.close()
  fixture.reopen()
}

const leaves = () => fixture.store.treeNodes({ vmId: testVm, diskId: disk, level: 0, first: 0, count: 256 })
const treeDamaged = expect.objectContaining({ code: 'tree-damaged' })

describe('a damaged hash tree at the target', () => {
  it('is made anew from the leaves of the layers before the next attempt', () => {
    const before = leaves()
    inDatabase('UPDATE tree_pages SET hashes = zeroblob(32) WHERE level = 0 AND page_index = 0')
    expect(leaves).toThrow(treeDamaged)
    expect(leaves()).toEqual(before)
  })

  it('whose layers have lost their leaves too is made anew once their tables were looked at', () => {
    const before = leaves()
    inDatabase(
      'UPDATE tree_pages SET hashes = zeroblob(32) WHERE level = 0 AND page_index = 0',
      'DELETE FROM layers WHERE seq = 1',
    )
    expect(leaves).toThrow(treeDamaged)
    expect(leaves).toThrow(treeDamaged)
    fixture.store.verify({ vmId: testVm, percent: 0, seed: 1 })
    expect(leaves).toThrow(treeDamaged)
    expect(leaves()).toEqual(before)
  })

  it('of a disk that no point has is dropped, and the disk can come', () => {
    inDatabase(
      `INSERT INTO tree_pages (tree, level, page_index, hashes) VALUES ('${testVm}/${added}', 0, 3, zeroblob(32))`,
    )
    vm.addDisk(added, 20 * 65_536)
    vm.scribble(5)
    const delta = vm.capture()
    expect(() => fixture.deliver(delta)).toThrow(treeDamaged)
    fixture.deliver(delta)
    expect(fixture.store.get(testVm)?.newestSeq).toBe(3)
  })
})
