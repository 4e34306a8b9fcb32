/** The layer files of a VM, each with everything it has to be. */
import { blockCountOf } from '#shared/blocks/block.ts'
import { GROUP_CHILDREN } from '#shared/blocks/hash-tree.ts'
import type { ExpectedLayer } from '#shared/formats/qcow2/inspect.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import type { Chain, ChainPoint } from '../catalog/chain.ts'
import type { LayerKey } from '../catalog/layer-leaves.ts'
import { type LeafGroup, uniteGroups } from '../catalog/leaf-groups.ts'
import type { ReplicaContext } from '../context.ts'
import { layerName } from '../names.ts'

export interface StoredLayer {
  readonly key: LayerKey
  readonly member: ChainPoint
  readonly path: string
  readonly expected: ExpectedLayer
  /** Its tables are about to change: only the blocks that the next layer does not have mean anything. */
  readonly inMerge: boolean
  /** The leaves are known; otherwise the file has to be read and believed once. */
  readonly isKnown: boolean
  /** Another text when the file is replaced by a merge: whoever read its tables reads them again. */
  readonly situation: string
  /** False once another file has its name: a rename comes before the rows that say so. */
  isSameFile(): boolean
  /** Throws `catalog-damaged`, as everything that reads leaves. */
  groupIndexes(): number[]
  group(groupIndex: number): LeafGroup
}

/** Of one disk, oldest first: without gaps up to the newest member that has the disk, newer than its last gap. */
export function storedLayers(
  context: ReplicaContext,
  { vmId, diskId, chain }: { readonly vmId: VmId; readonly diskId: DiskId; readonly chain: Chain },
): StoredLayer[] {
  return chain.flatMap((member, i) => {
    const disk = member.disks.find((one) => one.diskId === diskId)
    if (!disk) return []
    const layer = describe(context, { vmId, diskId, chain, i, sizeBytes: disk.sizeBytes })
    return layer ? [layer] : []
  })
}

/** The layers a point consists of, newest first, as a hypervisor opens them. */
export function layersOfPoint(
  context: ReplicaContext,
  of: { readonly vmId: VmId; readonly diskId: DiskId; readonly chain: Chain; readonly point: ChainPoint },
): StoredLayer[] {
  const { vmId, diskId, chain, point } = of
  const upTo = chain.filter(({ seq }) => seq <= point.seq)
  // A disk that was removed and added again begins anew: what is below the gap is another disk's.
  const gap = upTo.findLastIndex(({ disks }) => !disks.some((disk) => disk.diskId === diskId))
  const layers = storedLayers(context, { vmId, diskId, chain: upTo })
  return layers.filter(({ member }) => upTo.indexOf(member) > gap).reverse()
}

/** Every disk that any member has. */
export function disksOf(chain: Chain): DiskId[] {
  return [...new Set(chain.flatMap(({ disks }) => disks.map(({ diskId }) => diskId)))].sort()
}

function describe(
  context: ReplicaContext,
  of: { vmId: VmId; diskId: DiskId; chain: Chain; i: number; sizeBytes: number },
): StoredLayer | undefined {
  const { catalog, files, paths } = context
  const { vmId, diskId, chain, i, sizeBytes } = of
  const member = chain[i]
  if (!member) return undefined
  const path = paths.layer(vmId, diskId, member)
  const keyOf = ({ seq }: ChainPoint) => ({ vmId, diskId, seq })
  const inMerge = member.state === 'merging' && chain[i + 1] !== undefined
  const run = runBelow(chain, { i, diskId, isTarget: !inMerge })
  const [lowest] = run
  // The lowest file of a merge takes the name of its target: from then on that has everything, and only rows are left.
  const isMerged = lowest !== undefined && !files.exists(paths.layer(vmId, diskId, lowest))
  if (inMerge && isMerged) return undefined
  const lowers = !inMerge && isMerged ? run : []
  const bottom = chain.indexOf(lowers[0] ?? member)
  const backing = [chain[bottom - 1]].find((below) => hasDisk(below, diskId))
  const key = keyOf(member)
  const facts = factsOrNone(context, key)
  const isKnown =
    facts !== undefined && lowers.every((lower) => factsOrNone(context, keyOf(lower)) !== undefined)
  const expected = {
    sizeBytes,
    backingName: backing ? layerName(backing) : null,
    fileBytes: lowers.length > 0 ? undefined : facts?.fileBytes,
  }
  const { layerLeaves } = catalog
  const identity = files.identity(path)
  const parts = [...lowers, member].map(keyOf)
  return {
    key,
    member,
    path,
    expected,
    inMerge,
    isKnown,
    situation: JSON.stringify([member.state, expected, inMerge, facts, parts, identity]),
    isSameFile: () => files.identity(path) === identity,
    groupIndexes: () =>
      [...new Set(parts.flatMap((part) => layerLeaves.groupIndexes(part)))].sort((x, y) => x - y),
    group: (groupIndex) => {
      const united = parts
        .map((part) => layerLeaves.group(part, groupIndex))
        .reduce((lower, upper) => uniteGroups(lower, upper, { lowerHasBacking: backing !== undefined }))
      // A merge cuts off what is past the end of its target; each layer of its own ends there anyway.
      if (parts.length > 1) cutOff(united, groupIndex, blockCountOf(sizeBytes))
      return united
    },
  }
}

function cutOff(group: LeafGroup, groupIndex: number, blockCount: number): void {
  for (let i = 0; i < GROUP_CHILDREN; i++) {
    if (groupIndex * GROUP_CHILDREN + i >= blockCount) group.setAbsent(i)
  }
}

/** The members of a merge that this one belongs to or is the target of, oldest first, as far down as they have the disk. */
function runBelow(
  chain: Chain,
  { i, diskId, isTarget }: { i: number; diskId: DiskId; isTarget: boolean },
): ChainPoint[] {
  const run: ChainPoint[] = []
  for (let at = isTarget ? i - 1 : i; at >= 0; at--) {
    const member = chain[at]
    if (member?.state !== 'merging' || !hasDisk(member, diskId)) break
    run.unshift(member)
  }
  return run
}

function hasDisk(member: ChainPoint | undefined, diskId: DiskId): boolean {
  return member?.disks.some((disk) => disk.diskId === diskId) ?? false
}

/** A damaged row is as good as none: the layer is read and proved against the roots again. */
function factsOrNone({ catalog }: ReplicaContext, key: LayerKey) {
  try {
    return catalog.layerLeaves.facts(key)
  } catch {
    return undefined
  }
}

export function areAllLayersKnown(context: ReplicaContext, vmId: VmId): boolean {
  const chain = context.catalog.chain(vmId)
  return disksOf(chain)
    .flatMap((diskId) => storedLayers(context, { vmId, diskId, chain }))
    .every(({ isKnown }) => isKnown)
}
