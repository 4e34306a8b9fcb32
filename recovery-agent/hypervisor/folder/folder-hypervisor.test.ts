import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readdirSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { FolderVm } from '#shared/folder/layout.ts'
import { membersOf } from '#shared/folder/process.ts'
import {
  COUNTER_OFFSET_BYTES,
  counterOf,
  makeTestFabric,
  type TestFabric,
  until,
} from '#shared/folder/testing/test-fabric.ts'
import { readRun, writeRun } from '#shared/folder/vm-file.ts'
import { silentLog } from '#shared/log.ts'
import { type HypervisorSubject, hypervisorConformance } from '../conformance.ts'
import type { HostHypervisor, Snapshot } from '../port.ts'
import { openFolderFiles } from './folder-files.ts'
import { openFolderHypervisor } from './folder-hypervisor.ts'

/** Where these tests run there may be reflinks or not: what is to be seen without them is asked for. */
const hypervisorOf = (fabric: TestFabric, freezeLimitMs = 20_000, useReflinks = false): HostHypervisor =>
  openFolderHypervisor({
    root: fabric.root,
    host: 'host1',
    dataDir: join(fabric.root, 'agent-data'),
    clock: fabric.clock,
    log: silentLog,
    freezeLimitMs,
    useReflinks,
  })

const progressOf = async (vm: FolderVm) => {
  const from = counterOf(vm, 1)
  await until(`${vm.file.name} writes`, () => counterOf(vm, 1) > from + 1)
}

const writeTo = (vm: FolderVm, diskIndex: number, offsetBytes: number, bytes: Buffer) => {
  writeSync(openSync(join(vm.dir, `disk${diskIndex}.img`), 'r+'), bytes, 0, bytes.length, offsetBytes)
}

const subject = async (useReflinks: boolean): Promise<HypervisorSubject> => {
  const fabric = makeTestFabric()
  const vm = fabric.addVm({ name: 'orders', diskBytes: [1024 * 1024, 3 * 65_536 + 777] })
  const open = () => hypervisorOf(fabric, 20_000, useReflinks)
  return {
    hypervisor: open(),
    vm: vm.file.id,
    sizesBytes: [1024 * 1024, 3 * 65_536 + 777],
    counterOffsetBytes: COUNTER_OFFSET_BYTES,
    write: (diskIndex, offsetBytes, bytes) => writeTo(vm, diskIndex, offsetBytes, bytes),
    start: () => fabric.start(vm),
    stop: () => fabric.kill(vm),
    progress: () => progressOf(vm),
    laterLife: open,
    [Symbol.asyncDispose]: () => fabric[Symbol.asyncDispose](),
  }
}
hypervisorConformance('folder', () => subject(true))
hypervisorConformance('folder, never with reflinks', () => subject(false))

describe('folder hypervisor', () => {
  let fabric: TestFabric
  let vm: FolderVm
  beforeEach(() => {
    fabric = makeTestFabric()
    vm = fabric.addVm({ name: 'orders' })
  })
  afterEach(() => fabric[Symbol.asyncDispose]())

  const brief = (hypervisor: HostHypervisor, of = vm) =>
    hypervisor.openSnapshot({ fabricVmId: of.file.id, hold: 'brief' })

  test('I11: the agent killed with a snapshot open: the watchdog lets the VM go at once', async () => {
    await fabric.start(vm)
    await progressOf(vm)
    const holder = spawn(process.execPath, [
      '--input-type=module',
      '-e',
      `
      import { openFolderHypervisor } from '#recovery-agent/hypervisor/folder/folder-hypervisor.ts'
      import { systemClock } from '#shared/clock.ts'
      import { silentLog } from '#shared/log.ts'
      const hypervisor = openFolderHypervisor({ root: ${JSON.stringify(fabric.root)}, host: 'host1',
        dataDir: ${JSON.stringify(join(fabric.root, 'holder-data'))}, clock: systemClock, log: silentLog, freezeLimitMs: 60_000, useReflinks: false })
      globalThis.held = await hypervisor.openSnapshot({ fabricVmId: ${JSON.stringify(vm.file.id)}, hold: 'brief' })
      process.stdout.write('held')
      setInterval(() => {}, 1000)
      `,
    ])
    try {
      await once(holder.stdout, 'data')
      const states = membersOf(readRun(vm.dir), fabric.table).map((entry) => entry.state)
      expect(states).toEqual(['stopped'])
    } finally {
      holder.kill('SIGKILL')
    }
    await progressOf(vm)
  })

  test('I11: a reader that takes too long: the VM is let go, and the snapshot says that it is torn', async () => {
    const hypervisor = hypervisorOf(fabric, 800)
    await fabric.start(vm)
    await progressOf(vm)
    const snapshot = await brief(hypervisor)
    await progressOf(vm)
    expect(snapshot.close()).toEqual({ intact: false })
    // From now on this VM is copied, so that it does not stand still in vain at each cycle.
    const next = await brief(hypervisor)
    await progressOf(vm)
    await progressOf(vm)
    expect(next.close()).toEqual({ intact: true })
  })

  test('a VM that somebody else continues for an instant and stops again does not pass for intact', async () => {
    await fabric.start(vm)
    await progressOf(vm)
    const snapshot = await brief(hypervisorOf(fabric))
    const pid = readRun(vm.dir)?.pid ?? 0
    process.kill(-pid, 'SIGCONT')
    process.kill(-pid, 'SIGSTOP')
    await until('stopped again', () => fabric.table.stillness(pid) !== undefined)
    expect(snapshot.close()).toEqual({ intact: false })
  })

  test('a VM that was off and is started under the snapshot makes it torn', async () => {
    const snapshot = await brief(hypervisorOf(fabric))
    await fabric.start(vm)
    expect(snapshot.close()).toEqual({ intact: false })
  })

  test('a pid that belongs to another process by now: the VM is off and the other is left alone', async () => {
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { detached: true })
    const entry = fabric.table.find(other.pid ?? 0)
    try {
      writeRun(vm.dir, {
        pid: other.pid ?? 0,
        startTicks: (entry?.startTicks ?? 0) - 1,
        bootId: fabric.table.bootId,
        startedAtMs: 1,
      })
      const snapshot = await brief(hypervisorOf(fabric))
      expect(fabric.table.find(other.pid ?? 0)?.state).toBe('active')
      expect(snapshot.freezeMs()).toBe(0)
      expect(snapshot.close()).toEqual({ intact: true })
    } finally {
      other.kill('SIGKILL')
    }
  })

  test('children of the program stand still too, those with a group of their own included', async () => {
    const family = fabric.addVm({
      name: 'family',
      command: ['bash', '-c', 'set -m; for i in 1 2 3; do (while :; do :; done) & done; wait'],
    })
    await fabric.start(family)
    const run = readRun(family.dir)
    await until('four processes', () => membersOf(run, fabric.table).length === 4)
    const groups = new Set(membersOf(run, fabric.table).map((entry) => entry.groupId))
    expect(groups.size).toBe(4)
    const snapshot = await brief(hypervisorOf(fabric), family)
    expect(membersOf(run, fabric.table).map((entry) => entry.state)).toEqual(Array(4).fill('stopped'))
    expect(snapshot.close()).toEqual({ intact: true })
    await until('all go on', () => membersOf(run, fabric.table).every((entry) => entry.state === 'active'))

    // The same family under the watchdog, which finds them without us.
    const abandoned = await brief(hypervisorOf(fabric, 600), family)
    await until('all go on', () => membersOf(run, fabric.table).every((entry) => entry.state === 'active'))
    expect(abandoned.close()).toEqual({ intact: false })
  })

  test('a thread inside a long write finishes it before the instant', async () => {
    const chunkBytes = 16 * 2 ** 20
    const threaded = fabric.addVm({
      name: 'threaded',
      diskBytes: [chunkBytes],
      command: [
        process.execPath,
        '-e',
        `
        const fs = require('node:fs')
        const fd = fs.openSync(JSON.parse(process.env.HOTSITE_VM_DISKS)[0].path, 'r+')
        const next = (n) => fs.write(fd, Buffer.alloc(${chunkBytes}, n % 256), 0, ${chunkBytes}, 0, () => next(n + 1))
        next(1)
        `,
      ],
    })
    await fabric.start(threaded)
    const hypervisor = hypervisorOf(fabric)
    const image = Buffer.alloc(chunkBytes)
    let written = 0
    for (let round = 0; round < 25 || written < 5; round++) {
      const snapshot = await brief(hypervisor, threaded)
      snapshot.disks[0]?.read(image, 0)
      const value = image.readUInt8(0)
      if (value !== 0) written++
      expect(image.equals(Buffer.alloc(chunkBytes, value))).toBe(true)
      expect(snapshot.close()).toEqual({ intact: true })
    }
  })

  test('two VMs are held independently; a second hold of one VM is refused', async () => {
    const second = fabric.addVm({ name: 'second' })
    const hypervisor = hypervisorOf(fabric)
    await fabric.start(vm)
    await fabric.start(second)
    await progressOf(vm)
    const held = await brief(hypervisor)
    await progressOf(second)
    const other = await brief(hypervisor, second)
    await expect(brief(hypervisor)).rejects.toMatchObject({ code: 'snapshot-busy' })
    expect(held.close()).toEqual({ intact: true })
    await progressOf(vm)
    expect(other.close()).toEqual({ intact: true })
    await progressOf(second)
  })

  test('a VM that is off is read where it lies, however long', async () => {
    const hypervisor = hypervisorOf(fabric)
    const snapshot = await hypervisor.openSnapshot({ fabricVmId: vm.file.id, hold: 'long' })
    expect(readdirSync(join(fabric.root, 'agent-data', 'snapshots', '1'))).toEqual([])
    expect(snapshot.close()).toEqual({ intact: true })
  })

  test.each([
    ['started', () => fabric.start(vm)],
    ['written to by somebody', async () => writeTo(vm, 1, 5, Buffer.from('x'))],
  ])(
    'a VM that is off and %s under a long snapshot makes it torn; the next one is a copy',
    async (_, touch) => {
      const hypervisor = hypervisorOf(fabric)
      const long = () => hypervisor.openSnapshot({ fabricVmId: vm.file.id, hold: 'long' })
      const snapshot = await long()
      await touch()
      const cell = Buffer.alloc(8)
      await until('the reader is told', () => {
        try {
          snapshot.disks[0]?.read(cell, 0)
          return false
        } catch (error) {
          expect(error).toMatchObject({ code: 'snapshot-torn' })
          return true
        }
      })
      expect(snapshot.close()).toEqual({ intact: false })
      const next = await long()
      expect(readdirSync(join(fabric.root, 'agent-data', 'snapshots', '2'))).toEqual(['d0.img', 'd1.img'])
      expect(next.close()).toEqual({ intact: true })
    },
  )

  test('holes are neither named nor copied, and the copy is gone after the close', async () => {
    const sparse = fabric.addVm({
      name: 'sparse',
      diskBytes: [4 * 1024 ** 3],
      command: [process.execPath, '-e', 'setInterval(() => {}, 1000)'],
    })
    writeTo(sparse, 0, 3 * 1024 ** 3, Buffer.alloc(8192, 'x'))
    await fabric.start(sparse)
    const snapshot: Snapshot = await hypervisorOf(fabric).openSnapshot({
      fabricVmId: sparse.file.id,
      hold: 'long',
    })
    expect(snapshot.disks[0]?.allocated).toEqual([{ offsetBytes: 3 * 1024 ** 3, lengthBytes: 8192 }])
    const copies = join(fabric.root, 'agent-data', 'snapshots')
    const copy = statSync(join(copies, '1', 'd0.img'))
    expect(copy.size).toBe(4 * 1024 ** 3)
    expect(copy.blocks * 512).toBeLessThan(1024 * 1024)
    snapshot.close()
    expect(readdirSync(copies)).toEqual([])
  })

  test('a VM that runs while it is copied: the copy is of one instant all the same', async () => {
    const big = fabric.addVm({ name: 'big', diskBytes: [96 * 2 ** 20, 2 ** 20] })
    writeTo(big, 0, 2 ** 20, Buffer.alloc(95 * 2 ** 20, 'big'))
    await fabric.start(big)
    await progressOf(big)
    const snapshot = await hypervisorOf(fabric).openSnapshot({ fabricVmId: big.file.id, hold: 'long' })
    const [n0 = 0, n1 = 0] = snapshot.disks.map((disk) => {
      const cell = Buffer.alloc(8)
      disk.read(cell, COUNTER_OFFSET_BYTES)
      return Number(cell.readBigUInt64LE())
    })
    expect(snapshot.freezeMs()).toBeGreaterThan(0)
    expect(n0 === n1 || n0 === n1 + 1).toBe(true)
    expect(snapshot.close()).toEqual({ intact: true })
  })

  test('I11: a copy that cannot be made in time is given up, and the VM runs on', async () => {
    const big = fabric.addVm({ name: 'big', diskBytes: [64 * 2 ** 20, 2 ** 20] })
    writeTo(big, 0, 2 ** 20, Buffer.alloc(63 * 2 ** 20, 'big'))
    await fabric.start(big)
    await progressOf(big)
    const hypervisor = hypervisorOf(fabric, 4)
    await expect(hypervisor.openSnapshot({ fabricVmId: big.file.id, hold: 'long' })).rejects.toMatchObject({
      code: expect.stringMatching(/snapshot-too-slow|vm-suspend-failed/),
    })
    await progressOf(big)
    expect(readdirSync(join(fabric.root, 'agent-data', 'snapshots'))).toEqual([])
  })

  test('a disk that went away is named, and the VM is not touched', async () => {
    await fabric.start(vm)
    const broken = fabric.addVm({
      name: 'broken',
      file: { disks: vm.file.disks.map((disk) => ({ ...disk, file: 'gone.img' })) },
    })
    await expect(brief(hypervisorOf(fabric), broken)).rejects.toMatchObject({
      code: 'disk-missing',
      message: expect.stringContaining('gone.img'),
    })
    await progressOf(vm)
  })

  test('recovery removes the copies of an earlier life', async () => {
    const hypervisor = hypervisorOf(fabric)
    await hypervisor.openSnapshot({ fabricVmId: vm.file.id, hold: 'long' })
    await hypervisorOf(fabric).recover()
    expect(readdirSync(join(fabric.root, 'agent-data', 'snapshots'))).toEqual([])
  })

  test('disks for adopting are given for a VM that is off only', async () => {
    const files = openFolderFiles({ root: fabric.root, host: 'host1' })
    using stopped = await files.stoppedDisks(vm.file.id)
    expect(stopped.disks).toEqual([
      { diskId: 'd0', sizeBytes: 1024 * 1024, path: join(vm.dir, 'disk0.img'), kind: 'raw' },
      { diskId: 'd1', sizeBytes: 1024 * 1024, path: join(vm.dir, 'disk1.img'), kind: 'raw' },
    ])
    await fabric.start(vm)
    await expect(files.stoppedDisks(vm.file.id)).rejects.toMatchObject({ code: 'vm-running' })
  })
})
