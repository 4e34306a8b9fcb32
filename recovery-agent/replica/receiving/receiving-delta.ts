/** A delta that is being received, all its disks. What `sync` returned from survives any crash. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId } from '#shared/ids.ts'
import { gapFor } from '../catalog/backfills.ts'
import { treeOf } from '../catalog/catalog.ts'
import { type Chain, hiddenBytes } from '../catalog/chain.ts'
import type { ReplicaContext } from '../context.ts'
import { lostBlocks } from '../healing/lost-blocks.ts'
import { layerName, partSuffix } from '../names.ts'
import type { BlockBatch, DeltaHeader, DiskProgress, SignedManifest } from '../port.ts'
import { backfillRoot } from './backfill-root.ts'
import { HeldBlocks } from './held-blocks.ts'
import { ReceivingDisk } from './receiving-disk.ts'

export class ReceivingDelta {
  readonly header: DeltaHeader
  readonly #context: ReplicaContext
  readonly #roots = new Map<DiskId, Buffer>()
  readonly #disks: ReadonlyMap<DiskId, ReceivingDisk>
  #isClosed = false

  /** Opens or resumes; the row in `partials` is there already. */
  constructor(header: DeltaHeader, context: ReplicaContext) {
    this.header = header
    this.#context = context
    const disks = new Map<DiskId, ReceivingDisk>()
    this.#disks = disks
    try {
      for (const disk of header.disks) {
        context.files.ensureFolder(context.paths.diskFolder(header.vmId, disk.diskId))
        disks.set(
          disk.diskId,
          new ReceivingDisk({
            disk,
            kind: header.kind,
            layerPath: context.paths.layer(header.vmId, disk.diskId, header),
            tree: treeName(header, disk.diskId),
            leaves: context.catalog.leaves,
            files: context.files,
            leavesInMemoryBytes: context.leavesInMemoryBytes,
            lost: header.kind === 'sync' ? lostBlocks(context.catalog, header.vmId, disk.diskId) : [],
            held: heldBlocks(context, header, disk.diskId),
          }),
        )
      }
      this.#syncFolders()
    } catch (error) {
      this.close()
      throw error
    }
  }

  disk(diskId: DiskId): ReceivingDisk | undefined {
    return this.#disks.get(diskId)
  }

  write(batch: BlockBatch): void {
    const disk = this.#disks.get(batch.diskId)
    if (!disk) throw new HotsiteError('stream-malformed', `disk ${batch.diskId} is not part of the delta`)
    disk.write(batch)
  }

  progress(): DiskProgress[] {
    return [...this.#disks.values()].map(({ diskId, durableBatch }) => ({ diskId, nextBatch: durableBatch }))
  }

  /** Data first, then the journal that speaks of it. */
  sync(): DiskProgress[] {
    const { crash } = this.#context
    const dirty = [...this.#disks.values()].filter((disk) => disk.isDirty)
    if (dirty.length === 0) return this.progress()
    for (const disk of dirty) disk.syncData()
    crash('replica.sync-data-durable')
    for (const disk of dirty) disk.writeJournal()
    crash('replica.sync-journal-written')
    for (const disk of dirty) disk.syncJournal()
    crash('replica.sync-journal-durable')
    return this.progress()
  }

  /** Disks whose own leaves give another root, or another size, than the source signed; and those only one side has. */
  diverging(manifest: SignedManifest): DiskId[] {
    const signed = new Map(manifest.roots.map((root) => [root.diskId, root]))
    const unequal = [...this.#disks.values()].filter((disk) => {
      const root = signed.get(disk.diskId)
      return !root || root.sizeBytes !== disk.sizeBytes || !this.#root(disk).equals(root.root)
    })
    const unknown = manifest.roots.filter(({ diskId }) => !this.#disks.has(diskId))
    return [...unequal, ...unknown].map(({ diskId }) => diskId)
  }

  #root(disk: ReceivingDisk): Buffer {
    const { vmId, kind, seq } = this.header
    if (kind !== 'backfill') return disk.root()
    const { catalog } = this.#context
    const gap = gapFor(catalog.chain(vmId), catalog.backfills.list(vmId), seq)
    if (!gap) throw new HotsiteError('backfill-unknown', `nothing is expected below point ${seq} of ${vmId}`)
    const { diskId, sizeBytes } = disk
    const own = new Map(disk.leafGroups(true))
    const root =
      this.#roots.get(diskId) ??
      backfillRoot(this.#context, { vmId, diskId, sizeBytes, below: gap.below, own })
    this.#roots.set(diskId, root)
    return root
  }

  /** Every layer sealed, durable and under its final name; no point yet. `chain`: up to the member it stands on. */
  sealFiles(chain: Chain): void {
    const { crash, files } = this.#context
    const base = chain.at(-1)
    for (const disk of this.#disks.values()) {
      disk.seal({
        backingName: base && hasLayer(chain, disk.diskId) ? layerName(base) : null,
        hidden: hiddenBytes(chain, disk),
        crash,
      })
      crash('replica.seal-disk-sealed')
    }
    for (const disk of this.#disks.values()) {
      files.rename(disk.layerPath + partSuffix, disk.layerPath)
      crash('replica.seal-disk-renamed')
    }
    this.#syncFolders()
    crash('replica.seal-files-durable')
  }

  #syncFolders(): void {
    const { files, paths } = this.#context
    for (const { diskId } of this.#disks.values())
      files.syncFolder(paths.diskFolder(this.header.vmId, diskId))
    files.syncFolder(paths.vmFolder(this.header.vmId))
    files.syncFolder(paths.replicas)
  }

  /** The point, inside the caller's transaction. */
  record(chain: Chain, manifest: SignedManifest, nowMs: number): void {
    const { catalog, files } = this.#context
    const { vmId, epoch, seq, capturedAtMs, consistency } = this.header
    const disks = [...this.#disks.values()]
    catalog.addToChain(
      vmId,
      {
        epoch,
        seq,
        state: 'point',
        capturedAtMs,
        completedAtMs: nowMs,
        consistency,
        pinned: false,
        disks: disks.map((disk) => ({
          diskId: disk.diskId,
          sizeBytes: disk.sizeBytes,
          root: this.#root(disk),
          changedBytes: disk.changedBytes(),
          storedBytes: files.storedBytes(disk.layerPath),
        })),
      },
      manifest.encoded,
    )
    for (const disk of disks) {
      const key = { vmId, diskId: disk.diskId, seq }
      catalog.layerLeaves.put(key, disk.leafGroups(hasLayer(chain, disk.diskId)), disk.fileBytes())
    }
    if (this.header.kind === 'backfill') return
    for (const disk of disks) disk.tree.flush()
    for (const { diskId } of chain.at(-1)?.disks ?? []) {
      if (!this.#disks.has(diskId)) catalog.dropTree(vmId, diskId)
    }
    catalog.deletePartial(vmId)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const disk of this.#disks.values()) disk.close()
  }
}

/** The newest member has the disk, so that a new layer of it stands on that. */
function hasLayer(chain: Chain, diskId: DiskId): boolean {
  return chain.at(-1)?.disks.some((disk) => disk.diskId === diskId) ?? false
}

/** The tree of a point below the newest has no rows: what is written there is known from the journal alone. */
function treeName({ kind, vmId, seq }: DeltaHeader, diskId: DiskId): string {
  return kind === 'backfill' ? `${treeOf(vmId, diskId)}/${seq}` : treeOf(vmId, diskId)
}

function heldBlocks(context: ReplicaContext, header: DeltaHeader, diskId: DiskId): HeldBlocks | undefined {
  const { kind, vmId, seq } = header
  if (kind !== 'backfill') return undefined
  const { catalog, paths } = context
  const gap = gapFor(catalog.chain(vmId), catalog.backfills.list(vmId), seq)
  if (!gap) return undefined
  const key = { vmId, diskId, seq: gap.top.seq }
  return new HeldBlocks(context, key, paths.layer(vmId, diskId, gap.top))
}
