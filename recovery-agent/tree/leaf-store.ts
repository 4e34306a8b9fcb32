/**
 * Where a hash tree rests: pages of 256 hashes, those of leaves and those of every level above, and one row for the
 * node over the topmost page. Pages of nothing but zeros have no row, and zeros at the end of a page are not stored,
 * so an empty region costs nothing and a change costs the pages on its path to the top, whatever the disk's size.
 *
 * Nothing that is read is believed: a page must have the hash its parent page says, the topmost page that of the row
 * in `trees`, and that row has a checksum over the tree's name. So a flipped bit, a row that is gone, or one that took
 * the place of another is found when it is read, as `tree-damaged`. (A row too many is never read: its parent has a
 * zero there.)
 *
 * The rows live in the database of what they describe (buffer.db at the source, replica.db at the target) and change
 * in the same transaction as the cursor or the point, which is what binds a tree to its (epoch, seq) through any crash.
 */
import { GROUP_CHILDREN, HASH_BYTES, nodeOf, ZERO_GROUP, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { PageCache } from './page-cache.ts'
import { isTop, padded, topChecksum, trimmed } from './page-rows.ts'
import { changedPages, groupsOfPage, nodesOver, TOP_LEVEL } from './upper-pages.ts'

export { PendingTree } from './pending-tree.ts'
export { leafStoreSchema, treePagesMigration } from './schema.ts'

/** Pages above the leaves that are kept after they were verified: 8 MiB, the upper trees of four full disks of 1 TiB. */
const CACHED_PAGES = 1024

export interface TreeChange {
  /** Groups from here on are dropped first; null: none. */
  readonly cutGroups: number | null
  /** Index, 256 leaves and the node over them. */
  readonly groups: Iterable<readonly [groupIndex: number, leaves: Buffer, node: Buffer]>
}

export interface LeafStore {
  /** The 256 leaves of a group; zeros when there is no row. Shared: copy before changing. Throws `tree-damaged`. */
  group(tree: string, groupIndex: number): Buffer
  /** A page of any level, GROUP_BYTES long. Shared: copy before changing. Throws `tree-damaged`. */
  page(tree: string, level: number, pageIndex: number): Buffer
  /** Level-1 nodes of `count` groups from `first` on, 32 bytes each. Throws `tree-damaged`. */
  groupHashes(tree: string, count: number, first?: number): Buffer
  /** Groups in [first, end) that are not all zero, ascending; costs those and their path. Throws `tree-damaged`. */
  nonZeroGroups(tree: string, first: number, end: number): Generator<number, void>
  /** Inside the caller's transaction, like everything below. Throws `tree-damaged`. */
  write(tree: string, change: TreeChange): void
  putGroup(tree: string, groupIndex: number, leaves: Buffer): void
  /** Many at a time: each page above them is written once. */
  putGroups(tree: string, groups: Iterable<readonly [groupIndex: number, leaves: Buffer]>): void
  /** Drops groups at and above `fromGroup`. 0: the whole tree, unread, so that a damaged one can go too. */
  truncate(tree: string, fromGroup: number): void
  /** Drops at most so many pages of a tree nobody needs any more; false: nothing of it is left. */
  removeSome(tree: string, maxPages: number): boolean
  /** Trees that have rows, in order. */
  names(): readonly string[]
  /** Since it was opened: what the cost of an operation is measured in. */
  readonly counters: { readonly pagesRead: number; readonly pagesWritten: number }
}

export function openLeafStore(db: Sqlite): LeafStore {
  return new TreePages(db)
}

class TreePages implements LeafStore {
  readonly counters = { pagesRead: 0, pagesWritten: 0 }
  readonly #db: Sqlite
  readonly #cache = new PageCache(CACHED_PAGES)
  readonly #statements: ReturnType<typeof prepare>

  constructor(db: Sqlite) {
    this.#db = db
    this.#statements = prepare(db)
  }

  group(tree: string, groupIndex: number): Buffer {
    return this.page(tree, 0, groupIndex)
  }

  page(tree: string, level: number, pageIndex: number): Buffer {
    const key = keyOf(tree, level, pageIndex)
    const known = this.#cache.get(key)
    if (known) return known
    const expected = level === TOP_LEVEL ? this.#top(tree) : this.#node(tree, level, pageIndex)
    if (expected.equals(ZERO_HASH)) return ZERO_GROUP
    this.counters.pagesRead++
    const stored = this.#statements.selectPage.get(tree, level, pageIndex)?.hashes
    if (stored === undefined)
      throw damaged(tree, `page ${pageIndex} of level ${level} is gone`, { level, pageIndex })
    const page = padded(stored)
    if (!page || !nodeOf(page, level + 1).equals(expected))
      throw damaged(tree, `page ${pageIndex} of level ${level} has another hash than its parent says`, {
        level,
        pageIndex,
      })
    // What a transaction has written may yet be rolled back.
    if (level > 0 && !this.#db.inTransaction) this.#cache.set(key, page)
    return page
  }

  groupHashes(tree: string, count: number, first = 0): Buffer {
    const hashes = Buffer.alloc(count * HASH_BYTES)
    for (let group = first; group < first + count; ) {
      const pageIndex = Math.floor(group / GROUP_CHILDREN)
      const end = Math.min(first + count, (pageIndex + 1) * GROUP_CHILDREN)
      const from = (group % GROUP_CHILDREN) * HASH_BYTES
      const page = this.page(tree, 1, pageIndex)
      page.copy(hashes, (group - first) * HASH_BYTES, from, from + (end - group) * HASH_BYTES)
      group = end
    }
    return hashes
  }

  nonZeroGroups(tree: string, first: number, end: number): Generator<number, void> {
    return this.#nonZero(tree, TOP_LEVEL, 0, { first, end })
  }

  *#nonZero(
    tree: string,
    level: number,
    pageIndex: number,
    range: { readonly first: number; readonly end: number },
  ): Generator<number, void> {
    const page = this.page(tree, level, pageIndex)
    const childSpan = groupsOfPage(level - 1)
    const start = pageIndex * GROUP_CHILDREN
    const from = Math.max(0, Math.floor(range.first / childSpan) - start)
    const to = Math.min(GROUP_CHILDREN, Math.ceil(range.end / childSpan) - start)
    for (let i = from; i < to; i++) {
      if (ZERO_HASH.equals(page.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES))) continue
      if (level === 1) yield start + i
      else yield* this.#nonZero(tree, level - 1, start + i, range)
    }
  }

  write(tree: string, { cutGroups, groups }: TreeChange): void {
    const changed = new Map<number, Buffer>()
    // A new tree has pages before it has a top: with a row of its own it is not taken for one that lost its row.
    if (this.#top(tree).equals(ZERO_HASH)) this.#putZeroTop(tree)
    const isZeroAlready = this.#zeroGroups(tree)
    for (const [groupIndex, leaves, node] of groups) {
      if (node === ZERO_HASH && isZeroAlready(groupIndex)) continue
      changed.set(groupIndex, node)
      this.#put(tree, 0, groupIndex, leaves)
    }
    const read = (level: number, index: number) => this.page(tree, level, index)
    const levels: [number, Map<number, Buffer>][] = []
    let nodes = changed
    for (let level = 1; level <= TOP_LEVEL; level++) {
      const change = { read, cutGroups: cutGroups ?? Number.POSITIVE_INFINITY, nodes }
      const pages = changedPages(change, level, level === TOP_LEVEL ? [0] : [])
      levels.push([level, pages])
      nodes = nodesOver(pages, level)
    }
    // Only now: what is dropped or overwritten here was read above.
    if (cutGroups !== null) this.#dropFrom(tree, cutGroups, changed)
    for (const [level, pages] of levels)
      for (const [index, page] of pages) this.#put(tree, level, index, page)
    this.#putTop(tree, nodes.get(0) ?? ZERO_HASH)
  }

  putGroup(tree: string, groupIndex: number, leaves: Buffer): void {
    this.putGroups(tree, [[groupIndex, leaves]])
  }

  putGroups(tree: string, groups: Iterable<readonly [groupIndex: number, leaves: Buffer]>): void {
    const withNodes = Array.from(groups, ([index, leaves]) => [index, leaves, nodeOf(leaves, 1)] as const)
    this.write(tree, { cutGroups: null, groups: withNodes })
  }

  truncate(tree: string, fromGroup: number): void {
    if (fromGroup > 0) {
      this.write(tree, { cutGroups: fromGroup, groups: [] })
      return
    }
    this.#forget(tree)
    this.#statements.removeTree.run(tree)
    this.#statements.removeTop.run(tree)
  }

  removeSome(tree: string, maxPages: number): boolean {
    this.#forget(tree)
    this.#statements.removeTop.run(tree)
    return this.#statements.removePages.run(tree, tree, maxPages).changes > 0
  }

  names(): readonly string[] {
    const names = new Set(this.#statements.topNames.all().map(({ tree }) => tree))
    // A skip scan over the first column of the key: one step for each tree, not for each page.
    for (let at = this.#statements.nextTree.get('')?.tree; at; at = this.#statements.nextTree.get(at)?.tree)
      names.add(at)
    return [...names].sort()
  }

  #node(tree: string, level: number, pageIndex: number): Buffer {
    const parent = this.page(tree, level + 1, Math.floor(pageIndex / GROUP_CHILDREN))
    const offset = (pageIndex % GROUP_CHILDREN) * HASH_BYTES
    return parent.subarray(offset, offset + HASH_BYTES)
  }

  #top(tree: string): Buffer {
    const key = keyOf(tree, TOP_LEVEL + 1, 0)
    const known = this.#cache.get(key)
    if (known) return known
    const row = this.#statements.selectTop.get(tree)
    if (row && (!isTop(row.top) || row.checksum !== topChecksum(tree, row.top)))
      throw damaged(tree, 'the row of its topmost node has another checksum', { level: TOP_LEVEL + 1 })
    if (!row && this.#statements.anyPage.get(tree))
      throw damaged(tree, 'the row of its topmost node is gone', { level: TOP_LEVEL + 1 })
    const top = row?.top ?? ZERO_HASH
    if (!this.#db.inTransaction) this.#cache.set(key, top)
    return top
  }

  #put(tree: string, level: number, pageIndex: number, page: Buffer): void {
    this.#cache.delete(keyOf(tree, level, pageIndex))
    this.counters.pagesWritten++
    const hashes = trimmed(page)
    if (hashes.length === 0) this.#statements.removePage.run(tree, level, pageIndex)
    else this.#statements.putPage.run(tree, level, pageIndex, hashes)
  }

  #putTop(tree: string, top: Buffer): void {
    this.#cache.delete(keyOf(tree, TOP_LEVEL + 1, 0))
    if (top.equals(ZERO_HASH)) this.#statements.removeTop.run(tree)
    else this.#statements.putTop.run(tree, top, topChecksum(tree, top))
  }

  /** Whether a stored group is zero; asks for each page above them once while it is asked in order. */
  #zeroGroups(tree: string): (groupIndex: number) => boolean {
    let known = { index: -1, page: ZERO_GROUP }
    return (groupIndex) => {
      const index = Math.floor(groupIndex / GROUP_CHILDREN)
      if (known.index !== index) known = { index, page: this.page(tree, 1, index) }
      const offset = (groupIndex % GROUP_CHILDREN) * HASH_BYTES
      return ZERO_HASH.equals(known.page.subarray(offset, offset + HASH_BYTES))
    }
  }

  #putZeroTop(tree: string): void {
    this.#statements.putTop.run(tree, ZERO_HASH, topChecksum(tree, ZERO_HASH))
  }

  /** Rows past the cut; groups that were put anew are spared. */
  #dropFrom(tree: string, cutGroups: number, spared: ReadonlyMap<number, Buffer>): void {
    this.#forget(tree)
    for (let level = 0; level <= TOP_LEVEL; level++) {
      const from = Math.ceil(cutGroups / groupsOfPage(level))
      if (level > 0) this.#statements.removeFrom.run(tree, level, from)
      else
        for (const { page_index } of this.#statements.indexesFrom.all(tree, from))
          if (!spared.has(page_index)) this.#statements.removePage.run(tree, 0, page_index)
    }
  }

  #forget(tree: string): void {
    this.#cache.deleteAll(`${tree}\0`)
  }
}

function keyOf(tree: string, level: number, pageIndex: number): string {
  return `${tree}\0${level}\0${pageIndex}`
}

function damaged(tree: string, what: string, details: Readonly<Record<string, unknown>>): HotsiteError {
  return new HotsiteError('tree-damaged', `hash tree ${tree}: ${what}`, { details: { tree, ...details } })
}

function prepare(db: Sqlite) {
  const one = 'tree = ? AND level = ? AND page_index = ?'
  return {
    selectPage: db.prepare<[string, number, number], { hashes: unknown }>(
      `SELECT hashes FROM tree_pages WHERE ${one}`,
    ),
    indexesFrom: db.prepare<[string, number], { page_index: number }>(
      'SELECT page_index FROM tree_pages WHERE tree = ? AND level = 0 AND page_index >= ?',
    ),
    putPage: db.prepare<[string, number, number, Buffer]>(
      'INSERT INTO tree_pages (tree, level, page_index, hashes) VALUES (?, ?, ?, ?) ' +
        'ON CONFLICT (tree, level, page_index) DO UPDATE SET hashes = excluded.hashes',
    ),
    removePage: db.prepare<[string, number, number]>(`DELETE FROM tree_pages WHERE ${one}`),
    removeFrom: db.prepare<[string, number, number]>(
      'DELETE FROM tree_pages WHERE tree = ? AND level = ? AND page_index >= ?',
    ),
    removeTree: db.prepare<[string]>('DELETE FROM tree_pages WHERE tree = ?'),
    removePages: db.prepare<[string, string, number]>(
      'DELETE FROM tree_pages WHERE tree = ? AND (level, page_index) IN ' +
        '(SELECT level, page_index FROM tree_pages WHERE tree = ? LIMIT ?)',
    ),
    anyPage: db.prepare<[string]>('SELECT 1 FROM tree_pages WHERE tree = ? LIMIT 1'),
    nextTree: db.prepare<[string], { tree: string | null }>(
      'SELECT min(tree) AS tree FROM tree_pages WHERE tree > ?',
    ),
    selectTop: db.prepare<[string], { top: Buffer; checksum: number }>(
      'SELECT top, checksum FROM trees WHERE tree = ?',
    ),
    topNames: db.prepare<[], { tree: string }>('SELECT tree FROM trees'),
    putTop: db.prepare<[string, Buffer, number]>(
      'INSERT INTO trees (tree, top, checksum) VALUES (?, ?, ?) ' +
        'ON CONFLICT (tree) DO UPDATE SET top = excluded.top, checksum = excluded.checksum',
    ),
    removeTop: db.prepare<[string]>('DELETE FROM trees WHERE tree = ?'),
  }
}
