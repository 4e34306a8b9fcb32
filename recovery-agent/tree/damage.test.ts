/** Whatever happens to one row of a stored tree, what is read is right, or it is `tree-damaged`. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HASH_BYTES, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { damageOnce } from '../testing/damage-rows.ts'
import { leafStoreSchema, openLeafStore, PendingTree, treePagesMigration } from './leaf-store.ts'

const BLOCKS = 600 * 256
const SIZE_BYTES = BLOCKS * BLOCK_BYTES
const TREES = ['one', 'other'] as const

function leaf(tree: string, index: number): Buffer {
  return Buffer.alloc(HASH_BYTES, `${tree}${index}`)
}

/** Three levels of pages: groups in different pages of level 1, and a full page of leaves. */
const indexes = [0, 1, 255, 256, 70_000, 140_000, ...Array.from({ length: 256 }, (_, i) => 512 + i)]

function filled(): { db: Sqlite; roots: Map<string, Buffer> } {
  const db = openSqlite({
    path: ':memory:',
    profile: 'control',
    migrations: [{ name: 'trees', sql: leafStoreSchema }, treePagesMigration],
  })
  const store = openLeafStore(db)
  const roots = new Map<string, Buffer>()
  for (const name of TREES) {
    const tree = new PendingTree(store, name)
    for (const index of indexes) tree.setLeaf(index, leaf(name, index))
    tree.flush()
    roots.set(name, tree.root(SIZE_BYTES))
  }
  return { db, roots }
}

function damageOf(read: () => void): boolean {
  try {
    read()
    return false
  } catch (error) {
    expect(error).toMatchObject({ name: 'HotsiteError', code: 'tree-damaged' })
    return true
  }
}

it('any flipped bit, row that is gone or rows that changed places are found, or make no difference', () => {
  let found = 0
  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.nat(), (seed, a, b) => {
      const { db, roots } = filled()
      try {
        const what = damageOnce(db, ['tree_pages', 'trees'], [seed, a, b])
        const store = openLeafStore(db)
        for (const name of TREES) {
          const tree = new PendingTree(store, name)
          const damaged = damageOf(() => {
            expect(tree.root(SIZE_BYTES), what).toEqual(roots.get(name))
            for (const index of indexes) expect(tree.leaf(index), what).toEqual(leaf(name, index))
            expect(tree.leaf(2), what).toEqual(ZERO_HASH)
            expect([...tree.storedGroups(0, 600)], what).toEqual([0, 1, 2, 273, 546])
          })
          if (damaged) found++
        }
      } finally {
        db.close()
      }
    }),
    { numRuns: 300 },
  )
  // Nearly every damage matters: a row that is only more than there should be is the exception.
  expect(found).toBeGreaterThan(250)
})

it('a damaged tree can be dropped', () => {
  const { db } = filled()
  db.exec("UPDATE tree_pages SET hashes = x'00' WHERE level > 0")
  const store = openLeafStore(db)
  store.truncate('one', 0)
  while (store.removeSome('other', 2));
  expect(store.names()).toEqual([])
  db.close()
})
