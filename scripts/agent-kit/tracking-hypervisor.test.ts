import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type HypervisorSubject, hypervisorConformance } from '#recovery-agent/hypervisor/conformance.ts'
import type { HostHypervisor, SnapshotDisk } from '#recovery-agent/hypervisor/port.ts'
import type { FolderVm } from '#shared/folder/layout.ts'
import {
  COUNTER_OFFSET_BYTES,
  counterOf,
  makeTestFabric,
  type TestFabric,
  until,
} from '#shared/folder/testing/test-fabric.ts'
import { silentLog } from '#shared/log.ts'
import { startTracking, stopTracking, writeTracked } from './change-log.ts'
import { openHypervisor } from './tracking-hypervisor.ts'

const open = (fabric: TestFabric): HostHypervisor =>
  openHypervisor(
    { driver: 'folder', root: fabric.root, host: 'host1', freezeLimitMs: 20_000 },
    { dataDir: join(fabric.root, 'agent-data'), clock: fabric.clock, log: silentLog },
  )
const imageOf = (vm: FolderVm, index: number) => join(vm.dir, `disk${index}.img`)

async function subject(tracked: boolean): Promise<HypervisorSubject> {
  const fabric = makeTestFabric()
  const sizesBytes = [1024 * 1024, 3 * 65_536 + 777] as const
  const vm = fabric.addVm({ name: 'orders', diskBytes: [...sizesBytes] })
  if (tracked) for (const index of [0, 1]) startTracking(imageOf(vm, index))
  return {
    hypervisor: open(fabric),
    vm: vm.file.id,
    sizesBytes,
    counterOffsetBytes: COUNTER_OFFSET_BYTES,
    write(index, offsetBytes, bytes) {
      if (tracked) return writeTracked(imageOf(vm, index), [{ offsetBytes, bytes }])
      const fd = openSync(imageOf(vm, index), 'r+')
      writeSync(fd, bytes, 0, bytes.length, offsetBytes)
      closeSync(fd)
    },
    start: () => fabric.start(vm),
    stop: () => fabric.kill(vm),
    async progress() {
      const from = counterOf(vm, 1)
      await until(`${vm.file.name} writes`, () => counterOf(vm, 1) > from + 1)
    },
    laterLife: () => open(fabric),
    [Symbol.asyncDispose]: () => fabric[Symbol.asyncDispose](),
  }
}
hypervisorConformance('tracking, with change logs', () => subject(true))
hypervisorConformance('tracking, without change logs', () => subject(false))

describe('the tracker of the agent kit', () => {
  let fabric: TestFabric
  let vm: FolderVm
  let hypervisor: HostHypervisor
  beforeEach(() => {
    fabric = makeTestFabric()
    vm = fabric.addVm({ name: 'orders', diskBytes: [1024 * 1024, 1024 * 1024] })
    hypervisor = open(fabric)
    startTracking(imageOf(vm, 0))
  })
  afterEach(() => fabric[Symbol.asyncDispose]())

  const snapshot = async (seq: number): Promise<readonly SnapshotDisk['changes'][]> => {
    const opened = await hypervisor.openSnapshot({ fabricVmId: vm.file.id, hold: 'brief', seq })
    opened.close()
    return opened.disks.map(({ changes }) => changes)
  }
  const release = (seq: number) => hypervisor.release(vm.file.id, seq)
  const write = (block: number) =>
    writeTracked(imageOf(vm, 0), [{ offsetBytes: block * 65_536, bytes: Buffer.alloc(65_536, 7) }])
  /** Blocks of disk 0 that the tracker names, or its reason to scan. */
  const named = ([first]: readonly SnapshotDisk['changes'][]) =>
    first?.kind === 'tracked'
      ? [...new Set(first.extents.map(({ offsetBytes }) => offsetBytes / 65_536))]
      : first?.reason

  test('scans until a snapshot taken under the tracker was released; a disk without a log stays with the folder driver', async () => {
    write(1)
    expect(named(await snapshot(1))).toMatch(/no snapshot was released/)
    expect(named(await snapshot(2))).toMatch(/no snapshot was released/)
    await release(2)
    const [first, second] = await snapshot(3)
    expect(first).toEqual({ kind: 'tracked', extents: [] })
    expect(second?.kind).toBe('scan')
  })

  test('I2: an extent is named by every snapshot until one that holds it is released', async () => {
    await snapshot(1)
    await release(1)
    write(1)
    expect(named(await snapshot(2))).toEqual([1])
    write(2)
    expect(named(await snapshot(3))).toEqual([1, 2])
    await release(2)
    expect(named(await snapshot(4))).toEqual([2])
    await release(4)
    expect(named(await snapshot(5))).toEqual([])
  })

  test('a snapshot that came to nothing is not what its seq releases', async () => {
    await snapshot(1)
    await release(1)
    write(1)
    await snapshot(2)
    write(2)
    await snapshot(2)
    write(3)
    await release(2)
    expect(named(await snapshot(3))).toEqual([3])
  })

  test('a release of a seq that no snapshot had, or of an old one, forgets nothing', async () => {
    await snapshot(1)
    await release(1)
    write(1)
    await release(7)
    await release(1)
    expect(named(await snapshot(2))).toEqual([1])
  })

  test('the agent restarts between snapshot and release', async () => {
    await snapshot(1)
    await release(1)
    write(1)
    await snapshot(2)
    write(2)
    hypervisor = open(fabric)
    await hypervisor.recover()
    await release(2)
    expect(named(await snapshot(3))).toEqual([2])
  })

  test('a log that was begun anew makes the tracker doubtful until the next release', async () => {
    await snapshot(1)
    await release(1)
    stopTracking(imageOf(vm, 0))
    startTracking(imageOf(vm, 0))
    write(1)
    expect(named(await snapshot(2))).toMatch(/not the log/)
    await release(2)
    expect(named(await snapshot(3))).toEqual([])
  })

  test('a snapshot between note and write names it, and its release does not forget the write', async () => {
    await snapshot(1)
    await release(1)
    // What writeTracked leaves behind when it is interrupted before and after the write itself.
    write(5)
    await snapshot(2)
    write(5)
    await release(2)
    expect(named(await snapshot(3))).toEqual([5])
  })
})
