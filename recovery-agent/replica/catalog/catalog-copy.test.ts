/** replica.db is lost, damaged or old: what lies beside the layers brings the replicas back. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { systemClock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import type { DiskId, OverlayId, VmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { intBelow, seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { replicaCrashPoints } from '../crash-points.ts'
import { openReplicaStore } from '../store.ts'
import { lifeOf } from '../testing/life.ts'
import { losingFiles } from '../testing/losing-files.ts'
import { ModelVm, prepareReplica, replicate, testServer, testVm } from '../testing/model-vm.ts'
import { testFolder } from '../testing/test-folder.ts'
import { comparePoints, verifyPoints } from '../testing/truth.ts'

let dir: ReturnType<typeof testFolder>
let scratch: ReturnType<typeof testFolder>

beforeEach(() => {
  dir = testFolder('copy')
  scratch = testFolder('copy-truth')
})

afterEach(() => {
  dir[Symbol.dispose]()
  scratch[Symbol.dispose]()
})

const copyPath = () => join(dir.path, 'replicas', testVm, '.catalog')

function open(crashPoint: CrashPoint = noCrash, files?: ReturnType<typeof losingFiles>) {
  return openReplicaStore({
    dir: dir.path,
    clock: systemClock,
    log: silentLog,
    crashPoint,
    ...(files ? { files } : {}),
  })
}

function loseDatabase(): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(join(dir.path, `replica.db${suffix}`), { force: true })
}

/** A chain of `points` points, all kept. */
function filled(points: number) {
  const vm = new ModelVm(seededRng(7), { 'disk-0': 24 * 65_536 + 512, 'disk-1': 6 * 65_536 })
  const store = open()
  store.recover()
  prepareReplica(store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
  const history = new Map(
    Array.from({ length: points }, () => {
      vm.scribble(6)
      const delta = vm.capture()
      replicate(store, delta)
      return [delta.header.seq, delta] as const
    }),
  )
  return { vm, store, history }
}

describe.skipIf(!hasTool('qemu-img'))('a replica store that lost its database', () => {
  it('has every point, pin, hint, overlay and the epoch again, and the next delta stands on the newest', () => {
    const { vm, store, history } = filled(4)
    store.pin(testVm, { epoch: 1, seq: 2 }, true)
    store.createOverlay({
      vmId: testVm,
      overlayId: 'ov-1' as OverlayId,
      point: { epoch: 1, seq: 3 },
      purpose: 'test',
      format: 'qcow2',
    })
    const suspect = vm.capture()
    const outcome = replicate(store, { ...suspect, manifest: { ...suspect.manifest, suspect: 'a jump' } })
    expect(outcome.kind).toBe('sealed')
    history.set(5, suspect)
    const before = store.points(testVm)
    const state = store.get(testVm)
    const tree = () =>
      store.treeNodes({ vmId: testVm, diskId: 'disk-0' as DiskId, level: 1, first: 0, count: 1 })
    const nodes = tree()
    store[Symbol.dispose]()
    loseDatabase()

    const again = open()
    expect(again.get(testVm)).toBeUndefined()
    again.recover()
    expect(again.points(testVm)).toEqual(before)
    expect(again.get(testVm)).toEqual(state)
    const query = { vmId: testVm, diskId: 'disk-0' as DiskId, level: 1 as const, first: 0, count: 1 }
    expect(again.treeNodes(query)).toEqual(nodes)
    expect(() => again.remove(testVm)).toThrow(expect.objectContaining({ code: 'point-in-use' }))
    vm.scribble(4)
    const next = vm.capture()
    history.set(6, next)
    expect(replicate(again, next)).toEqual({ kind: 'sealed' })
    expect(verifyPoints(again, history, scratch.path)).toEqual([1, 2, 3, 4, 5, 6])
    again.pin(testVm, { epoch: 1, seq: 5 }, false)
    expect(again.points(testVm).map((point) => point.suspect)).toEqual([null, null, null, null, null, null])
    again[Symbol.dispose]()
  })

  it('refuses the writers of the epoch that was over before', () => {
    const { vm, store } = filled(1)
    store.raiseEpoch(testVm, 7)
    loseDatabase()
    const again = open()
    again.recover()
    expect(again.get(testVm)?.epoch).toBe(7)
    expect(() => again.begin(vm.capture().header)).toThrow(expect.objectContaining({ code: 'epoch-stale' }))
    again[Symbol.dispose]()
    store[Symbol.dispose]()
  })

  it('does not go back to the epoch of a database that is older than the copy', () => {
    const { store } = filled(1)
    store[Symbol.dispose]()
    const old = readFileSync(join(dir.path, 'replica.db'))
    const newer = open()
    newer.recover()
    newer.raiseEpoch(testVm, 5)
    newer[Symbol.dispose]()
    writeFileSync(join(dir.path, 'replica.db'), old)
    const again = open()
    again.recover()
    expect(again.get(testVm)?.epoch).toBe(5)
    again[Symbol.dispose]()
  })

  it('knows nothing of a disk that came after the copy: its blocks have to come again', () => {
    const { vm, store } = filled(2)
    const olderCopy = readFileSync(copyPath())
    const diskId = 'disk-2' as DiskId
    vm.addDisk(diskId, 4 * 65_536)
    vm.set(diskId, 2, Buffer.alloc(65_536, 'hotsite'))
    replicate(store, vm.capture())
    const leaves = (of: typeof store) =>
      of.treeNodes({ vmId: testVm, diskId, level: 0 as const, first: 0, count: 4 })
    const nothing = Buffer.alloc(4 * 32)
    expect(leaves(store)).not.toEqual(nothing)
    store[Symbol.dispose]()
    writeFileSync(copyPath(), olderCopy)
    const db = new Database(join(dir.path, 'replica.db'))
    db.exec("UPDATE replicas SET source_server_id = 'somebody'")
    db.close()

    const again = open()
    again.recover()
    expect(again.points(testVm).map(({ seq }) => seq)).toEqual([1, 2])
    expect(leaves(again)).toEqual(nothing)
    again[Symbol.dispose]()
  })

  it('believes no copy with a flipped bit, and takes nothing of that replica away', () => {
    const { store } = filled(3)
    store[Symbol.dispose]()
    const whole = readFileSync(copyPath())
    const layer = join(dir.path, 'replicas', testVm, 'disk-0', '1-000000000002.qcow2')
    const rng = seededRng(3)
    for (let i = 0; i < 20; i++) {
      const bytes = Buffer.from(whole)
      const at = intBelow(rng, bytes.length)
      bytes[at] = (bytes[at] ?? 0) ^ (1 << intBelow(rng, 8))
      writeFileSync(copyPath(), i % 5 === 4 ? whole.subarray(0, at) : bytes)
      loseDatabase()
      const again = open()
      again.recover()
      expect(again.list()).toEqual([])
      expect(existsSync(layer)).toBe(true)
      again[Symbol.dispose]()
    }
    writeFileSync(copyPath(), whole)
    const again = open()
    again.recover()
    expect(again.points(testVm)).toHaveLength(3)
    again[Symbol.dispose]()
  })

  it('is not served a point whose layers rotted meanwhile', () => {
    const { store } = filled(3)
    store[Symbol.dispose]()
    loseDatabase()
    const layer = join(dir.path, 'replicas', testVm, 'disk-0', '1-000000000003.qcow2')
    const bytes = readFileSync(layer)
    bytes[65_536 + 5] = (bytes[65_536 + 5] ?? 0) ^ 1
    writeFileSync(layer, bytes)
    const again = open()
    again.recover()
    const overlay = (seq: number, format: 'raw' | 'qcow2') =>
      again.createOverlay({
        vmId: testVm,
        overlayId: `ov-${seq}-${format}` as OverlayId,
        point: { epoch: 1, seq },
        purpose: 'failover',
        format,
      })
    for (const format of ['raw', 'qcow2'] as const) {
      expect(() => overlay(3, format)).toThrow()
      expect(defined(overlay(2, format).disks[0], 'disk').path).toContain('ov-2')
    }
    again[Symbol.dispose]()
  })

  it('copies no damaged rows, and a replica that has some does not keep the others from being copied', () => {
    const { store } = filled(2)
    const other = 'vm-2' as VmId
    const policy = replicationPolicy.parse({})
    store.prepare({ vmId: other, epoch: 1, sourceServerId: testServer, policy, disks: [] })
    store[Symbol.dispose]()
    const otherCopy = join(dir.path, 'replicas', other, '.catalog')
    for (const path of [copyPath(), otherCopy]) rmSync(path)
    const db = new Database(join(dir.path, 'replica.db'))
    db.exec(`UPDATE points SET captured_at_ms = 1 WHERE vm_id = '${testVm}'`)
    db.close()
    const again = open()
    again.recover()
    expect([existsSync(copyPath()), existsSync(otherCopy)]).toEqual([false, true])
    expect(again.raiseEpoch(other, 3).epoch).toBe(3)
    again[Symbol.dispose]()
  })

  class Crash extends Error {}
  const seed = 7
  const names = replicaCrashPoints.filter((name) => /seal|prune|overlay|copy|discard/.test(name))

  it.each(names)(
    'after it died at %s: every point that was acknowledged is there, and life goes on',
    (name) => {
      const files = losingFiles()
      const { steps, history } = lifeOf(seed)
      // An unsealed delta is dropped once in a life.
      let left = name.startsWith('replica.discard') ? 1 : 2
      let store = open((passed) => {
        if (passed === name && --left === 0) throw new Crash(name)
      }, files)
      let acked = 0
      store.recover()
      for (let i = 0; i < steps.length; i++) {
        try {
          steps[i]?.(store)
          acked = Math.max(acked, store.get(testVm)?.newestSeq ?? 0)
        } catch (error) {
          if (!(error instanceof Crash)) throw error
          store[Symbol.dispose]()
          files.losePower(seededRng(i))
          loseDatabase()
          store = open(noCrash, files)
          store.recover()
          expect(store.get(testVm)?.newestSeq ?? 0).toBeGreaterThanOrEqual(acked)
          comparePoints(store, history, scratch.path)
          // Until merges are over and the layers were read nothing can be put below a point.
          if (store.get(testVm)) {
            while (store.prune(testVm, 0));
            store.verify({ vmId: testVm, percent: 0, seed: 0 })
          }
          i--
        }
      }
      expect(left).toBeLessThanOrEqual(0)
      expect(verifyPoints(store, history, scratch.path)).toEqual([8, 10])
      store[Symbol.dispose]()
    },
  )
})
