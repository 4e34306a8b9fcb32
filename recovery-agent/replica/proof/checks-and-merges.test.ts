/**
 * Everything that reads layers in steps beside everything that changes them in steps, by chance, on real files: nothing
 * has rotted here, so whatever is called damaged is a false alarm, and at the end every point is the truth.
 */
import { existsSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { type LogFields, silentLog } from '#shared/log.ts'
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { nodeFiles, type ReplicaFiles } from '../files.ts'
import { openReplicaStore } from '../store.ts'
import { type ModelDelta, ModelVm, prepareReplica, replicate, testVm } from '../testing/model-vm.ts'
import { testFolder } from '../testing/test-folder.ts'
import { compareWithModel, verifyPoints } from '../testing/truth.ts'

const disk0 = 'disk-0' as DiskId
const disk1 = 'disk-1' as DiskId
const BLOCK = 65_536

let dir: ReturnType<typeof testFolder>
let scratch: ReturnType<typeof testFolder>

beforeEach(() => {
  dir = testFolder('checks')
  scratch = testFolder('checks-truth')
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

const alarms = new Set([
  'replica.damage-found',
  'replica.rot-found-by-merge',
  'replica.delta-diverged',
  'replica.layer-rebuilt',
  'replica.file-put-back',
])

/** What was written is what lies there, and the memory it came from did not change meanwhile. */
const distrustful: ReplicaFiles = {
  ...nodeFiles,
  open(path, mode): BlockFile {
    const file = nodeFiles.open(path, mode)
    return {
      read: (target, offsetBytes) => file.read(target, offsetBytes),
      write(buffers, offsetBytes) {
        const given = Buffer.concat(buffers)
        file.write(buffers, offsetBytes)
        const again = Buffer.alloc(given.length)
        file.read(again, offsetBytes)
        if (!again.equals(given)) throw new Error(`${path} does not hold what was written at ${offsetBytes}`)
        if (!Buffer.concat(buffers).equals(given)) throw new Error(`memory written to ${path} changed`)
      },
      sync: () => file.sync(),
      truncate: (sizeBytes) => file.truncate(sizeBytes),
      sizeBytes: () => file.sizeBytes(),
      punchHole: (offsetBytes, lengthBytes) => file.punchHole(offsetBytes, lengthBytes),
      close: () => file.close(),
    }
  },
}

class Crowd {
  readonly history = new Map<number, ModelDelta>()
  readonly heard: { event: string; fields: LogFields | undefined }[] = []
  readonly #vm: ModelVm
  readonly #rng: Rng
  store: ReturnType<typeof openReplicaStore>
  #verifying: Generator<void, unknown> | undefined
  #overlaying: { steps: Generator<void, unknown>; overlayId: OverlayId; seq: number } | undefined
  #overlays = 0

  constructor(seed: number) {
    this.#rng = seededRng(seed)
    this.#vm = new ModelVm(this.#rng, { [disk0]: 300 * BLOCK + 512, [disk1]: 40 * BLOCK })
    this.store = this.#open()
    const retentionPoints = intBelow(this.#rng, 3)
    prepareReplica(this.store, this.#vm, { retentionPoints, retentionIntervalSeconds: 0 })
    this.#vm.scribble(200)
    this.#deliver()
  }

  #open() {
    const hear = (event: string, fields?: LogFields) => {
      if (alarms.has(event)) this.heard.push({ event, fields })
    }
    const log = { ...silentLog, info: hear, warn: hear, error: hear, with: () => log }
    const store = openReplicaStore({
      dir: dir.path,
      clock: hastyClock(),
      log,
      crashPoint: noCrash,
      files: distrustful,
    })
    store.recover()
    return store
  }

  #deliver(): void {
    const delta = this.#vm.capture()
    this.history.set(delta.header.seq, delta)
    expect(replicate(this.store, delta)).toEqual({ kind: 'sealed' })
  }

  next(): void {
    switch (intBelow(this.#rng, 14)) {
      case 0:
      case 1:
        this.#vm.scribble(1 + intBelow(this.#rng, 60))
        this.#deliver()
        return
      case 2:
      case 3:
      case 4:
        for (let steps = intBelow(this.#rng, 8); steps >= 0; steps--) this.store.prune(testVm, 0)
        return
      case 5:
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
        for (let steps = intBelow(this.#rng, 16); steps >= 0; steps--) this.store.scrub(testVm, 0)
        return
      case 11:
        this.#verifying ??= this.store.steps.verify({ vmId: testVm, percent: 100, seed: 1 })
        for (let steps = intBelow(this.#rng, 300); steps >= 0; steps--)
          if (this.#verifying?.next().done) this.#verifying = undefined
        return
      case 12:
        this.overlay(intBelow(this.#rng, 300))
        return
      default:
        if (intBelow(this.#rng, 8) === 0) this.#restart()
    }
  }

  overlay(steps: number): void {
    const points = this.store.points(testVm)
    const point = points[intBelow(this.#rng, points.length)]
    if (!this.#overlaying && point) {
      const overlayId = `ov-${++this.#overlays}` as OverlayId
      const { epoch, seq } = point
      const request = {
        vmId: testVm,
        overlayId,
        point: { epoch, seq },
        purpose: 'test',
        format: 'raw',
      } as const
      this.#overlaying = { steps: this.store.steps.createOverlay(request), overlayId, seq }
    }
    const overlaying = this.#overlaying
    for (let step = 0; overlaying && step <= steps; step++) {
      const { done, value } = overlaying.steps.next()
      if (!done) continue
      this.#overlaying = undefined
      const { disks } = value as ReturnType<typeof this.store.createOverlay>
      for (const disk of this.history.get(overlaying.seq)?.disks ?? []) {
        const path = disks.find(({ diskId }) => diskId === disk.diskId)?.path ?? ''
        if (hasTool('qemu-img')) compareWithModel(path, 'raw', disk, scratch.path)
      }
      this.store.removeOverlay(testVm, overlaying.overlayId)
      return
    }
  }

  #restart(): void {
    this.#verifying?.return(undefined)
    this.#overlaying?.steps.return(undefined)
    const leftOver = this.#overlaying
    this.#verifying = undefined
    this.#overlaying = undefined
    this.store[Symbol.dispose]()
    this.store = this.#open()
    if (leftOver) this.store.removeOverlay(testVm, leftOver.overlayId)
  }

  settle(): void {
    while (this.#overlaying) this.overlay(1000)
    while (this.store.prune(testVm, 0));
  }
}

describe('a check that began before a merge renamed the file', () => {
  it.each([
    ['before the merge was begun', false],
    ['while it went on', true],
  ])('looks again, wherever it was %s', { timeout: 60_000 }, (_, isMarked) => {
    for (let before = 0; before < 60; before++) {
      using folder = testFolder('checks-rename')
      const heard: unknown[] = []
      const warn = (event: string, fields?: LogFields) => {
        if (alarms.has(event)) heard.push([before, event, fields])
      }
      const log = { ...silentLog, warn, with: () => log }
      const clock = hastyClock()
      using store = openReplicaStore({ dir: folder.path, clock, log, crashPoint: noCrash })
      const vm = new ModelVm(seededRng(3), { [disk0]: 20 * BLOCK, [disk1]: 20 * BLOCK })
      prepareReplica(store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
      for (const blockIndexes of [
        [1, 3, 5, 7],
        [3, 9],
      ]) {
        for (const diskId of [disk0, disk1])
          for (const blockIndex of blockIndexes) vm.set(diskId, blockIndex, vm.block())
        expect(replicate(store, vm.capture())).toEqual({ kind: 'sealed' })
      }
      const lower = store.layerPath(testVm, { epoch: 1, seq: 1 }, disk0)
      while (isMarked && store.points(testVm).length > 1) store.prune(testVm, 0)
      for (let step = 0; step < before; step++) store.scrub(testVm, 0)
      while (existsSync(lower)) expect(store.prune(testVm, 0)).toBe(true)
      while (!store.scrub(testVm, 0).passEnded);
      while (store.prune(testVm, 0));
      expect(heard).toEqual([])
      expect(store.points(testVm)).toMatchObject([{ seq: 2, damaged: false }])
    }
  })
})

const runs = Number(process.env['HOTSITE_RUNS'] ?? 4)
const firstSeed = Number(process.env['HOTSITE_SEED'] ?? 1)

describe('checks beside merges, deltas, overlays and restarts', () => {
  it.each(Array.from({ length: runs }, (_, i) => firstSeed + i))('raise no false alarm (seed %i)', (seed) => {
    const crowd = new Crowd(seed)
    for (let move = 0; move < 120; move++) {
      crowd.next()
      expect(crowd.heard, `move ${move}`).toEqual([])
    }
    crowd.settle()
    const { disks, damagedPoints } = crowd.store.verify({ vmId: testVm, percent: 100, seed })
    expect(damagedPoints).toEqual([])
    expect(disks.map(({ badBlocks }) => badBlocks)).toEqual([0, 0])
    if (hasTool('qemu-img')) verifyPoints(crowd.store, crowd.history, scratch.path)
    crowd.store[Symbol.dispose]()
  })
})
