/**
 * The root of one disk at a point that is being put below a newer one: the leaves of the point it stands on, and its own.
 *
 * The stored tree is that of the newest state. Groups no layer above has are the same there, so only the others are made
 * anew: it costs what changed since, not the size of the disk. Where a disk changed its size or went since, all are.
 */
import { groupCountOf, HASH_BYTES, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { treeOf } from '../catalog/catalog.ts'
import type { ChainPoint } from '../catalog/chain.ts'
import { LeafGroup } from '../catalog/leaf-groups.ts'
import type { ReplicaContext } from '../context.ts'
import type { ReplicaDisk } from '../port.ts'
import { groupsAtPoint, type LeafLayer, RootProof } from '../proof/prove-root.ts'
import { layersOfPoint, type StoredLayer, storedLayers } from '../proof/stored-layers.ts'

export interface BackfilledDisk extends ReplicaDisk {
  readonly vmId: VmId
  /** What it stands on. */
  readonly below: ChainPoint
  readonly own: ReadonlyMap<number, LeafGroup>
}

/** Throws `layer-damaged` when leaves are not known, and `catalog-damaged`, `tree-damaged`. */
export function backfillRoot(context: ReplicaContext, disk: BackfilledDisk): Buffer {
  const { catalog } = context
  const { vmId, diskId, sizeBytes, below, own } = disk
  const chain = catalog.chain(vmId)
  const under = layersOfPoint(context, { vmId, diskId, chain, point: below })
  const over = storedLayers(context, { vmId, diskId, chain }).filter(({ key }) => key.seq > below.seq)
  ensureKnown([...under, ...over])
  const layers: LeafLayer[] = [ownLayer(disk), ...under]
  const isSteady = chain
    .filter(({ seq }) => seq >= below.seq)
    .every(({ disks }) => disks.some((one) => one.diskId === diskId && one.sizeBytes === sizeBytes))
  if (!isSteady) {
    const whole = new RootProof(sizeBytes)
    for (const group of groupsAtPoint(layers)) whole.add(group)
    return whole.root()
  }
  const groupCount = groupCountOf(sizeBytes)
  const touched = new Set([...own.keys(), ...over.flatMap((stored) => stored.groupIndexes())])
  const nodes = Buffer.from(catalog.leaves.groupHashes(treeOf(vmId, diskId), groupCount))
  for (const groupIndex of touched) ZERO_HASH.copy(nodes, groupIndex * HASH_BYTES)
  const proof = new RootProof(sizeBytes, nodes)
  for (const group of groupsAtPoint(layers, (groupIndex) => touched.has(groupIndex))) proof.add(group)
  return proof.root()
}

function ownLayer({ sizeBytes, own }: BackfilledDisk): LeafLayer {
  return {
    expected: { sizeBytes, backingName: null, fileBytes: undefined },
    groupIndexes: () => [...own.keys()].sort((a, b) => a - b),
    group: (groupIndex) => own.get(groupIndex) ?? new LeafGroup(),
  }
}

function ensureKnown(layers: readonly StoredLayer[]): void {
  const unknown = layers.find(({ isKnown }) => !isKnown)
  if (!unknown) return
  throw new HotsiteError('layer-damaged', `what ${unknown.path} should hold is not known`, {
    details: { ...unknown.key },
  })
}
