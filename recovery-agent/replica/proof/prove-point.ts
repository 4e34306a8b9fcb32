/**
 * Whether a point is what its source signed, from the bytes that are there now: tables of its layers as written, every
 * block it shows hashed, and the roots of its disks made anew from these hashes. `onData` sees each block on the way.
 */
import { isDeepStrictEqual } from 'node:util'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import { readStoredManifest } from '#shared/trust/point-manifest.ts'
import type { ChainPoint } from '../catalog/chain.ts'
import type { ReplicaContext } from '../context.ts'
import { forgetDamagedLeaves } from '../healing/forget-leaves.ts'
import { dataRunsOf, type OpenLayer, openStored, readRun, runMemory } from './check-layer.ts'
import { learnLayer } from './learn-layer.ts'
import { groupsAtPoint, RootProof } from './prove-root.ts'
import { layersOfPoint, type StoredLayer } from './stored-layers.ts'
import { reportDamage } from './verify-disk.ts'

export interface ProveDisk {
  readonly vmId: VmId
  readonly point: ChainPoint
  readonly diskId: DiskId
  /** A block that was proved; `bytes` is valid during the call. Ascending. */
  readonly onData?: (blockIndex: number, bytes: Buffer) => void
}

/** How often the layers are opened anew because a merge replaced a file meanwhile. */
const MAX_ATTEMPTS = 100

/** True: proved. False: what is wrong is recorded as damage. Throws `catalog-damaged` when rows contradict each other. */
export function* provePoint(context: ReplicaContext, request: ProveDisk): Generator<void, boolean> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const { vmId, point } = request
    const chain = context.catalog.chain(vmId)
    const current = chain.find(({ seq }) => seq === point.seq)
    if (current?.state !== 'point')
      throw new HotsiteError(
        'point-unknown',
        `${vmId} no longer has recovery point ${point.epoch}/${point.seq}`,
      )
    const layers = layersOfPoint(context, { ...request, chain, point: current })
    const unknown = layers.findLast(({ isKnown }) => !isKnown)
    if (unknown) {
      const why = yield* learnLayer(context, unknown, chain)
      if (why !== null && unknown.isSameFile()) return recordWhole(context, unknown, why)
      continue
    }
    try {
      const outcome = yield* proveLayers(context, request, layers)
      if (outcome !== 'changed') return outcome
    } catch (error) {
      if (!forgetDamagedLeaves(context, error)) throw error
    }
  }
  throw new HotsiteError('point-in-use', `the layers of ${request.vmId} change faster than they are read`)
}

function recordWhole(context: ReplicaContext, stored: StoredLayer, what: string): false {
  reportDamage(context, stored, what)
  context.catalog.damage.addWhole(stored.key, what, context.clock.now())
  return false
}

function* proveLayers(
  context: ReplicaContext,
  request: ProveDisk,
  layers: readonly StoredLayer[],
): Generator<void, boolean | 'changed'> {
  const { catalog } = context
  let seenChanges = catalog.changes
  const isCurrent = () => {
    if (!layers.every((stored) => stored.isSameFile())) return false
    const { changes } = catalog
    if (changes !== seenChanges && !sameLayers(context, request, layers)) return false
    seenChanges = changes
    return true
  }
  using stack = new DisposableStack()
  const open = new Map<StoredLayer, OpenLayer>()
  let isSound = true
  for (const stored of layers) {
    const opened = yield* openStored(context.files, stored)
    if (opened.kind === 'sound') open.set(stored, stack.use(opened.open))
    if (!isCurrent()) return 'changed'
    if (opened.kind === 'damaged') isSound = recordWhole(context, stored, opened.what)
  }
  if (!isSound) return false
  const disk = request.point.disks.find(({ diskId }) => diskId === request.diskId)
  if (!disk) return false
  const proof = new RootProof(disk.sizeBytes)
  using memory = runMemory()
  const buffer = memory.bytes
  // The leaves of all layers are needed to the end, and the files that are open hold what these leaves say.
  for (const group of groupsAtPoint(layers)) {
    proof.add(group)
    const blocks: [number, Buffer][] = []
    for (const [part, { stored, group: leaves }] of group.parts.entries()) {
      const layer = open.get(stored)
      if (!layer) continue
      const isWanted = (i: number) => group.holder(i) === part
      for (const run of dataRunsOf(layer, group.groupIndex, { group: leaves, isWanted })) {
        if (!isCurrent()) return 'changed'
        for (const { blockIndex, bytes, fault } of readRun(layer, run, { group: leaves, buffer })) {
          if (fault !== null) {
            isSound = false
            reportDamage(context, stored, `block ${blockIndex}: ${fault}`)
            catalog.damage.addBlock(stored.key, blockIndex, { what: fault, nowMs: context.clock.now() })
          } else if (request.onData) blocks.push([blockIndex, Buffer.from(bytes)])
        }
        yield
      }
    }
    for (const [blockIndex, bytes] of blocks.sort(([a], [b]) => a - b)) request.onData?.(blockIndex, bytes)
    if (!isCurrent()) return 'changed'
  }
  if (!isSound) return false
  ensureSigned(context, request, proof.root())
  return true
}

/** The same files, told by everything they have to be. */
function sameLayers(context: ReplicaContext, request: ProveDisk, layers: readonly StoredLayer[]): boolean {
  const { vmId, diskId, point } = request
  const chain = context.catalog.chain(vmId)
  const now = layersOfPoint(context, { vmId, diskId, chain, point })
  const situations = (of: readonly StoredLayer[]) => of.map(({ key, situation }) => [key, situation])
  return isDeepStrictEqual(situations(now), situations(layers))
}

/** What the rows say, what came out of the layers, and what the source signed are one and the same (I3). */
function ensureSigned({ catalog }: ReplicaContext, { vmId, diskId, point }: ProveDisk, root: Buffer): void {
  const wrong = (what: string) =>
    new HotsiteError('catalog-damaged', `point ${point.epoch}/${point.seq} of ${vmId}: ${what}`, {
      details: { vmId, diskId, point: { epoch: point.epoch, seq: point.seq } },
    })
  const manifest = readStoredManifest(catalog.manifest(vmId, point.seq) ?? Buffer.alloc(0))
  const signed = manifest.disks.find((disk) => disk.diskId === diskId)
  const row = point.disks.find((disk) => disk.diskId === diskId)
  if (
    !signed ||
    !row ||
    manifest.vmId !== vmId ||
    manifest.seq !== point.seq ||
    manifest.epoch !== point.epoch
  )
    throw wrong('its manifest is another one')
  if (!root.equals(signed.root) || signed.sizeBytes !== row.sizeBytes)
    throw wrong(`disk ${diskId} does not come to the root that was signed`)
}
