import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { hasTool } from '#shared/testing/tools.ts'
import type { BlockFile } from '../block-file.ts'
import { ABSENT, type ClusterMap, ZERO } from './cluster-map.ts'
import { CLUSTER_BYTES, decodeHeader, encodeHeader } from './header.ts'
import { readLayer, readLayerTables } from './layer-reader.ts'
import { LayerWriter } from './layer-writer.ts'
import { type MergeStep, mergeLayers } from './merge.ts'
import { MAX_RUN_CLUSTERS } from './merge-plan.ts'
import { ClusterUse, coverWithRefcounts, decodeL2, encodeL2, REFCOUNTS_PER_BLOCK } from './tables.ts'
import { memoryFile } from './testing/memory-file.ts'

let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-qcow2-'))
})

afterEach(() => rmSync(dir, { recursive: true, force: true }))

function block(value: number): Buffer {
  return Buffer.alloc(CLUSTER_BYTES, value)
}

describe('the header', () => {
  it('is read as it was written, for any name and size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 46 }),
        fc.option(fc.stringMatching(/^[a-z0-9./-]{1,200}$/)),
        (sizeBytes, backingName) => {
          const header = {
            sizeBytes,
            backingName,
            l1Offset: 3 * CLUSTER_BYTES,
            l1Entries: 7,
            refcountTableOffset: 5 * CLUSTER_BYTES,
            refcountTableClusters: 1,
          }
          const cluster = Buffer.alloc(CLUSTER_BYTES)
          encodeHeader(header).copy(cluster)
          expect(decodeHeader(cluster, 'x')).toEqual(header)
        },
      ),
    )
  })

  it.each([
    ['magic', 0, 1, 'no qcow2 magic'],
    ['version', 7, 2, 'qcow2 version 2'],
    ['cluster size', 23, 12, 'clusters are not 64 KiB'],
    ['encryption', 35, 1, 'encrypted'],
    ['snapshots', 63, 1, 'internal snapshots'],
    ['features', 79, 1, 'incompatible features'],
    ['refcount width', 99, 3, 'refcounts are not 16 bit'],
  ])('is refused with another %s', (_, at, value, why) => {
    const cluster = Buffer.alloc(CLUSTER_BYTES)
    encodeHeader({
      sizeBytes: 512,
      backingName: null,
      l1Offset: CLUSTER_BYTES,
      l1Entries: 1,
      refcountTableOffset: CLUSTER_BYTES,
      refcountTableClusters: 1,
    }).copy(cluster)
    cluster[at] = value
    expect(() => decodeHeader(cluster, 'x')).toThrow(expect.objectContaining({ code: 'layer-damaged' }))
    expect(() => decodeHeader(cluster, 'x')).toThrow(why)
  })
})

describe('tables', () => {
  it('carry every cluster number up to 128 TiB, zeros and nothing', () => {
    const table = new Int32Array(8192)
    table.set([ABSENT, ZERO, 1, 65_535, 65_536, 2 ** 31 - 1])
    expect(decodeL2(encodeL2(table), 'x')).toEqual(table)
  })

  it('refuse compressed clusters and offsets between clusters', () => {
    for (const [at, value] of [
      [0, 0x40],
      [6, 1],
    ] as const) {
      const bytes = Buffer.alloc(CLUSTER_BYTES)
      bytes[at] = value
      expect(() => decodeL2(bytes, 'x')).toThrow(expect.objectContaining({ code: 'layer-damaged' }))
    }
  })

  it('hand out free clusters before growing, and never one twice', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(30), { maxLength: 40 }),
        fc.integer({ min: 1, max: 30 }),
        (taken, wanted) => {
          const use = new ClusterUse(1)
          use.add(0)
          for (const cluster of taken) use.add(cluster)
          const before = new Set([0, ...taken])
          const given = Array.from({ length: wanted }, () => use.allocate())
          expect(new Set(given).size).toBe(wanted)
          expect(given.some((cluster) => before.has(cluster))).toBe(false)
          expect(use.end).toBe(Math.max(Math.max(...before) + 1, Math.max(...given) + 1))
        },
      ),
    )
  })

  it('cover themselves with refcounts when a block of theirs is the first of a new one', () => {
    const use = new ClusterUse()
    for (let cluster = 0; cluster <= REFCOUNTS_PER_BLOCK; cluster++) use.add(cluster)
    expect(coverWithRefcounts(use, [1])).toEqual([1, REFCOUNTS_PER_BLOCK + 1])
    expect(use.end).toBe(REFCOUNTS_PER_BLOCK + 2)
  })
})

describe('a layer writer', () => {
  it('overwrites what nobody recorded and moves what somebody did', () => {
    const file = memoryFile()
    const writer = new LayerWriter(file)
    const [first] = writer.put([5], [block(1)])
    expect(writer.put([5], [block(2)])).toEqual([first])
    writer.markDurable()
    const [second] = writer.put([5], [block(3)])
    expect(second).not.toBe(first)
    // The recorded cluster holds what was recorded until the next record.
    expect(file.bytes().subarray((first ?? 0) * CLUSTER_BYTES)[0]).toBe(2)
    expect(writer.put([6], [block(4)])).not.toEqual([first])
    writer.markDurable()
    expect(writer.put([7], [block(5)])).toEqual([first])
  })

  it('is no qcow2 file before it is sealed', () => {
    const file = memoryFile()
    const writer = new LayerWriter(file)
    writer.put([0, 1, 9000], [block(1), null, block(2)])
    expect(() => readLayer(file, 'x')).toThrow('no qcow2 magic')
    writer.seal({ sizeBytes: 10_000 * CLUSTER_BYTES, backingName: 'below.qcow2' })
    const layer = readLayer(file, 'x')
    expect([...layer.map.entries()].map(([index, state]) => [index, state > 0])).toEqual([
      [0, true],
      [1, false],
      [9000, true],
    ])
  })
})

/** A layer over `backingName` from what each block shall be: a byte, zeros, or nothing. */
function layerOf(content: ReadonlyMap<number, number>, blocks: number, backingName: string | null) {
  const file = memoryFile()
  const writer = new LayerWriter(file)
  for (const [index, value] of content) writer.put([index], [value === 0 ? null : block(value)])
  writer.seal({ sizeBytes: blocks * CLUSTER_BYTES, backingName })
  return file
}

function statesOf(map: ClusterMap, bytes: Buffer): Map<number, number> {
  return new Map(
    [...map.entries()].map(([index, state]) => [index, state > 0 ? (bytes[state * CLUSTER_BYTES] ?? -1) : 0]),
  )
}

/** What qemu-img says of the file, by its documented exit codes. */
function check(bytes: Buffer): string {
  const path = join(dir, 'merged.qcow2')
  writeFileSync(path, bytes)
  const { status } = spawnSync('qemu-img', ['check', '-f', 'qcow2', path])
  return { 0: 'clean', 2: 'errors', 3: 'leaks' }[status ?? -1] ?? `failed with ${status}`
}

const content = fc.array(fc.tuple(fc.nat(40), fc.nat(4)), { maxLength: 15 }).map((pairs) => new Map(pairs))

/** Newest first, into `lower`. Answers what the merge says of the result and how much it copied. */
function merge(lower: BlockFile, uppers: readonly BlockFile[], step: (step: MergeStep) => void = () => {}) {
  const steps = mergeLayers({
    lower: readLayerTables(lower, 'lower'),
    uppers: uppers.map((file) => readLayerTables(file, 'upper')),
    step,
  })
  let copiedBytes = 0
  for (;;) {
    const { done, value } = steps.next()
    if (done) return { ...value, copiedBlocks: copiedBytes / CLUSTER_BYTES }
    expect(value.copiedBytes).toBeLessThanOrEqual(MAX_RUN_CLUSTERS * CLUSTER_BYTES)
    copiedBytes += value.copiedBytes
  }
}

describe.skipIf(!hasTool('qemu-img'))('merging', () => {
  it('leaves one layer that reads like all of them, without errors or leaks, stopped at any step and run again', () => {
    writeFileSync(join(dir, 'base.qcow2'), layerOf(new Map(), 41, null).bytes())
    fc.assert(
      fc.property(
        content,
        content,
        content,
        fc.integer({ min: 41, max: 20_000 }),
        fc.option(fc.nat(8)),
        fc.boolean(),
        (below, above, third, blocks, stopAfter, atOnce) => {
          const lowerFile = layerOf(below, 41, 'base.qcow2')
          const aboveFile = layerOf(above, blocks, 'lower.qcow2')
          const thirdFile = layerOf(third, blocks + 5, 'upper.qcow2')
          for (const uppers of atOnce ? [[thirdFile, aboveFile]] : [[aboveFile], [thirdFile]]) {
            let left = stopAfter ?? -1
            const stop = () => {
              if (left-- === 0) throw new Error('stopped')
            }
            if (stopAfter !== null) {
              expect(() => merge(lowerFile, uppers, stop)).toThrow('stopped')
              expect(check(lowerFile.bytes())).toMatch(/clean|leaks/)
            }
            const { blockCount } = merge(lowerFile, uppers)
            expect(blockCount).toBe([...readLayer(lowerFile, 'l').map.entries()].length)
          }
          const merged = readLayer(lowerFile, 'l')
          expect(merged.header.sizeBytes).toBe((blocks + 5) * CLUSTER_BYTES)
          expect(statesOf(merged.map, lowerFile.bytes())).toEqual(
            new Map([...new Map([...below, ...above, ...third])].sort(([a], [b]) => a - b)),
          )
          expect(check(lowerFile.bytes())).toBe('clean')
        },
      ),
      { numRuns: 30 },
    )
  })

  it('copies of each block the newest version only', () => {
    const all = (value: number) => new Map(Array.from({ length: 30 }, (_, i) => [i, value] as const))
    const lowerFile = layerOf(all(1), 64, null)
    const uppers = [5, 4, 3, 2].map((value) => layerOf(all(value), 64, 'l'))
    expect(merge(lowerFile, uppers)).toEqual({ blockCount: 30, copiedBlocks: 30 })
    expect(statesOf(readLayer(lowerFile, 'l').map, lowerFile.bytes())).toEqual(all(5))
    expect(check(lowerFile.bytes())).toBe('clean')
  })

  it('goes through many tables in windows, on a disk that grows past one L1 cluster, and shrinks again', () => {
    const spread = 8192
    const blocks = 8193 * spread
    const scattered = (value: number) =>
      new Map([
        ...Array.from({ length: 70 }, (_, i) => [i * spread + 7, value] as const),
        [blocks - 1, value],
      ])
    const lowerFile = layerOf(new Map([[3, 1]]), 41, null)
    merge(lowerFile, [layerOf(scattered(2), blocks, 'l')])
    expect(statesOf(readLayer(lowerFile, 'l').map, lowerFile.bytes())).toEqual(
      new Map([[3, 1], ...scattered(2)].sort(([a = 0], [b = 0]) => a - b) as [number, number][]),
    )
    expect(check(lowerFile.bytes())).toBe('clean')
    merge(lowerFile, [layerOf(new Map([[5, 3]]), 40 * spread + 8, 'l')])
    const kept = [...scattered(2)].filter(([index]) => index < 40 * spread + 8)
    expect(statesOf(readLayer(lowerFile, 'l').map, lowerFile.bytes())).toEqual(
      new Map([[3, 1], [5, 3], ...kept] as [number, number][]),
    )
    expect(check(lowerFile.bytes())).toBe('clean')
  })

  it('reuses what an earlier merge freed, so that a layer merged for ever does not grow for ever', () => {
    const blocks = 64
    const lowerFile = layerOf(new Map([[0, 1]]), blocks, null)
    for (let round = 0; round < 30; round++) {
      const upper = new Map(Array.from({ length: 20 }, (_, i) => [i, round % 2 === 0 ? 0 : 3] as const))
      merge(lowerFile, [layerOf(upper, blocks, 'l')])
    }
    expect(lowerFile.sizeBytes() / CLUSTER_BYTES).toBeLessThan(50)
    expect(check(lowerFile.bytes())).toBe('clean')
  })
})
