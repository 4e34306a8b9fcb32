import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { nodeFiles } from '../files.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'
import { compareWithModel, verifyPoints } from '../testing/truth.ts'

const disk0 = 'disk-0' as DiskId
const disk1 = 'disk-1' as DiskId
const retention = { retentionPoints: 15, retentionIntervalSeconds: 0 }

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(11), { 'disk-0': 40 * 65_536 + 512, 'disk-1': 12 * 65_536 })
  prepareReplica(fixture.store, vm, retention)
  for (let point = 0; point < 4; point++) {
    vm.scribble(6)
    fixture.deliver(vm.capture())
  }
})

afterEach(() => fixture[Symbol.dispose]())

const full = { vmId: testVm, percent: 100, seed: 1 }

function layerPath(seq: number, diskId: DiskId = disk0): string {
  return fixture.store.layerPath(testVm, { epoch: 1, seq }, diskId)
}

function allLayers(): string[] {
  return [disk0, disk1].flatMap((diskId) => [1, 2, 3, 4].map((seq) => layerPath(seq, diskId)))
}

function flip(path: string, bit: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, bit >> 3)
  byte[0] = (byte[0] ?? 0) ^ (1 << (bit & 7))
  writeSync(fd, byte, 0, 1, bit >> 3)
  closeSync(fd)
}

/** Bytes of the file that mean something. */
function usedClusters(path: string): number[] {
  const file = nodeFiles.open(path, 'read')
  const { header, l2Clusters, refcountBlocks, map } = readLayer(file, path)
  file.close()
  const tables = [0, header.l1Offset / 65_536, header.refcountTableOffset / 65_536]
  const data = Array.from(map.entries(), ([, state]) => state)
  return [...tables, ...l2Clusters, ...refcountBlocks, ...data].filter((cluster, i) => cluster > 0 || i === 0)
}

/** What a source does that still has everything. */
function healFromSource(): void {
  for (let skip = 0; ; ) {
    const wanted = fixture.store.repairWanted(testVm, { skip, maxBlocks: 16 })
    if (!wanted) return
    const had = wanted.blockIndexes.map((blockIndex) =>
      [...fixture.history.values()].flatMap((delta) => {
        const disk = delta.disks.find(({ diskId }) => diskId === wanted.diskId)
        const block = disk?.blocks.get(blockIndex)
        return block ? [block] : []
      }),
    )
    let healed = 0
    for (const [i, blocks] of had.entries())
      for (const block of new Set(blocks))
        healed += fixture.store.repair({
          vmId: testVm,
          diskId: wanted.diskId,
          blockIndexes: [defined(wanted.blockIndexes[i], 'block')],
          blocks: [block],
        })
    skip += wanted.blockIndexes.length - healed
  }
}

let overlays = 0
function served(seq: number): 'served' | string {
  const overlayId = `ov-${overlays++}` as OverlayId
  const point = { epoch: 1, seq }
  try {
    const made = fixture.store.createOverlay({
      vmId: testVm,
      overlayId,
      point,
      purpose: 'test',
      format: 'raw',
    })
    const delta = defined(fixture.history.get(seq), 'delta')
    for (const { diskId, path } of made.disks) {
      const disk = defined(
        delta.disks.find((one) => one.diskId === diskId),
        'disk',
      )
      compareWithModel(path, 'raw', disk, fixture.scratch)
    }
    return 'served'
  } catch (error) {
    if (error instanceof Error && 'code' in error) return String(error.code)
    throw error
  } finally {
    fixture.store.removeOverlay(testVm, overlayId)
  }
}

describe.skipIf(!hasTool('qemu-img'))('reading layers again', () => {
  it('finds nothing in a replica that is as it was, merged layers included', () => {
    expect(fixture.store.verify(full).damagedPoints).toEqual([])
    fixture.store.setPolicy(testVm, {
      ...defined(fixture.store.get(testVm), 'replica').policy,
      retentionPoints: 1,
    })
    while (fixture.store.prune(testVm, 0));
    const outcome = fixture.store.verify(full)
    expect(outcome.damagedPoints).toEqual([])
    for (const { checkedBlocks, totalBlocks, badBlocks } of outcome.disks) {
      expect(badBlocks).toBe(0)
      expect(checkedBlocks).toBe(totalBlocks)
    }
  })

  it('names a rotten block, refuses exactly the points that show it, and takes it back from the source', () => {
    const path = layerPath(2)
    const file = nodeFiles.open(path, 'read')
    const [blockIndex, cluster] = defined(
      [...readLayer(file, path).map.entries()].find(([, state]) => state > 0),
      'a data block',
    )
    file.close()
    flip(path, cluster * 65_536 * 8 + 77)
    // Nobody has read it again yet: creating an overlay does.
    const seen = [2, 3, 4].filter((seq) => {
      const later = [...fixture.history.values()].filter(({ header }) => header.seq > 2 && header.seq <= seq)
      return !later.some(({ batches }) =>
        batches.some((batch) => batch.diskId === disk0 && batch.blockIndexes.includes(blockIndex)),
      )
    })
    expect(seen).toContain(2)
    expect(served(2)).toBe('point-damaged')
    for (const seq of [1, 2, 3, 4]) expect(served(seq)).toBe(seen.includes(seq) ? 'point-damaged' : 'served')
    const damaged = fixture.store.points(testVm).filter((point) => point.damaged)
    expect(damaged.map(({ seq }) => seq)).toEqual(seen)
    expect(() =>
      fixture.store.createOverlay({
        vmId: testVm,
        overlayId: 'ov' as OverlayId,
        point: { epoch: 1, seq: 2 },
        purpose: 'test',
        format: 'qcow2',
      }),
    ).toThrow(new RegExp(`disk-0, layer 2, block ${blockIndex}.*newest sound point is 1/`))
    healFromSource()
    expect(fixture.store.verify(full).damagedPoints).toEqual([])
    for (const seq of [1, 2, 3, 4]) expect(served(seq)).toBe('served')
  })

  it('says of three bytes in the header of a file that one file is right again, and of no block that it was rotten', () => {
    const fd = openSync(layerPath(1), 'r+')
    writeSync(fd, Buffer.alloc(3, 0x5a), 0, 3, 20)
    closeSync(fd)
    const { disks } = fixture.store.verify(full)
    expect(
      disks.map(({ badBlocks, healedBlocks, healedLayers }) => [badBlocks, healedBlocks, healedLayers]),
    ).toEqual([
      [0, 0, 1],
      [0, 0, 0],
    ])
  })

  it('sees a table that hides a block of an older layer, and one that shows it again', () => {
    const path = layerPath(3)
    const file = nodeFiles.open(path, 'read')
    const { l2Clusters, map } = readLayer(file, path)
    file.close()
    const l2 = defined(l2Clusters[0], 'a table') * 65_536
    const absent = Array.from({ length: 40 }, (_, block) => block).find((block) => map.get(block) === 0)
    // The flag "reads as zeros", of a block the layer says nothing of: nothing else in the file depends on it.
    flip(path, (l2 + defined(absent, 'an absent block') * 8 + 7) * 8)
    expect(served(4)).toBe('point-damaged')
    expect(fixture.store.verify(full).damagedPoints).toEqual([])
    expect(verifyPoints(fixture.store, fixture.history, fixture.scratch)).toEqual([1, 2, 3, 4])
  })

  it('finds, names and heals any one change of any file; what shows it is not served until then', () => {
    const change = fc.oneof(
      fc.record({
        kind: fc.constant('flip' as const),
        layer: fc.nat(7),
        cluster: fc.nat(),
        bit: fc.nat(524_287),
      }),
      // Tables are few among the clusters.
      fc.record({ kind: fc.constant('header' as const), layer: fc.nat(7), bit: fc.nat(160 * 8) }),
      fc.record({
        kind: fc.constant('truncate' as const),
        layer: fc.nat(7),
        share: fc.double({ min: 0, max: 0.999, noNaN: true }),
      }),
      fc.record({ kind: fc.constant('remove' as const), layer: fc.nat(7) }),
      fc.record({ kind: fc.constant('swap' as const), layer: fc.nat(7), other: fc.nat(7) }),
      fc.record({ kind: fc.constant('rename' as const), layer: fc.nat(7) }),
      fc.record({ kind: fc.constant('foreign' as const), layer: fc.nat(7) }),
    )
    fc.assert(
      fc.property(change, (what) => {
        const paths = allLayers()
        const path = defined(paths[what.layer], 'layer')
        switch (what.kind) {
          case 'flip': {
            const used = usedClusters(path)
            flip(path, defined(used[what.cluster % used.length], 'cluster') * 65_536 * 8 + what.bit)
            break
          }
          case 'header':
            flip(path, what.bit)
            break
          case 'truncate':
            truncateSync(path, Math.floor(statSync(path).size * what.share))
            break
          case 'remove':
            rmSync(path)
            break
          case 'swap': {
            const other = defined(paths[what.other], 'layer')
            if (other === path) return
            renameSync(path, `${path}.x`)
            renameSync(other, path)
            renameSync(`${path}.x`, other)
            break
          }
          case 'rename':
            renameSync(path, join(path, '..', 'somebody.qcow2'))
            break
          default:
            writeFileSync(path, readFileSync(defined(paths[(what.layer + 3) % 8], 'layer')))
        }
        for (const seq of [1, 2, 3, 4]) expect(['served', 'point-damaged']).toContain(served(seq))
        const found = fixture.store.verify(full)
        const bad = found.disks.reduce(
          (sum, disk) => sum + disk.badBlocks + disk.healedBlocks + disk.healedLayers,
          0,
        )
        expect(bad).toBeGreaterThan(0)
        for (const seq of [1, 2, 3, 4]) {
          const isDamaged = found.damagedPoints.some((point) => point.seq === seq)
          expect(served(seq)).toBe(isDamaged ? 'point-damaged' : 'served')
        }
        healFromSource()
        expect(fixture.store.verify(full).damagedPoints).toEqual([])
        expect(verifyPoints(fixture.store, fixture.history, fixture.scratch)).toEqual([1, 2, 3, 4])
        for (const seq of [1, 2, 3, 4]) expect(served(seq)).toBe('served')
        fixture.reopen()
        expect(readdirSync(join(path, '..')).filter((name) => !/^\d+-\d{12}\.qcow2$/.test(name))).toEqual([])
        expect(existsSync(path)).toBe(true)
      }),
      { numRuns: 20 },
    )
  }, 300_000)
})
