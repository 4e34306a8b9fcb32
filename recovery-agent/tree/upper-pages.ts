/**
 * The pages of a hash tree above its leaves, from what changed. Pure.
 *
 *   page (0, i)   the 256 leaves of group i
 *   page (L, i)   the nodes over pages (L-1, 256 i) to (L-1, 256 i + 255)
 *
 * The node over page (L, i) is `nodeOf(page, L + 1)`. All numbers of groups below count groups of 256 leaves.
 */
import {
  GROUP_BYTES,
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  nodeOf,
  rootOf,
} from '#shared/blocks/hash-tree.ts'

/** Page (3, 0) is the only one of its level: 256^4 blocks, 256 TiB, which is what a block index of 32 bits reaches. */
export const TOP_LEVEL = 3
export const MAX_GROUPS: number = GROUP_CHILDREN ** TOP_LEVEL

/** How many groups a page of this level covers. */
export function groupsOfPage(level: number): number {
  return GROUP_CHILDREN ** level
}

export interface UpperChange {
  /** The page as it was, GROUP_BYTES long; not changed here. */
  readonly read: (level: number, pageIndex: number) => Buffer
  /** Groups from here on are zero before `nodes` applies. */
  readonly cutGroups: number
  /** The nodes over the groups that changed, all below MAX_GROUPS. */
  readonly nodes: ReadonlyMap<number, Buffer>
}

/** The pages of one level that a change makes anew: its own, the one the cut goes through, and `always`. */
export function changedPages(
  { read, cutGroups, nodes }: UpperChange,
  level: number,
  always: readonly number[],
): Map<number, Buffer> {
  const span = groupsOfPage(level)
  const childSpan = groupsOfPage(level - 1)
  const pages = new Map<number, Buffer>()
  const pageOf = (index: number): Buffer => {
    const known = pages.get(index)
    if (known) return known
    const before = index * span < cutGroups
    const page = before ? Buffer.from(read(level, index)) : Buffer.alloc(GROUP_BYTES)
    const kept = Math.ceil((cutGroups - index * span) / childSpan)
    if (before && kept < GROUP_CHILDREN) page.fill(0, kept * HASH_BYTES)
    pages.set(index, page)
    return page
  }
  if (Number.isFinite(cutGroups) && cutGroups % span !== 0) pageOf(Math.floor(cutGroups / span))
  for (const index of always) pageOf(index)
  for (const [child, node] of nodes) {
    node.copy(pageOf(Math.floor(child / GROUP_CHILDREN)), (child % GROUP_CHILDREN) * HASH_BYTES)
  }
  return pages
}

/** The nodes over pages of one level. */
export function nodesOver(pages: ReadonlyMap<number, Buffer>, level: number): Map<number, Buffer> {
  return new Map([...pages].map(([index, page]) => [index, nodeOf(page, level + 1)]))
}

/** The root of a disk of this size, exactly `rootOf` of all its level-1 nodes, from the changed paths alone. */
export function rootAfter(change: UpperChange, sizeBytes: number): Buffer {
  const groupCount = groupCountOf(sizeBytes)
  if (groupCount === 0) return rootOf(Buffer.alloc(0), sizeBytes)
  const within = [...change.nodes].filter(([group]) => group < groupCount)
  const cutGroups = Math.min(change.cutGroups, groupCount)
  let nodes = new Map(within)
  if (groupCount === 1) {
    const stored = cutGroups > 0 ? change.read(1, 0).subarray(0, HASH_BYTES) : Buffer.alloc(HASH_BYTES)
    return rootOf(nodes.get(0) ?? stored, sizeBytes)
  }
  for (let level = 1; level <= TOP_LEVEL; level++) {
    const isTop = groupCount <= groupsOfPage(level)
    nodes = nodesOver(changedPages({ ...change, cutGroups, nodes }, level, isTop ? [0] : []), level)
    const top = isTop ? nodes.get(0) : undefined
    // One node is left, so rootOf only adds the size.
    if (top) return rootOf(top, sizeBytes)
  }
  throw new RangeError(`a disk of ${sizeBytes} bytes is larger than a hash tree can hold`)
}
