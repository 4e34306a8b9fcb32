import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { seededRng } from '#shared/rng.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'

/** Where a qcow2 header says where the refcount table is. */
const REFCOUNT_TABLE_OFFSET = 48

it('a refcount table that leads out of the file a merge would write to is healed before, and then it is merged', () => {
  using fixture = new StoreFixture()
  const vm = new ModelVm(seededRng(5), { 'disk-0': 40 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
  for (const kind of ['sync', 'delta'] as const) {
    vm.scribble(10)
    fixture.deliver(vm.capture({ kind }))
  }
  const fd = openSync(join(fixture.dir, 'replicas', testVm, 'disk-0', '1-000000000001.qcow2'), 'r+')
  const place = Buffer.alloc(8)
  readSync(fd, place, 0, 8, REFCOUNT_TABLE_OFFSET)
  const table = Number(place.readBigUInt64BE())
  readSync(fd, place, 0, 8, table)
  // 16 TiB further.
  place.writeUInt8(place.readUInt8(2) ^ 0x10, 2)
  writeSync(fd, place, 0, 8, table)
  closeSync(fd)
  const pruneAll = () => {
    while (fixture.store.prune(testVm, 0));
  }
  expect(pruneAll).toThrow('its tables lie outside of the file')
  expect(fixture.store.heal(testVm)).toBe(1)
  pruneAll()
  expect(fixture.verified()).toEqual([2])
})
