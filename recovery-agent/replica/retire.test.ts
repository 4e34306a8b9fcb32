import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import type { ReplicaStore } from './port.ts'
import { StoreFixture } from './testing/fixture.ts'
import { ModelVm, prepareReplica, rootOfDisk, testServer, testVm, writeRaw } from './testing/model-vm.ts'
import { compareWithModel } from './testing/truth.ts'

const disk0 = 'disk-0' as DiskId
const overlayId = 'ov-1' as OverlayId
const retention = { retentionPoints: 0, retentionIntervalSeconds: 0 }

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(5), { 'disk-0': 20 * 65_536 + 1024 })
  vm.scribble(12)
})

afterEach(() => fixture[Symbol.dispose]())

function rawDisks() {
  return vm.disks.map((disk) => {
    const path = join(fixture.scratch, `${disk.diskId}.source`)
    writeRaw(disk, path)
    return { diskId: disk.diskId, sizeBytes: disk.sizeBytes, path, kind: 'raw' as const }
  })
}

function adopt(store: ReplicaStore, epoch: number) {
  return store.adopt({
    vmId: testVm,
    epoch,
    sourceServerId: testServer,
    policy: replicationPolicy.parse(retention),
    disks: rawDisks(),
  })
}

function overlay(format: 'raw' | 'qcow2', seq: number) {
  return fixture.store.createOverlay({
    vmId: testVm,
    overlayId,
    point: { epoch: vm.epoch, seq },
    purpose: 'failover',
    format,
  })
}

function nodes(): Buffer {
  return fixture.store.treeNodes({ vmId: testVm, diskId: disk0, level: 1, first: 0, count: 1 })
}

describe.skipIf(!hasTool('qemu-img'))('the ends and beginnings of a replica', () => {
  it('adopts disks as a base without a point, whose tree is theirs, and a synchronization sends only differences', () => {
    expect(adopt(fixture.store, 1)).toMatchObject({ epoch: 1, newestSeq: 0 })
    expect(fixture.store.points(testVm)).toEqual([])
    vm.capture()
    vm.seq = 0
    vm.scribble(3)
    const delta = vm.capture({ kind: 'sync', baseSeq: 0 })
    fixture.deliver(delta)
    expect(fixture.verified()).toEqual([1])
    expect(fixture.store.points(testVm)[0]?.changedBytes).toBeLessThanOrEqual(3 * 65_536)
    expect(fixture.store.usage(testVm).mergeDebtBytes).toBeGreaterThan(0)
    while (fixture.store.prune(testVm, 0));
    expect(fixture.verified()).toEqual([1])
    expect(fixture.store.usage(testVm).mergeDebtBytes).toBe(0)
  })

  it('adopts once: the repeated command changes nothing, a newer epoch adopts anew', () => {
    adopt(fixture.store, 1)
    const before = nodes()
    vm.scribble(5)
    adopt(fixture.store, 1)
    expect(nodes()).toEqual(before)
    adopt(fixture.store, 2)
    expect(nodes()).not.toEqual(before)
    expect(() => adopt(fixture.store, 1)).toThrow(expect.objectContaining({ code: 'epoch-stale' }))
  })

  it('leaves a raw overlay alone when the failover is final, and the next life of the VM begins from it', () => {
    prepareReplica(fixture.store, vm, retention)
    fixture.deliver(vm.capture())
    const created = overlay('raw', 1)
    const path = defined(created.disks[0], 'disk').path
    expect(overlay('raw', 1)).toEqual(created)
    fixture.store.raiseEpoch(testVm, 2)
    fixture.store.commit(testVm, overlayId)
    fixture.store.commit(testVm, overlayId)
    expect(fixture.store.points(testVm)).toEqual([])
    expect(() => fixture.store.begin({ ...vm.capture().header, epoch: 2 })).toThrow(
      expect.objectContaining({ code: 'replica-not-prepared' }),
    )
    fixture.reopen()
    expect(fixture.store.usage(testVm).diskBytes).toBe(0)
    compareWithModel(path, 'raw', defined(fixture.history.get(1)?.disks[0], 'disk'), fixture.scratch)
    fixture.store.adopt({
      vmId: testVm,
      epoch: 3,
      sourceServerId: testServer,
      policy: replicationPolicy.parse(retention),
      disks: [{ ...defined(vm.disks[0], 'disk'), path, kind: 'raw' }],
    })
    expect(existsSync(path)).toBe(true)
    vm.epoch = 3
    vm.seq = 0
    vm.scribble(4)
    fixture.deliver(vm.capture({ kind: 'sync', baseSeq: 0 }))
    expect(fixture.verified()).toEqual([1])
    fixture.store.remove(testVm)
    expect(existsSync(path)).toBe(true)
  })

  it('leases of an earlier failover do not hold the points of a later epoch that have the same numbers', () => {
    prepareReplica(fixture.store, vm, retention)
    fixture.deliver(vm.capture())
    vm.scribble(2)
    fixture.deliver(vm.capture())
    overlay('raw', 2)
    fixture.store.commit(testVm, overlayId)
    adopt(fixture.store, 3)
    vm.epoch = 3
    vm.seq = 0
    for (const kind of ['sync', 'delta', 'delta'] as const) {
      vm.scribble(2)
      fixture.deliver(vm.capture({ kind, baseSeq: vm.seq }))
    }
    expect(fixture.store.points(testVm).flatMap(({ overlays }) => overlays)).toEqual([])
    while (fixture.store.prune(testVm, 0));
    expect(fixture.store.points(testVm).map(({ epoch, seq }) => [epoch, seq])).toEqual([[3, 3]])
    expect(fixture.verified()).toEqual([3])
  })

  it('keeps what a committed qcow2 overlay stands on, merged into one layer, and refuses to replace it', () => {
    prepareReplica(fixture.store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
    for (let i = 0; i < 4; i++) {
      fixture.deliver(vm.capture())
      vm.scribble(4)
    }
    const created = overlay('qcow2', 3)
    const truth = defined(fixture.history.get(3)?.disks[0], 'disk')
    fixture.store.commit(testVm, overlayId)
    expect(fixture.store.points(testVm).map(({ seq }) => seq)).toEqual([3])
    while (fixture.store.prune(testVm, 0)) fixture.reopen()
    compareWithModel(defined(created.disks[0], 'disk').path, 'qcow2', truth, fixture.scratch)
    expect(() => adopt(fixture.store, 5)).toThrow(expect.objectContaining({ code: 'point-in-use' }))
    vm.epoch = 5
    expect(() => prepareReplica(fixture.store, vm, retention)).toThrow(
      expect.objectContaining({ code: 'point-in-use' }),
    )
  })

  it('refuses unknown points, other points under the same overlay id, and removal under a test failover', () => {
    prepareReplica(fixture.store, vm, retention)
    const unknown = expect.objectContaining({ code: 'point-unknown' })
    expect(() => overlay('raw', 1)).toThrow(unknown)
    fixture.deliver(vm.capture())
    fixture.deliver(vm.capture())
    overlay('raw', 1)
    expect(() => overlay('raw', 2)).toThrow(expect.objectContaining({ code: 'overlay-exists' }))
    expect(() => overlay('qcow2', 1)).toThrow(expect.objectContaining({ code: 'overlay-exists' }))
    expect(() => fixture.store.pin(testVm, { epoch: 1, seq: 7 }, true)).toThrow(unknown)
    expect(() => fixture.store.layerPath(testVm, { epoch: 2, seq: 1 }, disk0)).toThrow(unknown)
    expect(() => fixture.store.remove(testVm)).toThrow(expect.objectContaining({ code: 'point-in-use' }))
    expect(() => fixture.store.commit(testVm, 'ov-2' as OverlayId)).toThrow(
      expect.objectContaining({ code: 'overlay-unknown' }),
    )
    fixture.store.removeOverlay(testVm, overlayId)
    fixture.store.removeOverlay(testVm, overlayId)
    fixture.store.remove(testVm)
    fixture.store.remove(testVm)
    expect(fixture.store.list()).toEqual([])
    expect(existsSync(join(fixture.dir, 'replicas', testVm))).toBe(false)
  })

  it('never writes into an overlay that is ready', () => {
    prepareReplica(fixture.store, vm, retention)
    fixture.deliver(vm.capture())
    const path = defined(overlay('raw', 1).disks[0], 'disk').path
    writeFileSync(path, 'written by the VM')
    fixture.reopen()
    overlay('raw', 1)
    expect(readFileSync(path, 'utf8')).toBe('written by the VM')
  })

  it.each(
    (['raw', 'qcow2'] as const).flatMap((format) =>
      ['replica.overlay-leased', 'replica.overlay-disk-written', 'replica.overlay-files-durable'].map(
        (name) => [format, name] as const,
      ),
    ),
  )('makes a whole %s overlay when it died at %s and is asked again', (format, name) => {
    prepareReplica(fixture.store, vm, retention)
    fixture.deliver(vm.capture())
    diesAt(name, () => overlay(format, 1))
    vm.scribble(4)
    fixture.deliver(vm.capture())
    // The lease of the unfinished overlay holds the point.
    while (fixture.store.prune(testVm, 0));
    const path = defined(overlay(format, 1).disks[0], 'disk').path
    const truth = defined(fixture.history.get(1)?.disks[0], 'disk')
    compareWithModel(path, format, truth, fixture.scratch)
  })

  it.each(['replica.adopt-disk-written', 'replica.adopt-files-durable', 'replica.adopt-committed'])(
    'adopts when it died at %s and is asked again',
    (name) => {
      prepareReplica(fixture.store, vm, retention)
      fixture.deliver(vm.capture())
      diesAt(name, (store) => adopt(store, 2))
      adopt(fixture.store, 2)
      expect(fixture.store.points(testVm)).toEqual([])
      const [disk] = vm.disks
      vm.epoch = 2
      fixture.deliver({ ...vm.capture({ kind: 'sync', baseSeq: 0 }) })
      expect(fixture.store.points(testVm)[0]?.roots[0]?.rootHex).toBe(
        rootOfDisk(defined(disk, 'disk')).toString('hex'),
      )
      expect(fixture.verified()).toHaveLength(1)
    },
  )

  it.each(['replica.remove-marked', 'replica.remove-files-removed'])('is gone when it died at %s', (name) => {
    prepareReplica(fixture.store, vm, retention)
    fixture.deliver(vm.capture())
    diesAt(name, (store) => store.remove(testVm))
    expect(fixture.store.list()).toEqual([])
    expect(existsSync(join(fixture.dir, 'replicas', testVm))).toBe(false)
  })

  it('is committed when it died right after that was recorded', () => {
    prepareReplica(fixture.store, vm, retention)
    fixture.deliver(vm.capture())
    overlay('raw', 1)
    diesAt('replica.commit-recorded', (store) => store.commit(testVm, overlayId))
    fixture.store.commit(testVm, overlayId)
    expect(fixture.store.usage(testVm).diskBytes).toBe(0)
  })
})

function diesAt(name: string, work: (store: ReplicaStore) => void): void {
  const crash: CrashPoint = (passed) => {
    if (passed === name) throw new Error('died')
  }
  fixture.reopen(crash)
  expect(() => work(fixture.store)).toThrow('died')
  fixture.reopen()
}
