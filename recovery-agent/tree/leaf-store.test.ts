import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_BYTES, groupCountOf, HASH_BYTES, nodeOf, rootOf, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { leafStoreSchema, openLeafStore, PendingTree } from './leaf-store.ts'

let db: Sqlite

beforeEach(() => {
  db = openSqlite({
    path: ':memory:',
    profile: 'control',
    migrations: [{ name: 'trees', sql: leafStoreSchema }],
  })
})

afterEach(() => db.close())

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
  it('has the root of its leaves after any run of changes, resizes, flushes and reloads', () => {
    fc.assert(
      fc.property(steps, (run) => {
        const store = openLeafStore(db)
        store.truncate('t', 0)
        let tree = new PendingTree(store, 't')
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
            tree = new PendingTree(store, 't')
          }
          expect(tree.root(sizeBytes)).toEqual(modelRoot(model, sizeBytes))
        }
        for (const [index, value] of model) expect(tree.leaf(index)).toEqual(leaf(value))
      }),
      { numRuns: 80 },
    )
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
    expect(db.prepare('SELECT tree, group_index FROM leaf_groups ORDER BY tree').all()).toEqual([
      { tree: 'one', group_index: 1 },
      { tree: 'other', group_index: 0 },
    ])
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
})
