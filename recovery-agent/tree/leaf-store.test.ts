import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import {
  GROUP_BYTES,
  groupCountOf,
  HASH_BYTES,
  nodeOf,
  rootOf,
  ZERO_GROUP,
  ZERO_HASH,
} from '#shared/blocks/hash-tree.ts'
import { openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { leafStoreSchema, openLeafStore, PendingTree, treePagesMigration } from './leaf-store.ts'
import type { LeafScratch } from './pending-tree.ts'

let db: Sqlite

beforeEach(() => {
  db = openSqlite({
    path: ':memory:',
    profile: 'control',
    migrations: [{ name: 'trees', sql: leafStoreSchema }, treePagesMigration],
  })
})

afterEach(() => db.close())

function scratchInMemory(kept = new Map<number, Buffer>()): LeafScratch {
  return {
    put: (index, leaves) => void kept.set(index, Buffer.from(leaves)),
    get: (index) => kept.get(index) ?? ZERO_GROUP,
  }
}

const GROUPS = 4
const sizeOf = (blocks: number) => blocks * BLOCK_BYTES

function leaf(value: number): Buffer {
  return value === 0 ? ZERO_HASH : Buffer.alloc(HASH_BYTES, value)
}

/** The tree of a plain list of leaves, built from nothing. */
function modelRoot(leaves: ReadonlyMap<number, number>, sizeBytes: number): Buffer {
  const all = Buffer.alloc(groupCountOf(sizeBytes) * GROUP_BYTES)
  for (const [index, value] of leaves) leaf(value).copy(all, index * HASH_BYTES)
  const nodes = Array.from({ length: groupCountOf(sizeBytes) }, (_, i) =>
    nodeOf(all.subarray(i * GROUP_BYTES, (i + 1) * GROUP_BYTES), 1),
  )
  return rootOf(Buffer.concat(nodes), sizeBytes)
}

const steps = fc.array(
  fc.oneof(
    fc.record({ set: fc.nat(GROUPS * 256 - 1), value: fc.nat(3) }),
    fc.record({ blocks: fc.integer({ min: 1, max: GROUPS * 256 }) }),
    fc.constant({ flush: true }),
    fc.constant({ reload: true }),
  ),
  { maxLength: 40 },
)

describe('a tree in a database', () => {
  it.each([
    ['in memory', undefined],
    ['some of them set aside', { scratch: scratchInMemory(), maxBytes: 100 }],
    ['all of them set aside', { scratch: scratchInMemory(), maxBytes: 0 }],
  ])(
    'has the root of its leaves after any run of changes, resizes, flushes and reloads: %s',
    (_what, spill) => {
      fc.assert(
        fc.property(steps, (run) => {
          const store = openLeafStore(db)
          store.truncate('t', 0)
          let tree = new PendingTree(store, 't', spill)
          let sizeBytes = sizeOf(GROUPS * 256)
          const model = new Map<number, number>()
          for (const step of run) {
            if ('set' in step && step.set < blockCountOf(sizeBytes)) {
              tree.setLeaf(step.set, leaf(step.value))
              model.set(step.set, step.value)
            } else if ('blocks' in step) {
              sizeBytes = sizeOf(step.blocks)
              tree.resize(sizeBytes)
              for (const index of model.keys()) if (index >= step.blocks) model.delete(index)
            } else if ('flush' in step) {
              tree.flush()
            } else if ('reload' in step) {
              tree.flush()
              tree = new PendingTree(store, 't', spill)
            }
            expect(tree.root(sizeBytes)).toEqual(modelRoot(model, sizeBytes))
          }
          for (const [index, value] of model) expect(tree.leaf(index)).toEqual(leaf(value))
        }),
        { numRuns: 80 },
      )
    },
  )

  it('believes nothing of what it set aside', () => {
    const kept = new Map<number, Buffer>()
    const spill = { scratch: scratchInMemory(kept), maxBytes: 0 }
    const tree = new PendingTree(openLeafStore(db), 't', spill)
    tree.setLeaf(3, leaf(1))
    tree.setLeaf(300, leaf(2))
    const model = new Map([3, 300].map((index, i) => [index, i + 1]))
    expect(tree.root(sizeOf(GROUPS * 256))).toEqual(modelRoot(model, sizeOf(GROUPS * 256)))
    expect(kept.size).toBe(2)
    expect(tree.pendingBytes).toBeLessThan(1000)
    kept.get(0)?.fill(7)
    expect(() => tree.leaf(3)).toThrow(expect.objectContaining({ code: 'tree-damaged' }))
    expect(() => tree.flush()).toThrow(expect.objectContaining({ code: 'tree-damaged' }))
  })

  it('keeps no row for a group of zeros, and none of another tree', () => {
    const store = openLeafStore(db)
    const [one, other] = [new PendingTree(store, 'one'), new PendingTree(store, 'other')]
    one.setLeaf(3, leaf(1))
    one.setLeaf(300, leaf(2))
    other.setLeaf(3, leaf(5))
    one.flush()
    other.flush()
    one.setLeaf(3, ZERO_HASH)
    one.flush()
    expect(db.prepare('SELECT tree, page_index FROM tree_pages WHERE level = 0').all()).toEqual([
      { tree: 'one', page_index: 1 },
      { tree: 'other', page_index: 0 },
    ])
    one.setLeaf(300, ZERO_HASH)
    one.flush()
    expect(store.names()).toEqual(['other'])
  })

  it('answers any range of nodes as it answers the whole disk, pending changes included', () => {
    const store = openLeafStore(db)
    const tree = new PendingTree(store, 't')
    for (const index of [0, 256, 700]) tree.setLeaf(index, leaf(1))
    tree.flush()
    for (const index of [300, 900]) tree.setLeaf(index, leaf(2))
    const whole = tree.groupHashes(sizeOf(GROUPS * 256))
    for (let first = 0; first < GROUPS; first++) {
      for (let count = 1; first + count <= GROUPS; count++) {
        expect(tree.nodes(first, count)).toEqual(
          whole.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES),
        )
      }
    }
  })

  it('forgets what a transaction wrote that was rolled back', () => {
    const store = openLeafStore(db)
    const tree = new PendingTree(store, 't')
    tree.setLeaf(0, leaf(1))
    tree.flush()
    const sizeBytes = sizeOf(GROUPS * 256)
    const before = tree.root(sizeBytes)
    const failing = db.transaction(() => {
      const other = new PendingTree(store, 't')
      other.setLeaf(0, leaf(2))
      other.setLeaf(300, leaf(2))
      other.flush()
      expect(other.root(sizeBytes)).not.toEqual(before)
      throw new Error('rolled back')
    })
    expect(failing).toThrow('rolled back')
    expect(new PendingTree(store, 't').root(sizeBytes)).toEqual(before)
    expect(new PendingTree(store, 't').leaf(300)).toEqual(ZERO_HASH)
  })

  it('costs the changed paths, whatever the size of the disk', () => {
    const TIB = 2 ** 40
    const costs = [2 ** 30, 64 * 2 ** 30, TIB].map((sizeBytes) => {
      const store = openLeafStore(db)
      const tree = new PendingTree(store, `disk of ${sizeBytes}`)
      const step = blockCountOf(sizeBytes) / 16
      for (let i = 0; i < 16; i++) tree.setLeaf(i * step, leaf(1))
      tree.flush()
      const before = { ...store.counters }
      for (let i = 0; i < 16; i++) tree.setLeaf(i * step + 1, leaf(2))
      tree.root(sizeBytes)
      tree.flush()
      return store.counters.pagesRead - before.pagesRead + store.counters.pagesWritten - before.pagesWritten
    })
    // 16 groups, read for the change and once more for the flush, written once, and at most 16 + 2 pages above, read and written.
    for (const cost of costs) expect(cost).toBeLessThanOrEqual(16 * 3 + 18 * 2)
  })

  it('packs what is pending: memory follows the changed leaves, and zeros cost nothing', () => {
    const tree = new PendingTree(openLeafStore(db), 't')
    for (let group = 0; group < 1000; group++) tree.setLeaf(group * 256, leaf(1))
    tree.root(sizeOf(1000 * 256))
    expect(tree.pendingBytes).toBeLessThan(300 * 1000)
    for (let group = 0; group < 1000; group++) tree.setLeaf(group * 256, ZERO_HASH)
    tree.root(sizeOf(1000 * 256))
    expect(tree.pendingBytes).toBe(250 * 1000)
    tree.flush()
    expect(tree.pendingBytes).toBe(0)
  })
})

describe('trees of version 1', () => {
  const first = { name: 'trees', sql: leafStoreSchema }

  it('are converted, and what was damaged in them stays known as damaged', () => {
    const dir = mkdtempSync(join(tmpdir(), 'hotsite-tree-'))
    const path = join(dir, 'trees.db')
    const leaves = Buffer.alloc(GROUP_BYTES)
    leaf(7).copy(leaves, 5 * HASH_BYTES)
    const before = openSqlite({ path, profile: 'control', migrations: [first] })
    const insert = before.prepare(
      'INSERT INTO leaf_groups (tree, group_index, node, leaves) VALUES (?, ?, ?, ?)',
    )
    for (const group of [0, 3, 700]) insert.run('t', group, nodeOf(leaves, 1), leaves)
    insert.run('rotten', 0, nodeOf(leaves, 1), Buffer.alloc(GROUP_BYTES, 9))
    before.close()
    const after = openSqlite({ path, profile: 'control', migrations: [first, treePagesMigration] })
    const store = openLeafStore(after)
    const sizeBytes = sizeOf(1000 * 256)
    const model = new Map([0, 3, 700].map((group) => [group * 256 + 5, 7]))
    expect(new PendingTree(store, 't').root(sizeBytes)).toEqual(modelRoot(model, sizeBytes))
    expect(new PendingTree(store, 't').leaf(700 * 256 + 5)).toEqual(leaf(7))
    expect(() => new PendingTree(store, 'rotten').leaf(0)).toThrow(
      expect.objectContaining({ code: 'tree-damaged' }),
    )
    after.close()
    rmSync(dir, { recursive: true })
  })
})
