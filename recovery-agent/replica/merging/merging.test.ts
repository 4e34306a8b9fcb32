/** Merges in slices: what happens between two of them, and what one of them may cost. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { type Clock, systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import type { DiskId, OverlayId, VmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { nodeFiles, type ReplicaFiles } from '../files.ts'
import type { ReplicaStore } from '../port.ts'
import { openReplicaStore } from '../store.ts'
import { losingFiles } from '../testing/losing-files.ts'
import {
  type ModelDelta,
  ModelVm,
  prepareReplica,
  replicate,
  testServer,
  testVm,
} from '../testing/model-vm.ts'
import { testFolder } from '../testing/test-folder.ts'
import { comparePoints, verifyPoints } from '../testing/truth.ts'
import { MERGE_SLICE_BYTES, MERGE_SLICE_STEPS } from './merging.ts'

let dir: ReturnType<typeof testFolder>
let scratch: ReturnType<typeof testFolder>

beforeEach(() => {
  dir = testFolder('merging')
  scratch = testFolder('merging-truth')
})

afterEach(() => {
  dir[Symbol.dispose]()
  scratch[Symbol.dispose]()
})

/** By which every slice is over after its first step. */
function hastyClock(): Clock {
  let nowMs = 0
  return { ...systemClock, monotonicMs: () => (nowMs += 1000) }
}

function open(files: ReplicaFiles, clock: Clock = hastyClock()) {
  const store = openReplicaStore({ dir: dir.path, clock, log: silentLog, crashPoint: noCrash, files })
  store.recover()
  return store
}

const policyOf = (store: ReplicaStore) => defined(store.get(testVm), 'replica').policy

/** One thing after another, by chance, with a few steps of merging in between. */
class Commotion {
  readonly history = new Map<number, ModelDelta>()
  readonly files = losingFiles()
  store = open(this.files)
  readonly #vm: ModelVm
  readonly #rng: Rng
  #overlays = 0

  constructor(seed: number) {
    this.#rng = seededRng(seed)
    this.#vm = new ModelVm(this.#rng, { 'disk-0': 30 * CLUSTER_BYTES + 512, 'disk-1': 7 * CLUSTER_BYTES })
    prepareReplica(this.store, this.#vm, { retentionPoints: 2, retentionIntervalSeconds: 0 })
    this.deliver()
  }

  deliver(): void {
    this.#vm.scribble(5)
    const delta = this.#vm.capture()
    this.history.set(delta.header.seq, delta)
    expect(replicate(this.store, delta)).toEqual({ kind: 'sealed' })
  }

  next(): void {
    const points = this.store.points(testVm)
    const point = defined(points[intBelow(this.#rng, points.length)], 'point')
    const moves: (() => void)[] = [
      () => this.deliver(),
      () => this.deliver(),
      () => this.store.pin(testVm, point, true),
      () => this.store.pin(testVm, point, false),
      () => this.#overlay(point),
      () => this.#crash(),
      () => {
        const retentionPoints = intBelow(this.#rng, 4)
        this.store.setPolicy(testVm, { ...policyOf(this.store), retentionPoints })
      },
      () => this.#changeDisks(),
    ]
    moves[intBelow(this.#rng, moves.length)]?.()
    for (let steps = intBelow(this.#rng, 12); steps > 0; steps--) this.store.prune(testVm, 0)
  }

  settle(): void {
    for (const point of this.store.points(testVm)) {
      this.store.pin(testVm, point, false)
      for (const overlayId of point.overlays) this.store.removeOverlay(testVm, overlayId)
    }
    while (this.store.prune(testVm, 0));
  }

  #overlay(point: { epoch: number; seq: number }): void {
    const overlayId = `ov-${++this.#overlays}` as OverlayId
    this.store.createOverlay({ vmId: testVm, overlayId, point, purpose: 'test', format: 'qcow2' })
  }

  #crash(): void {
    this.store[Symbol.dispose]()
    this.files.losePower(this.#rng)
    this.store = open(this.files)
  }

  #changeDisks(): void {
    const disk0 = 'disk-0' as DiskId
    this.#vm.resize(disk0, (10 + intBelow(this.#rng, 40)) * CLUSTER_BYTES)
    const disk2 = this.#vm.disks.find(({ diskId }) => diskId === 'disk-2')
    if (disk2) this.#vm.removeDisk(disk2.diskId)
    else this.#vm.addDisk('disk-2' as DiskId, 5 * CLUSTER_BYTES)
    this.deliver()
  }
}

describe.skipIf(!hasTool('qemu-img'))('between two steps of a merge', () => {
  it.each([4, 10, 21])(
    'deltas, pins, overlays, crashes and disks that come and go find every point as it was, seed %i',
    (seed) => {
      const life = new Commotion(seed)
      for (let move = 0; move < 40; move++) {
        life.next()
        if (move % 8 === 7) comparePoints(life.store, life.history, scratch.path)
      }
      life.settle()
      expect(verifyPoints(life.store, life.history, scratch.path).length).toBeLessThanOrEqual(4)
      expect(life.store.usage(testVm).mergeDebtBytes).toBe(0)
      life.store[Symbol.dispose]()
    },
  )
})

describe.skipIf(!hasTool('qemu-img'))('a table that rots in the middle of a merge', () => {
  it.each([1, 2, 3])('of layer %i is found, the layer healed, and the merge done', (layer) => {
    const store = open(nodeFiles)
    const vm = new ModelVm(seededRng(6), { 'disk-0': 60 * CLUSTER_BYTES })
    prepareReplica(store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
    const history = new Map<number, ModelDelta>()
    for (const kind of ['sync', 'delta', 'delta', 'delta'] as const) {
      vm.scribble(12)
      const delta = vm.capture({ kind })
      history.set(delta.header.seq, delta)
      replicate(store, delta)
    }
    store.setPolicy(testVm, { ...policyOf(store), retentionPoints: 0 })
    while (store.points(testVm).length > 1) store.prune(testVm, 0)
    rotFirstTable(join(dir.path, 'replicas', testVm, 'disk-0', `1-00000000000${layer}.qcow2`))
    const pruneAll = () => {
      while (store.prune(testVm, 0));
    }
    expect(pruneAll).toThrow(/a table entry does not point to a cluster/)
    expect(store.prune(testVm, 0)).toBe(false)
    expect(store.points(testVm).map(({ damaged }) => damaged)).toEqual([true])
    expect(store.heal(testVm)).toBe(1)
    pruneAll()
    expect(verifyPoints(store, history, scratch.path)).toEqual([4])
    expect(store.verify({ vmId: testVm, percent: 100, seed: 1 }).damagedPoints).toEqual([])
    store[Symbol.dispose]()
  })
})

/** An entry of the first L2 table that names no cluster any more. */
function rotFirstTable(path: string): void {
  const file = readFileSync(path)
  const placeAt = (at: number) => Number(file.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n)
  let entry = placeAt(placeAt(40))
  while (placeAt(entry) === 0) entry += 8
  file.writeBigUInt64BE(file.readBigUInt64BE(entry) ^ 0x100n, entry)
  writeFileSync(path, file)
}

interface Work {
  readBytes: number
  writtenBytes: number
  unsyncedBytes: number
  longestSyncBytes: number
}

/** Real files that count. */
function countingFiles(): ReplicaFiles & { take(): Work } {
  let work: Work = { readBytes: 0, writtenBytes: 0, unsyncedBytes: 0, longestSyncBytes: 0 }
  const counting = (file: BlockFile): BlockFile => ({
    read(target, offsetBytes) {
      work.readBytes += target.length
      file.read(target, offsetBytes)
    },
    write(buffers, offsetBytes) {
      const bytes = buffers.reduce((sum, buffer) => sum + buffer.length, 0)
      work.writtenBytes += bytes
      work.unsyncedBytes += bytes
      file.write(buffers, offsetBytes)
    },
    sync() {
      work.longestSyncBytes = Math.max(work.longestSyncBytes, work.unsyncedBytes)
      work.unsyncedBytes = 0
      file.sync()
    },
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    sizeBytes: () => file.sizeBytes(),
    punchHole: (offsetBytes, lengthBytes) => file.punchHole(offsetBytes, lengthBytes),
    close: () => file.close(),
  })
  return {
    ...nodeFiles,
    open: (path, mode) => counting(nodeFiles.open(path, mode)),
    take() {
      const taken = work
      work = { ...taken, readBytes: 0, writtenBytes: 0, longestSyncBytes: 0 }
      return taken
    },
  }
}

it('40 points of a disk of 1 GiB go down to 1 in slices of bounded work, while another VM goes on', () => {
  const files = countingFiles()
  // Time never ends a slice here: the other bounds have to.
  const store = open(files, { ...systemClock, monotonicMs: () => 0 })
  const rng = seededRng(40)
  const vm = new ModelVm(rng, { 'disk-0': 2 ** 30 })
  const other = new ModelVm(rng, { 'disk-0': 2 ** 24 })
  const otherVm = 'vm-2' as VmId
  const policy = replicationPolicy.parse({ retentionPoints: 15, retentionIntervalSeconds: 0 })
  const disks = [{ diskId: 'disk-0' as DiskId, sizeBytes: 2 ** 24 }]
  store.prepare({ vmId: otherVm, epoch: 1, sourceServerId: testServer, policy, disks })
  prepareReplica(store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
  const changed = new Set<number>()
  let copied = 0
  for (let point = 0; point < 40; point++) {
    vm.scribble(60, 600)
    const delta = vm.capture()
    replicate(store, delta)
    const blocks = delta.batches.flatMap(({ blockIndexes }) => blockIndexes)
    if (point > 0) for (const block of blocks) changed.add(block)
    if (point > 0) copied += blocks.length
  }
  expect(store.usage(testVm).mergeDebtBytes).toBeGreaterThan(0)

  let slices = 0
  let mergedBytes = 0
  for (let more = true; more; ) {
    files.take()
    more = store.prune(testVm, 0)
    const work = files.take()
    slices++
    mergedBytes += work.writtenBytes
    // A step reads one table of each layer or copies 1 MiB; the copies are bounded by themselves.
    expect(work.writtenBytes).toBeLessThanOrEqual(MERGE_SLICE_BYTES + 2 ** 20 + 64 * CLUSTER_BYTES)
    expect(work.readBytes).toBeLessThanOrEqual(
      MERGE_SLICE_BYTES + 2 ** 20 + MERGE_SLICE_STEPS * CLUSTER_BYTES,
    )
    expect(work.longestSyncBytes).toBeLessThanOrEqual(MERGE_SLICE_BYTES + 2 ** 20 + 64 * CLUSTER_BYTES)
    other.scribble(3)
    const delta = other.capture()
    expect(replicate(store, { ...delta, header: { ...delta.header, vmId: otherVm } })).toEqual({
      kind: 'sealed',
    })
  }
  expect(store.points(testVm)).toHaveLength(1)
  expect(slices).toBeGreaterThan(4)
  expect(store.points(otherVm)).toHaveLength(slices)
  // Most blocks were written several times over, and copied once, or twice where one merge did not take all layers.
  expect(copied).toBeGreaterThan(2 * changed.size)
  expect(mergedBytes / CLUSTER_BYTES).toBeLessThan(copied * 0.75)
  store[Symbol.dispose]()
})

describe('a merge', () => {
  /** Points 1 to 3, of which nothing but the newest is to be kept. */
  function threePoints() {
    const vm = new ModelVm(seededRng(9), { 'disk-0': 30 * CLUSTER_BYTES })
    const store = open(nodeFiles)
    prepareReplica(store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
    for (let i = 0; i < 3; i++) {
      vm.scribble(10)
      replicate(store, vm.capture())
    }
    return store
  }
  const layer = (seq: number) => join(dir.path, 'replicas', testVm, 'disk-0', `1-00000000000${seq}.qcow2`)
  const flip = (seq: number, at: number) => {
    const bytes = readFileSync(layer(seq))
    bytes[at] = (bytes[at] ?? 0) ^ 1
    writeFileSync(layer(seq), bytes)
  }

  it('does not begin with a point that was pinned while it looked at the layers', () => {
    const store = threePoints()
    expect(store.prune(testVm, 0)).toBe(true)
    store.pin(testVm, { epoch: 1, seq: 2 }, true)
    while (store.prune(testVm, 0));
    expect(store.points(testVm).map(({ seq }) => seq)).toEqual([2, 3])
    store[Symbol.dispose]()
  })

  it.each([
    ['a block becomes zeros', 7],
    ['a block lies far behind the end of the file', 2],
    ['a block lies where another one does', 5],
  ])('does not begin with a layer whose tables rotted, it is healed first: %s', (_what, byteOfEntry) => {
    const store = threePoints()
    const l2Offset = Number(readFileSync(layer(2)).readBigUInt64BE(40))
    const l2 = Number(readFileSync(layer(2)).readBigUInt64BE(l2Offset) & 0x00fffffffffffe00n)
    const entry = readFileSync(layer(2)).subarray(l2).indexOf(0x80)
    flip(2, l2 + entry + byteOfEntry)
    expect(() => {
      while (store.prune(testVm, 0));
    }).toThrow(expect.objectContaining({ code: 'layer-damaged' }))
    expect(store.prune(testVm, 0)).toBe(false)
    expect(store.points(testVm).map(({ seq, damaged }) => [seq, damaged])).toEqual([
      [1, false],
      [2, true],
      [3, true],
    ])
    store[Symbol.dispose]()
  })

  it('copies a rotten block as it is, and it stays known as damaged', () => {
    const store = threePoints()
    flip(3, CLUSTER_BYTES + 100)
    while (store.prune(testVm, 0));
    expect(store.points(testVm).map(({ seq, damaged }) => [seq, damaged])).toEqual([[3, true]])
    const overlayId = 'ov' as OverlayId
    const request = { vmId: testVm, overlayId, point: null, purpose: 'failover', format: 'raw' } as const
    expect(() => store.createOverlay(request)).toThrow(expect.objectContaining({ code: 'point-damaged' }))
    store[Symbol.dispose]()
  })
})
