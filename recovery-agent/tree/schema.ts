import { GROUP_BYTES, HASH_BYTES, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import type { Migration, Sqlite } from '#shared/sqlite.ts'
import { topChecksum, trimmed } from './page-rows.ts'
import { changedPages, nodesOver, TOP_LEVEL } from './upper-pages.ts'

/** Version 1 of the trees, part of the first migration of every database that keeps them. */
export const leafStoreSchema = `
  CREATE TABLE leaf_groups (
    tree TEXT NOT NULL,
    group_index INTEGER NOT NULL,
    node BLOB NOT NULL,
    leaves BLOB NOT NULL,
    PRIMARY KEY (tree, group_index)
  ) STRICT, WITHOUT ROWID;
`

/** Version 2: pages of every level. Trees of version 1 are converted. `tree` is a key of the owner's choosing, one per disk. */
export const treePagesMigration: Migration = {
  name: 'hash trees as pages of every level',
  sql: `
    -- level 0: leaves, 256 in a page. hashes: 32 bytes each, without the zeros at the end
    CREATE TABLE tree_pages (
      tree TEXT NOT NULL,
      level INTEGER NOT NULL,
      page_index INTEGER NOT NULL,
      hashes BLOB NOT NULL,
      PRIMARY KEY (tree, level, page_index)
    ) STRICT, WITHOUT ROWID;

    -- top: the node over page 0 of level 3. checksum: CRC-32 over the tree's name and the top
    CREATE TABLE trees (
      tree TEXT PRIMARY KEY,
      top BLOB NOT NULL,
      checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
  `,
  step(db) {
    const trees = db.prepare<[], { tree: string }>('SELECT DISTINCT tree FROM leaf_groups').all()
    for (const { tree } of trees) convertTree(db, tree)
    db.exec('DROP TABLE leaf_groups')
  },
}

/** 8 KiB each, read at a time. */
const GROUPS_AT_A_TIME = 256

/**
 * A parent page gets the nodes that were stored beside the leaves, not new ones: leaves that do not belong to their
 * node any more are found when they are read.
 */
function convertTree(db: Sqlite, tree: string): void {
  const select = db.prepare<[string, number, number], { group_index: number; node: Buffer; leaves: Buffer }>(
    'SELECT group_index, node, leaves FROM leaf_groups WHERE tree = ? AND group_index > ? ORDER BY group_index LIMIT ?',
  )
  const insert = db.prepare<[string, number, number, Buffer]>(
    'INSERT INTO tree_pages (tree, level, page_index, hashes) VALUES (?, ?, ?, ?)',
  )
  let nodes = new Map<number, Buffer>()
  for (let last = -1; ; ) {
    const rows = select.all(tree, last, GROUPS_AT_A_TIME)
    for (const { group_index, node, leaves } of rows) {
      nodes.set(group_index, node.length === HASH_BYTES ? node : Buffer.alloc(HASH_BYTES, 1))
      insert.run(tree, 0, group_index, trimmed(leaves))
      last = group_index
    }
    if (rows.length < GROUPS_AT_A_TIME) break
  }
  const read = () => Buffer.alloc(GROUP_BYTES)
  for (let level = 1; level <= TOP_LEVEL; level++) {
    const pages = changedPages({ read, cutGroups: Number.POSITIVE_INFINITY, nodes }, level, [])
    for (const [index, page] of pages) insert.run(tree, level, index, trimmed(page))
    nodes = nodesOver(pages, level)
  }
  const top = nodes.get(0)
  if (top && !top.equals(ZERO_HASH))
    db.prepare<[string, Buffer, number]>('INSERT INTO trees (tree, top, checksum) VALUES (?, ?, ?)').run(
      tree,
      top,
      topChecksum(tree, top),
    )
}
