/** The root of a disk at a point, from the leaves of its layers: what the source signed must come out again (I3). */
import { blockCountOf } from '#shared/blocks/block.ts'
import {
  GROUP_BYTES,
  GROUP_CHILDREN,
  groupCountOf,
  HASH_BYTES,
  nodeOf,
  rootOf,
} from '#shared/blocks/hash-tree.ts'
import type { LeafGroup } from '../catalog/leaf-groups.ts'
import type { StoredLayer } from './stored-layers.ts'

export interface GroupAtPoint<Layer extends LeafLayer = StoredLayer> {
  readonly groupIndex: number
  /** 256 leaves; valid until the next one. */
  readonly leaves: Buffer
  /** For each layer, newest first, that has anything there. */
  readonly parts: readonly { readonly stored: Layer; readonly group: LeafGroup }[]
  /** Index into `parts` of the layer that holds block i as data; undefined: it reads as zeros. */
  holder(i: number): number | undefined
}

/** What of a layer decides what a point is made of. */
export type LeafLayer = Pick<StoredLayer, 'expected' | 'groupIndexes' | 'group'>

/** Groups of a disk that hold anything, ascending; of those `isWanted`. `layers`: newest first. Throws `catalog-damaged`. */
export function* groupsAtPoint<Layer extends LeafLayer>(
  layers: readonly Layer[],
  isWanted: (groupIndex: number) => boolean = () => true,
): Generator<GroupAtPoint<Layer>, void> {
  const holding = new Map<number, Layer[]>()
  for (const stored of layers)
    for (const groupIndex of stored.groupIndexes().filter(isWanted)) {
      const known = holding.get(groupIndex)
      if (known) known.push(stored)
      else holding.set(groupIndex, [stored])
    }
  const blockCounts = new Map(layers.map((stored) => [stored, blockCountOf(stored.expected.sizeBytes)]))
  const leaves = Buffer.alloc(GROUP_BYTES)
  for (const groupIndex of [...holding.keys()].sort((a, b) => a - b)) {
    const parts = (holding.get(groupIndex) ?? []).map((stored) => ({
      stored,
      group: stored.group(groupIndex),
    }))
    const holders = holdersOf(groupIndex, { parts, layers, blockCounts })
    leaves.fill(0)
    for (let i = 0; i < GROUP_CHILDREN; i++) {
      const part = parts[holders[i] ?? -1]
      if (part) part.group.leaf(i).copy(leaves, i * HASH_BYTES)
    }
    yield { groupIndex, leaves, parts, holder: (i) => holders[i] }
  }
}

/** The newest layer that says something decides; a layer too short for the block says that it is zeros. */
function holdersOf<Layer extends LeafLayer>(
  groupIndex: number,
  of: {
    parts: GroupAtPoint<Layer>['parts']
    layers: readonly Layer[]
    blockCounts: ReadonlyMap<Layer, number>
  },
): (number | undefined)[] {
  const partOf = new Map(of.parts.map(({ stored }, part) => [stored, part]))
  const holders: (number | undefined)[] = []
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    const blockIndex = groupIndex * GROUP_CHILDREN + i
    for (const stored of of.layers) {
      if (blockIndex >= (of.blockCounts.get(stored) ?? 0)) break
      const part = partOf.get(stored)
      const state = part === undefined ? 'absent' : (of.parts[part]?.group.state(i) ?? 'absent')
      if (state === 'data') holders[i] = part
      if (state !== 'absent') break
    }
  }
  return holders
}

/** Collects nodes while the groups pass by. */
export class RootProof {
  readonly #sizeBytes: number
  readonly #nodes: Buffer

  /** `nodes`: those of groups that do not pass by; left out: they are all zero. Changed. */
  constructor(sizeBytes: number, nodes: Buffer = Buffer.alloc(groupCountOf(sizeBytes) * HASH_BYTES)) {
    this.#sizeBytes = sizeBytes
    this.#nodes = nodes
  }

  add({ groupIndex, leaves }: Pick<GroupAtPoint, 'groupIndex' | 'leaves'>): void {
    nodeOf(leaves, 1).copy(this.#nodes, groupIndex * HASH_BYTES)
  }

  root(): Buffer {
    return rootOf(this.#nodes, this.#sizeBytes)
  }
}
