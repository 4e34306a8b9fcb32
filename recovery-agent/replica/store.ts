import { resolve } from 'node:path'
import { assert } from '#shared/assert.ts'
import { HASH_BYTES } from '#shared/blocks/hash-tree.ts'
import type { Clock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, OverlayId, VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { PointRef } from '#shared/messages/commands.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import { limits } from '../limits.ts'
import { PendingTree } from '../tree/leaf-store.ts'
import { type AdoptRequest, adoptDisks } from './adopt.ts'
import { afterFailure, again, stepsAgain } from './after-failure.ts'
import { Catalog, type OverlayRow, type ReplicaRow, treeOf } from './catalog/catalog.ts'
import { saveChangedCopies } from './catalog/catalog-copy.ts'
import { unlessDamaged } from './catalog/catalog-sums.ts'
import { type Chain, newestSeqOf, pointOrThrow } from './catalog/chain.ts'
import { openCatalogFile } from './catalog/open-catalog.ts'
import { pointReports } from './catalog/point-reports.ts'
import { Readers, type ReplicaContext, refuseOlderEpoch, replicaOrThrow } from './context.ts'
import { diskBytesOf } from './disk-usage.ts'
import { nodeFiles, type ReplicaFiles } from './files.ts'
import { Pruning, takeBackSuspicion } from './merging/prune.ts'
import { pathsIn } from './names.ts'
import { createOverlay, type OverlayRequest, removeOverlay } from './overlays.ts'
import type {
  CreatedOverlay,
  DeltaHeader,
  DeltaWriter,
  ReplicaState,
  ReplicaStore,
  StoreSteps,
} from './port.ts'
import { drained, Proofs } from './proof/proofs.ts'
import { areAllLayersKnown } from './proof/stored-layers.ts'
import { Receiver } from './receiving/receive.ts'
import { recoverReplicas } from './recover.ts'
import { commitReplica, removeReplica } from './retire.ts'
import { sweep } from './sweep.ts'

export interface OpenReplicaStore {
  /** Holds replica.db, replicas/ and overlays/. */
  readonly dir: string
  readonly clock: Clock
  readonly log: Logger
  readonly crashPoint: CrashPoint
  readonly files?: ReplicaFiles
  /** Of each disk that is being received; default: limits.leavesInMemoryBytes. */
  readonly leavesInMemoryBytes?: number
}

/** One owner at a time: the caller holds the lock of the data folder. */
export function openReplicaStore(
  options: OpenReplicaStore,
): ReplicaStore & Disposable & { readonly steps: StoreSteps } {
  const files = options.files ?? nodeFiles
  const paths = pathsIn(resolve(options.dir))
  for (const folder of [paths.replicas, paths.overlays]) files.ensureFolder(folder)
  const { clock, log, crashPoint: crash } = options
  const db = openCatalogFile(paths.database, log)
  const readers = new Readers()
  const { leavesInMemoryBytes = limits.leavesInMemoryBytes } = options
  const what = { catalog: new Catalog(db), leavesInMemoryBytes }
  return new LayerReplicaStore({ ...what, files, paths, crash, clock, log, readers })
}

class LayerReplicaStore implements ReplicaStore, Disposable {
  readonly #context: ReplicaContext
  readonly #receiver: Receiver
  readonly #pruning: Pruning
  readonly #proofs: Proofs

  constructor(context: ReplicaContext) {
    this.#context = context
    this.#receiver = new Receiver(context)
    this.#pruning = new Pruning(context)
    this.#proofs = new Proofs(context, (vmId) => this.#pruning.abandon(vmId))
  }

  recover(): void {
    recoverReplicas(this.#context)
  }

  list(): readonly ReplicaState[] {
    const known = (vmId: VmId) => unlessDamaged(() => this.get(vmId))
    // Whoever asks first finds what is damaged and has it made good.
    return this.#context.catalog.sums.vmIds().flatMap((vmId) => known(vmId) ?? known(vmId) ?? [])
  }

  get(vmId: VmId): ReplicaState | undefined {
    return this.#attempt(() => {
      const replica = this.#context.catalog.replica(vmId)
      return replica && replica.state !== 'removing' ? this.#stateOf(replica) : undefined
    })
  }

  #stateOf({ vmId, epoch, sourceServerId, policy }: ReplicaRow): ReplicaState {
    const newestSeq = newestSeqOf(this.#context.catalog.chain(vmId))
    return { vmId, epoch, newestSeq, sourceServerId, policy }
  }

  prepare(request: Parameters<ReplicaStore['prepare']>[0]): ReplicaState {
    return this.#attempt(() => {
      const { catalog } = this.#context
      const { vmId, epoch, sourceServerId, policy, disks } = request
      const existing = this.#settled(vmId)
      if (existing) refuseOlderEpoch(existing, epoch)
      if (existing?.state === 'committed') {
        // What is left serves the overlay of a finished failover; a new replica begins empty.
        this.#refuseIfNeeded(existing, ['ready', 'creating'])
        this.#pruning.forget(vmId)
        removeReplica(this.#context, existing)
      }
      catalog.putReplica({ vmId, state: 'active', epoch, sourceServerId, policy, disks })
      if (existing && epoch > existing.epoch) this.#fence(vmId, epoch)
      return this.#stateOf(replicaOrThrow(this.#context, vmId))
    })
  }

  adopt(request: AdoptRequest): ReplicaState {
    return drained(this.steps.adopt(request))
  }

  *#adopt(request: AdoptRequest): Generator<void, ReplicaState> {
    const { vmId, epoch } = request
    const existing = this.#settled(vmId)
    if (existing) {
      refuseOlderEpoch(existing, epoch)
      const isSame = existing.epoch === epoch && existing.state === 'active'
      if (isSame && this.#context.catalog.chain(vmId).length > 0) return this.#stateOf(existing)
      this.#refuseIfNeeded(existing, ['ready', 'creating'])
      this.#receiver.forget(vmId)
      this.#pruning.forget(vmId)
    }
    yield* adoptDisks(this.#context, request)
    sweep(this.#context, vmId)
    return this.#stateOf(replicaOrThrow(this.#context, vmId))
  }

  /** The replica, after a removal that a crash interrupted was finished. */
  #settled(vmId: VmId): ReplicaRow | undefined {
    const replica = this.#context.catalog.replica(vmId)
    if (replica?.state !== 'removing') return replica
    removeReplica(this.#context, replica)
    return undefined
  }

  raiseEpoch(vmId: VmId, epoch: number): ReplicaState {
    const raise = () => {
      const replica = replicaOrThrow(this.#context, vmId)
      refuseOlderEpoch(replica, epoch)
      if (epoch > replica.epoch) {
        this.#context.catalog.putReplica({ ...replica, epoch })
        this.#fence(vmId, epoch)
      }
      return this.#stateOf({ ...replica, epoch })
    }
    return again(() => this.#attempt(raise))
  }

  /** The row first: from then on no write of the older epoch is taken (I5), whatever becomes of its files. */
  #fence(vmId: VmId, epoch: number): void {
    this.#receiver.end(
      vmId,
      new HotsiteError('epoch-stale', `epoch ${epoch} of ${vmId} took over`, { details: { vmId, epoch } }),
    )
    this.#receiver.forget(vmId)
  }

  setPolicy(vmId: VmId, policy: ReplicationPolicy): void {
    this.#attempt(() => this.#context.catalog.putReplica({ ...replicaOrThrow(this.#context, vmId), policy }))
  }

  begin(header: DeltaHeader): DeltaWriter {
    return this.#attempt(() => this.#receiver.begin(header))
  }

  keepBackfills(vmId: VmId, topSeqs: readonly number[]): boolean {
    return this.#attempt(() => {
      this.#receiver.keepBackfills(vmId, topSeqs)
      return areAllLayersKnown(this.#context, vmId)
    })
  }

  discardPartial(vmId: VmId): void {
    this.#attempt(() => this.#receiver.discard(vmId))
  }

  treeNodes(request: { vmId: VmId; diskId: DiskId; level: 0 | 1; first: number; count: number }): Buffer {
    return this.#attempt(() => {
      const { vmId, diskId, level, first, count } = request
      replicaOrThrow(this.#context, vmId)
      const tree =
        this.#receiver.synchronization(vmId)?.disk(diskId)?.tree ??
        new PendingTree(this.#context.catalog.leaves, treeOf(vmId, diskId))
      if (level === 1) return tree.nodes(first, count)
      const leaves = Buffer.alloc(count * HASH_BYTES)
      for (let i = 0; i < count; i++) tree.leaf(first + i).copy(leaves, i * HASH_BYTES)
      return leaves
    })
  }

  points(vmId: VmId): readonly PointReport[] {
    return this.#attempt(() => pointReports(this.#context, vmId))
  }

  pin(vmId: VmId, point: PointRef, pinned: boolean): void {
    this.#attempt(() => {
      const { catalog } = this.#context
      const found = pointOrThrow(this.#chain(vmId), { vmId, point })
      catalog.transaction(() => {
        catalog.setPinned(vmId, found.seq, pinned)
        if (!pinned) takeBackSuspicion(this.#context, replicaOrThrow(this.#context, vmId), found)
      })
    })
  }

  prune(vmId: VmId): boolean {
    // Whoever holds the layers reads them for long; the pruner asks again when that is over.
    if (this.#context.readers.isHeld(vmId)) return false
    return this.#attempt(() => this.#pruning.prune(replicaOrThrow(this.#context, vmId)))
  }

  readonly steps: StoreSteps = {
    adopt: (request) => this.#steps(this.#adopt(request)),
    createOverlay: (request) => stepsAgain(() => this.#steps(this.#createOverlay(request))),
    verify: (request) => this.#steps(this.#proofs.verify(request)),
    heal: (vmId) => this.#steps(this.#proofs.heal(vmId)),
  }

  createOverlay(request: OverlayRequest): CreatedOverlay {
    return drained(this.steps.createOverlay(request))
  }

  *#createOverlay(request: OverlayRequest): Generator<void, CreatedOverlay> {
    replicaOrThrow(this.#context, request.vmId)
    const { point, capturedAtMs, disks } = yield* createOverlay(this.#context, request)
    return { point, capturedAtMs, disks }
  }

  verify(request: Parameters<ReplicaStore['verify']>[0]): ReturnType<ReplicaStore['verify']> {
    return drained(this.steps.verify(request))
  }

  heal(vmId: VmId): number {
    return drained(this.steps.heal(vmId))
  }

  scrub(vmId: VmId, budgetMs: number): ReturnType<ReplicaStore['scrub']> {
    return this.#attempt(() => this.#proofs.scrub(vmId, budgetMs))
  }

  proof(vmId: VmId): ReturnType<ReplicaStore['proof']> {
    return this.#attempt(() => this.#proofs.proof(vmId))
  }

  repairWanted(
    vmId: VmId,
    options: Parameters<ReplicaStore['repairWanted']>[1],
  ): ReturnType<ReplicaStore['repairWanted']> {
    return this.#attempt(() => this.#proofs.repairWanted(vmId, options))
  }

  repair(request: Parameters<ReplicaStore['repair']>[0]): number {
    return this.#attempt(() => this.#proofs.repair(request))
  }

  removeOverlay(vmId: VmId, overlayId: OverlayId): void {
    this.#attempt(() => {
      const overlay = this.#overlay(vmId, overlayId)
      if (overlay) removeOverlay(this.#context, overlay)
    })
  }

  formerOverlays(vmId: VmId): ReturnType<ReplicaStore['formerOverlays']> {
    return this.#attempt(() => {
      const { catalog } = this.#context
      const isReplica = catalog.replica(vmId)?.state === 'active' && newestSeqOf(catalog.chain(vmId)) > 0
      return catalog
        .overlays(vmId)
        .filter(({ state, format }) => isReplica && state === 'committed' && format === 'raw')
        .map(({ overlayId, disks }) => ({ overlayId, disks }))
    })
  }

  commit(vmId: VmId, overlayId: OverlayId): void {
    this.#attempt(() => {
      const replica = replicaOrThrow(this.#context, vmId)
      const overlay = this.#overlay(vmId, overlayId)
      if (!overlay || overlay.state === 'creating') {
        throw new HotsiteError('overlay-unknown', `${vmId} has no overlay ${overlayId} here`, {
          details: { vmId, overlayId },
        })
      }
      if (overlay.state === 'committed') return
      this.#receiver.forget(vmId)
      this.#pruning.forget(vmId)
      commitReplica(this.#context, replica, overlay)
      sweep(this.#context, vmId)
    })
  }

  remove(vmId: VmId): void {
    this.#attempt(() => {
      const replica = this.#context.catalog.replica(vmId)
      if (!replica) return
      this.#refuseIfNeeded(replica, ['ready', 'creating'])
      this.#receiver.forget(vmId)
      this.#pruning.forget(vmId)
      removeReplica(this.#context, replica)
    })
  }

  layerPath(vmId: VmId, point: PointRef, diskId: DiskId): string {
    const found = pointOrThrow(this.#chain(vmId), { vmId, point })
    assert(
      found.disks.some((disk) => disk.diskId === diskId),
      `disk ${diskId} is part of the point`,
    )
    return this.#context.paths.layer(vmId, diskId, found)
  }

  usage(vmId: VmId): { diskBytes: number; mergeDebtBytes: number } {
    return this.#attempt(() => {
      const replica = replicaOrThrow(this.#context, vmId)
      return {
        diskBytes: diskBytesOf(this.#context, vmId),
        mergeDebtBytes: this.#pruning.debtBytes(replica),
      }
    })
  }

  slowDownMs(vmId: VmId): number {
    return this.#attempt(() => this.#pruning.slowDownMs(replicaOrThrow(this.#context, vmId)))
  }

  [Symbol.dispose](): void {
    this.#proofs.close()
    this.#pruning.close()
    this.#receiver.close()
    this.#context.catalog.close()
  }

  #chain(vmId: VmId): Chain {
    replicaOrThrow(this.#context, vmId)
    return this.#context.catalog.chain(vmId)
  }

  #overlay(vmId: VmId, overlayId: OverlayId): OverlayRow | undefined {
    return this.#context.catalog.overlays(vmId).find((overlay) => overlay.overlayId === overlayId)
  }

  /** Running overlays keep the whole replica; a committed one keeps it only as long as its files stand on layers. */
  #refuseIfNeeded({ vmId }: ReplicaRow, running: readonly OverlayRow['state'][]): void {
    const blocking = this.#context.catalog
      .overlays(vmId)
      .find(({ state, format }) => running.includes(state) || format === 'qcow2')
    if (!blocking) return
    throw new HotsiteError('point-in-use', `overlay ${blocking.overlayId} stands on a point of ${vmId}`, {
      details: { vmId, overlayId: blocking.overlayId },
    })
  }

  *#steps<T>(steps: Generator<void, T>): Generator<void, T> {
    try {
      const result = yield* steps
      saveChangedCopies(this.#context)
      return result
    } catch (error) {
      throw afterFailure(this.#context, error)
    }
  }

  #attempt<T>(work: () => T): T {
    try {
      const { changeCount } = this.#context.catalog
      const result = work()
      // Whoever only asks is not refused because a copy could not be written.
      if (this.#context.catalog.changeCount !== changeCount) saveChangedCopies(this.#context)
      return result
    } catch (error) {
      throw afterFailure(this.#context, error)
    }
  }
}
