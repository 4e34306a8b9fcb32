import { existsSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import type { ReplicaStore } from './port.ts'
import { openReplicaStore } from './store.ts'
import { type ModelDelta, ModelVm, prepareReplica, replicate, testVm } from './testing/model-vm.ts'
import { testFolder } from './testing/test-folder.ts'
import { checkLayer, compareWithModel, verifyPoints } from './testing/truth.ts'

const disk0 = 'disk-0' as DiskId
const disk1 = 'disk-1' as DiskId
const everything = { retentionPoints: 15, retentionIntervalSeconds: 0 }

let dir: ReturnType<typeof testFolder>
let scratch: string
let scratchFolder: ReturnType<typeof testFolder>
let store: ReplicaStore & Disposable
let history: Map<number, ModelDelta>

function open(): ReplicaStore & Disposable {
  return openReplicaStore({ dir: dir.path, clock: systemClock, log: silentLog, crashPoint: noCrash })
}

function reopen(): void {
  store[Symbol.dispose]()
  store = open()
  store.recover()
}

function only<T>(items: readonly T[] | undefined): T {
  expect(items).toHaveLength(1)
  return defined(items?.[0], 'the only one')
}

function deliver(delta: ModelDelta): void {
  history.set(delta.header.seq, delta)
  expect(replicate(store, delta)).toEqual({ kind: 'sealed' })
}

beforeEach(() => {
  dir = testFolder('replica')
  scratchFolder = testFolder('truth')
  scratch = scratchFolder.path
  history = new Map()
  store = open()
  store.recover()
})

afterEach(() => {
  store[Symbol.dispose]()
  dir[Symbol.dispose]()
  scratchFolder[Symbol.dispose]()
})

describe.skipIf(!hasTool('qemu-img'))('a replica, judged by qemu-img', () => {
  it('keeps every point of a chain of deltas, over two disks of odd sizes', () => {
    const vm = new ModelVm(seededRng(1), { 'disk-0': 40 * 65_536 + 512, 'disk-1': 3 * 65_536 - 1024 })
    prepareReplica(store, vm, everything)
    for (let i = 0; i < 6; i++) {
      vm.scribble(8)
      deliver(vm.capture())
    }
    expect(verifyPoints(store, history, scratch)).toEqual([1, 2, 3, 4, 5, 6])
  })

  it.each([0, 1, 3, 15])(
    'keeps what it should after pruning down to %i additional points',
    (retentionPoints) => {
      const vm = new ModelVm(seededRng(retentionPoints + 10), {
        'disk-0': 30 * 65_536,
        'disk-1': 10 * 65_536 + 4096,
      })
      prepareReplica(store, vm, { retentionPoints, retentionIntervalSeconds: 0 })
      for (let i = 0; i < 18; i++) {
        vm.scribble(5)
        deliver(vm.capture())
      }
      while (store.prune(testVm, 0));
      const seqs = verifyPoints(store, history, scratch)
      expect(seqs).toEqual(Array.from({ length: retentionPoints + 1 }, (_, i) => 18 - retentionPoints + i))
      expect(store.usage(testVm).mergeDebtBytes).toBe(0)
    },
  )

  it('grows, shrinks and grows a disk, and shows nothing of its past, before and after pruning', () => {
    const vm = new ModelVm(seededRng(3), { 'disk-0': 20 * 65_536 })
    prepareReplica(store, vm, everything)
    for (const sizeBytes of [20, 8.5, 600 * 16, 9, 8193, 12].map((blocks) => blocks * 65_536)) {
      vm.resize(disk0, sizeBytes)
      vm.scribble(6, 20)
      vm.scribble(2)
      deliver(vm.capture())
    }
    expect(verifyPoints(store, history, scratch)).toHaveLength(6)
    for (const seq of [2, 4, 1, 3, 5]) {
      // Prune in the middle, too: pins decide what stays.
      for (const point of store.points(testVm)) store.pin(testVm, point, point.seq !== seq)
      store.setPolicy(testVm, { ...defined(store.get(testVm), 'replica').policy, retentionPoints: 0 })
      while (store.prune(testVm, 0));
      verifyPoints(store, history, scratch)
    }
    expect(store.points(testVm).map(({ seq }) => seq)).toEqual([6])
  })

  it('forgets what was cut off when a disk grows again after the shrunk point was merged', () => {
    const vm = new ModelVm(seededRng(6), { 'disk-0': 20 * 65_536 })
    prepareReplica(store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
    for (let i = 0; i < 20; i++) vm.set(disk0, i, vm.block())
    deliver(vm.capture())
    for (const blocks of [7.5, 18, 3, 20]) {
      vm.resize(disk0, blocks * 65_536)
      deliver(vm.capture())
      while (store.prune(testVm, 0));
      verifyPoints(store, history, scratch)
    }
  })

  it('takes disks that come and go', () => {
    const vm = new ModelVm(seededRng(4), { 'disk-0': 10 * 65_536, 'disk-1': 10 * 65_536 })
    prepareReplica(store, vm, everything)
    const step = (change: () => void) => {
      change()
      vm.scribble(4)
      deliver(vm.capture())
    }
    step(() => {})
    step(() => vm.removeDisk(disk1))
    step(() => vm.addDisk('disk-2' as DiskId, 5 * 65_536))
    step(() => vm.addDisk(disk1, 12 * 65_536))
    expect(verifyPoints(store, history, scratch)).toEqual([1, 2, 3, 4])
    store.setPolicy(testVm, { ...defined(store.get(testVm), 'replica').policy, retentionPoints: 1 })
    while (store.prune(testVm, 0)) verifyPoints(store, history, scratch)
    expect(verifyPoints(store, history, scratch)).toEqual([3, 4])
  })

  it('makes raw and qcow2 overlays that are the point, and leaves the replica alone', () => {
    const vm = new ModelVm(seededRng(5), { 'disk-0': 30 * 65_536 + 512 })
    prepareReplica(store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
    vm.scribble(10)
    deliver(vm.capture())
    const point = { epoch: 1, seq: 1 }
    const first = only(history.get(1)?.disks)
    const raw = store.createOverlay({
      vmId: testVm,
      overlayId: 'ov-raw' as OverlayId,
      point,
      purpose: 'test',
      format: 'raw',
    })
    for (let i = 0; i < 3; i++) {
      vm.scribble(10)
      deliver(vm.capture())
    }
    const overlay = store.createOverlay({
      vmId: testVm,
      overlayId: 'ov-qcow2' as OverlayId,
      point,
      purpose: 'test',
      format: 'qcow2',
    })
    while (store.prune(testVm, 0));
    expect(store.points(testVm).map(({ seq, overlays }) => [seq, overlays])).toEqual([
      [1, ['ov-qcow2', 'ov-raw']],
      [4, []],
    ])
    compareWithModel(only(raw.disks).path, 'raw', first, scratch)
    checkLayer(only(overlay.disks).path)
    compareWithModel(only(overlay.disks).path, 'qcow2', first, scratch)
    store.removeOverlay(testVm, 'ov-raw' as OverlayId)
    store.removeOverlay(testVm, 'ov-qcow2' as OverlayId)
    expect(existsSync(only(raw.disks).path)).toBe(false)
    while (store.prune(testVm, 0));
    expect(verifyPoints(store, history, scratch)).toEqual([4])
    reopen()
    expect(verifyPoints(store, history, scratch)).toEqual([4])
  })
})
