/** The demo guest under the folder hypervisor: every snapshot is a state the VM was in, and it goes on from it. */
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openFolderHypervisor } from '#recovery-agent/hypervisor/folder/folder-hypervisor.ts'
import type { Snapshot } from '#recovery-agent/hypervisor/port.ts'
import type { FolderVm } from '#shared/folder/layout.ts'
import { signalVm, startProgram, waitUntilOff } from '#shared/folder/process.ts'
import { makeTestFabric, type TestFabric, until } from '#shared/folder/testing/test-fabric.ts'
import { readRun } from '#shared/folder/vm-file.ts'
import { silentLog } from '#shared/log.ts'
import { makeDisks } from './make-disks.ts'
import {
  type Counters,
  countersOf,
  encodeRecord,
  ordersOf,
  RECORD_BYTES,
  RING_BYTES,
  readCounters,
  recordOffset,
} from './records.ts'

const MIB = 1024 * 1024
const writer = join(import.meta.dirname, 'order-writer.ts')

const snapshotCounters = (snapshot: Snapshot): Counters => {
  const [first, second] = snapshot.disks.map((disk) => {
    const ring = Buffer.alloc(RING_BYTES)
    disk.read(ring, 0)
    return ordersOf(ring)
  })
  if (!first || !second) throw new Error('two disks expected')
  return countersOf(first, second)
}

describe('order writer', () => {
  let fabric: TestFabric
  let vm: FolderVm
  beforeEach(() => {
    fabric = makeTestFabric()
    vm = fabric.addVm({
      name: 'shop',
      diskBytes: [8 * MIB, 8 * MIB],
      command: [process.execPath, writer, '--interval-ms', '0', '--working-set-mib', '4'],
    })
  })
  afterEach(() => fabric[Symbol.asyncDispose]())

  const paths = (of: FolderVm) => of.file.disks.map((disk) => join(of.dir, disk.file))
  const guestLog = (of: FolderVm) => readFileSync(join(of.dir, 'guest.log'), 'utf8')
  const hypervisor = () =>
    openFolderHypervisor({
      root: fabric.root,
      host: 'host1',
      dataDir: join(fabric.root, 'data'),
      clock: fabric.clock,
      log: silentLog,
      freezeLimitMs: 20_000,
    })
  const off = (of: FolderVm) =>
    waitUntilOff({ vm: of, table: fabric.table, clock: fabric.clock, timeoutMs: 10_000 })

  test('50 snapshots under load: n1 ≤ n0 ≤ n1 + 1 in each, nothing torn, and the writer gets on', async () => {
    await fabric.start(vm)
    await until('first order', () => readCounters(paths(vm)).n1 > 0)
    const host = hypervisor()
    let newest = 0
    for (let round = 0; round < 50; round++) {
      const snapshot = await host.openSnapshot({
        fabricVmId: vm.file.id,
        hold: round % 5 === 0 ? 'long' : 'brief',
      })
      const counters = snapshotCounters(snapshot)
      expect(snapshot.close()).toEqual({ intact: true })
      expect(counters).toMatchObject({ torn: false, consistent: true })
      expect(counters.n0).toBeGreaterThanOrEqual(newest)
      newest = counters.n0
    }
    expect(newest).toBeGreaterThan(50)
  })

  test('asked to shut down it finishes the order in hand, and goes on from it', async () => {
    await fabric.start(vm)
    await until('some orders', () => readCounters(paths(vm)).n1 > 20)
    signalVm(readRun(vm.dir), fabric.table, 'SIGTERM')
    expect(await off(vm)).toBe(true)
    const stopped = readCounters(paths(vm))
    expect(stopped.n0).toBe(stopped.n1)
    expect(guestLog(vm)).toContain(`stopped after order ${stopped.n0}`)
    await startProgram(vm, fabric.table, fabric.clock)
    await until('it goes on', () => readCounters(paths(vm)).n1 > stopped.n1)
    expect(guestLog(vm)).toContain(`recovered n0=${stopped.n0}, n1=${stopped.n1}, torn=false`)
  })

  test('killed at any moment it comes up again; a disk from another moment it refuses', async () => {
    await fabric.start(vm)
    await until('some orders', () => readCounters(paths(vm)).n1 > 300)
    await fabric.kill(vm)
    expect(readCounters(paths(vm)).consistent).toBe(true)
    const old = fabric.addVm({ name: 'old', diskBytes: [8 * MIB, 8 * MIB], command: vm.file.command })
    const [disk0 = '', disk1 = ''] = paths(vm)
    const [older0 = ''] = paths(old)
    copyFileSync(disk0, older0)
    await fabric.start(vm)
    await until('more orders', () => readCounters(paths(vm)).n1 > readCounters([older0, disk1]).n0 + 5)
    await fabric.kill(vm)
    copyFileSync(older0, disk0)
    expect(readCounters(paths(vm)).consistent).toBe(false)
    await fabric.start(vm)
    expect(await off(vm)).toBe(true)
    expect(guestLog(vm)).toContain('refusing to go on')
  })
})

describe('orders on a disk', () => {
  const ringOf = (n: number) => {
    const ring = Buffer.alloc(RING_BYTES)
    for (let order = 1; order <= n; order++) encodeRecord(order, order).copy(ring, recordOffset(order))
    return ring
  }

  test('the newest is found, before and after the ring has come round', () => {
    for (const n of [0, 1, 255, 256, 257, 700]) expect(ordersOf(ringOf(n))).toEqual({ newest: n, torn: 0 })
  })

  test('any one byte changed, and any one record lost, is seen', () => {
    const n = 300
    fc.assert(
      fc.property(fc.nat(RING_BYTES - 1), fc.integer({ min: 1, max: 255 }), (offset, change) => {
        const ring = ringOf(n)
        ring.writeUInt8(ring.readUInt8(offset) ^ change, offset)
        expect(ordersOf(ring).torn).toBeGreaterThan(0)
      }),
      { numRuns: 20 },
    )
    const lost = ringOf(n).fill(0, recordOffset(n - 7), recordOffset(n - 7) + RECORD_BYTES)
    expect(ordersOf(lost)).toEqual({ newest: n, torn: 1 })
    const half = ringOf(n)
    encodeRecord(n + 1, 1).copy(half, recordOffset(n + 1), 0, RECORD_BYTES / 2)
    expect(ordersOf(half)).toEqual({ newest: n, torn: 1 })
  })

  test('order across the disks decides', () => {
    const at = (newest: number) => ({ newest, torn: 0 })
    expect(countersOf(at(5), at(5)).consistent).toBe(true)
    expect(countersOf(at(6), at(5)).consistent).toBe(true)
    expect(countersOf(at(5), at(6)).consistent).toBe(false)
    expect(countersOf(at(7), at(5)).consistent).toBe(false)
  })
})

test('disks made for a demo: sparse, with content, the room for orders empty, the same from the same seed', () => {
  const fabric = makeTestFabric()
  try {
    const request = { count: 2, sizeBytes: 16 * MIB, dataBytes: 2 * MIB, seed: 7 }
    const made = makeDisks({ ...request, dir: join(fabric.root, 'a') })
    const again = makeDisks({ ...request, dir: join(fabric.root, 'b') })
    for (const [index, path] of made.entries()) {
      const bytes = readFileSync(path)
      expect(bytes.length).toBe(16 * MIB)
      expect(bytes.equals(readFileSync(again[index] ?? ''))).toBe(true)
      expect(bytes.subarray(0, RING_BYTES).every((byte) => byte === 0)).toBe(true)
    }
    expect(readFileSync(made[0] ?? '').equals(readFileSync(made[1] ?? ''))).toBe(false)
  } finally {
    void fabric[Symbol.asyncDispose]()
  }
})
