import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { seededRng } from '#shared/rng.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'

/** Where a qcow2 header says where the refcount table is. */
const REFCOUNT_TABLE_OFFSET = 48

/** Where a qcow2 header says where the L1 table is. */
const L1_TABLE_OFFSET = 40

/** Two points of which the first is due to go: its file is what the merge writes to. */
function dueMerge(): { fixture: StoreFixture; lowest: string; pruneAll: () => void } {
  const fixture = new StoreFixture()
  const vm = new ModelVm(seededRng(5), { 'disk-0': 40 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
  for (const kind of ['sync', 'delta'] as const) {
    vm.scribble(10)
    fixture.deliver(vm.capture({ kind }))
  }
  const pruneAll = () => {
    while (fixture.store.prune(testVm, 0));
  }
  return {
    fixture,
    lowest: join(fixture.dir, 'replicas', testVm, 'disk-0', '1-000000000001.qcow2'),
    pruneAll,
  }
}

/** Follows two pointers from the header, and changes the second. */
function bend(path: string, headerOffset: number, change: (pointer: Buffer) => void): void {
  const fd = openSync(path, 'r+')
  const pointer = Buffer.alloc(8)
  readSync(fd, pointer, 0, 8, headerOffset)
  const table = Number(pointer.readBigUInt64BE() & 0x00ff_ffff_ffff_fe00n)
  readSync(fd, pointer, 0, 8, table)
  change(pointer)
  writeSync(fd, pointer, 0, 8, table)
  closeSync(fd)
}

/** The first entry that names a cluster, in the first L2 table. */
function bendEntry(path: string, change: (entry: bigint) => bigint): void {
  const fd = openSync(path, 'r+')
  const word = Buffer.alloc(8)
  const read = (at: number) => {
    readSync(fd, word, 0, 8, at)
    return word.readBigUInt64BE()
  }
  const placeIn = (entry: bigint) => Number(entry & 0x00ff_ffff_ffff_fe00n)
  const l2Table = placeIn(read(Number(read(L1_TABLE_OFFSET))))
  for (let at = l2Table; ; at += 8) {
    const entry = read(at)
    if (placeIn(entry) === 0) continue
    word.writeBigUInt64BE(change(entry))
    writeSync(fd, word, 0, 8, at)
    break
  }
  closeSync(fd)
}

it('a refcount table that leads out of the file a merge would write to is healed before, and then it is merged', () => {
  const { fixture, lowest, pruneAll } = dueMerge()
  using _ = fixture
  // 16 TiB further.
  bend(lowest, REFCOUNT_TABLE_OFFSET, (pointer) => pointer.writeUInt8(pointer.readUInt8(2) ^ 0x10, 2))
  expect(pruneAll).toThrow('its tables lie outside of the file')
  expect(fixture.store.heal(testVm)).toBe(1)
  pruneAll()
  expect(fixture.verified()).toEqual([2])
})

it.each([
  [
    'does not point to a cluster',
    (entry: bigint) => entry ^ 0x100n,
    'its table 0 is not one that was written',
  ],
  ['leads out of the file', (entry: bigint) => entry ^ (1n << 44n), 'where it cannot be'],
  ['says another cluster of the file', (entry: bigint) => entry + 0x1_0000n, 'where it cannot be'],
  ['says nothing', () => 0n, 'say something else of block'],
])(
  'an entry of the file a merge would write to that %s is healed before, and then it is merged',
  (_case, change, message) => {
    const { fixture, lowest, pruneAll } = dueMerge()
    using _ = fixture
    bendEntry(lowest, change)
    expect(pruneAll).toThrow(message)
    expect(fixture.store.heal(testVm)).toBe(1)
    pruneAll()
    expect(fixture.verified()).toEqual([2])
  },
)
