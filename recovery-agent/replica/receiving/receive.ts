/** Which deltas are taken, and how they become points. */
import { isDeepStrictEqual } from 'node:util'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { MAX_CHAIN } from '#shared/policy/merge-pace.ts'
import { afterFailure } from '../after-failure.ts'
import { type Gap, gapFor } from '../catalog/backfills.ts'
import { saveChangedCopies } from '../catalog/catalog-copy.ts'
import { type ChainPoint, isSamePoint, newestSeqOf } from '../catalog/chain.ts'
import { type ReplicaContext, refuseOlderEpoch, replicaOrThrow } from '../context.ts'
import { journalSuffix, leavesSuffix, partSuffix } from '../names.ts'
import type { DeltaHeader, DeltaWriter, SealOutcome, SignedManifest } from '../port.ts'
import { sweep } from '../sweep.ts'
import { alreadySealed, ReplicaDeltaWriter, type WriterOwner } from './delta-writer.ts'
import { ReceivingDelta } from './receiving-delta.ts'
import { finishRepointing } from './repoint.ts'

export class Receiver implements WriterOwner {
  readonly #context: ReplicaContext
  readonly #writers = new Map<VmId, ReplicaDeltaWriter>()
  /** Unsealed synchronizations opened for their trees only. */
  readonly #idle = new Map<VmId, ReceivingDelta>()

  constructor(context: ReplicaContext) {
    this.#context = context
  }

  begin(header: DeltaHeader): DeltaWriter {
    const { catalog, crash } = this.#context
    const { vmId } = header
    const replica = replicaOrThrow(this.#context, vmId)
    refuseOlderEpoch(replica, header.epoch)
    if (header.epoch > replica.epoch) {
      throw new HotsiteError(
        'replica-not-prepared',
        `epoch ${header.epoch} of ${vmId} is not known here yet; epoch ${replica.epoch} is`,
        { details: { vmId, epoch: replica.epoch } },
      )
    }
    if (replica.state === 'committed') {
      throw new HotsiteError(
        'replica-not-prepared',
        `the failover of ${vmId} is final; nothing was prepared since`,
        {
          details: { vmId, epoch: replica.epoch },
        },
      )
    }
    if (header.kind === 'backfill') return this.#beginBackfill(header)
    const chain = catalog.chain(vmId)
    const newestSeq = newestSeqOf(chain)
    const isRepeat = chain.some((member) => isSamePoint(member, header))
    if (isRepeat && header.seq <= newestSeq) return alreadySealed(header)
    if (header.seq <= newestSeq || header.baseSeq !== newestSeq) {
      throw new HotsiteError(
        'base-unknown',
        `delta ${header.epoch}/${header.seq} of ${vmId} stands on ${header.baseSeq}, the newest point here is ${newestSeq}`,
        { details: { vmId, newestSeq, epoch: replica.epoch } },
      )
    }
    if (chain.length >= MAX_CHAIN) throw chainFull(vmId, chain.length)
    if (header.kind === 'union') ensureSameDisks(header, chain.at(-1))
    this.#supersede(vmId)
    // What it compares, and where it stands, is the newest state: older points have no source any more.
    if (header.kind === 'sync') this.keepBackfills(vmId, [])
    const partial = catalog.partial(vmId)
    if (!partial || !isSameDelta(partial, header)) {
      this.discard(vmId)
      this.#clearFilesOf(header)
      crash('replica.begin-cleared')
    }
    catalog.putPartial(header)
    crash('replica.begin-recorded')
    return this.#write(header)
  }

  #beginBackfill(header: DeltaHeader): DeltaWriter {
    const { catalog, crash } = this.#context
    const { vmId, seq } = header
    const chain = catalog.chain(vmId)
    if (chain.some((member) => isSamePoint(member, header))) {
      finishRepointing(this.#context, vmId)
      return alreadySealed(header)
    }
    const { backfill } = gapOrThrow(this.#context, header)
    if (chain.length >= MAX_CHAIN) throw chainFull(vmId, chain.length)
    this.#supersede(vmId)
    const { partial } = backfill
    if (!partial || !isSameDelta(partial, header)) {
      if (partial) this.#clearFilesOf(partial)
      this.#clearFilesOf(header)
      crash('replica.begin-cleared')
    }
    catalog.backfills.put(vmId, { ...backfill, partial: header })
    crash('replica.begin-recorded')
    this.#context.log.debug('replica.backfill-begun', { vmId, seq, below: backfill.topSeq })
    return this.#write(header)
  }

  #write(header: DeltaHeader): DeltaWriter {
    const { vmId } = header
    const writer = new ReplicaDeltaWriter(new ReceivingDelta(header, this.#context), this)
    this.#writers.set(vmId, writer)
    return writer
  }

  seal(delta: ReceivingDelta, manifest: SignedManifest): SealOutcome {
    const { catalog, clock, crash, log } = this.#context
    const { vmId, epoch, seq } = delta.header
    delta.sync()
    const diverging = delta.diverging(manifest)
    if (diverging.length > 0) {
      log.warn('replica.delta-diverged', { vmId, epoch, seq, diskIds: diverging })
      delta.close()
      this.#removePartial(delta.header)
      return { kind: 'diverged', diskIds: diverging }
    }
    crash('replica.seal-begun')
    const gap = delta.header.kind === 'backfill' ? gapOrThrow(this.#context, delta.header) : undefined
    const chain = catalog.chain(vmId).filter((member) => !gap || member.seq < gap.top.seq)
    delta.sealFiles(chain)
    catalog.transaction(() => {
      delta.record(chain, manifest, clock.now())
      if (gap) catalog.backfills.put(vmId, { ...gap.backfill, partial: null })
      if (delta.header.kind === 'union') catalog.backfills.put(vmId, { epoch, topSeq: seq, partial: null })
      if (manifest.suspect) catalog.suspicions.put(vmId, seq, manifest.suspect)
      crash('replica.seal-in-transaction')
    })
    crash('replica.seal-committed')
    this.#saveCopy(vmId)
    if (gap) finishRepointing(this.#context, vmId)
    // The point stands; what is left beside it is swept now, or by the next start.
    delta.close()
    sweep(this.#context, vmId)
    log.info('replica.point-completed', { vmId, epoch, seq })
    return { kind: 'sealed' }
  }

  /** The point stands whatever becomes of its copy; the next change tries again. */
  #saveCopy(vmId: VmId): void {
    try {
      saveChangedCopies(this.#context)
    } catch (error) {
      this.#context.log.warn('replica.copy-not-written', { vmId, error })
    }
    this.#context.crash('replica.copy-written')
  }

  failed(error: unknown): unknown {
    return afterFailure(this.#context, error)
  }

  released(writer: ReplicaDeltaWriter): void {
    const { vmId } = writer.delta.header
    if (this.#writers.get(vmId) === writer) this.#writers.delete(vmId)
  }

  /** The delta whose tree is the newest state of the VM: an unsealed synchronization. */
  synchronization(vmId: VmId): ReceivingDelta | undefined {
    const open = this.#writers.get(vmId)?.delta ?? this.#idle.get(vmId)
    if (open) return open.header.kind === 'sync' ? open : undefined
    const partial = this.#context.catalog.partial(vmId)
    if (partial?.kind !== 'sync') return undefined
    const delta = new ReceivingDelta(partial, this.#context)
    this.#idle.set(vmId, delta)
    return delta
  }

  /** Ends the writer there is with `because`; what is durable of its delta stays. */
  end(vmId: VmId, because: HotsiteError): void {
    this.#writers.get(vmId)?.end(because)
    this.#idle.get(vmId)?.close()
    this.#idle.delete(vmId)
  }

  /** Drops the unsealed delta. Files first: a row without files starts over, files without their row would be believed. */
  discard(vmId: VmId): void {
    this.#supersede(vmId)
    const partial = this.#context.catalog.partial(vmId)
    if (partial) this.#removePartial(partial)
  }

  /** Backfills of other points end here: what came of them stays, what is half there goes. */
  keepBackfills(vmId: VmId, topSeqs: readonly number[]): void {
    const { catalog, crash } = this.#context
    const ending = catalog.backfills.list(vmId).filter(({ topSeq }) => !topSeqs.includes(topSeq))
    for (const { topSeq, partial } of ending) {
      const open = this.#writers.get(vmId)?.delta.header
      if (partial && open && isSamePoint(partial, open)) this.#supersede(vmId)
      if (partial) this.#clearFilesOf(partial)
      catalog.backfills.remove(vmId, topSeq)
      crash('replica.backfill-ended')
    }
  }

  /** Whatever is on its way to the VM ends. */
  forget(vmId: VmId): void {
    this.discard(vmId)
    this.keepBackfills(vmId, [])
  }

  close(): void {
    for (const vmId of [...this.#writers.keys(), ...this.#idle.keys()]) this.#supersede(vmId)
  }

  #supersede(vmId: VmId): void {
    this.end(vmId, new HotsiteError('writer-closed', `another attempt took over the delta of ${vmId}`))
  }

  #removePartial(header: DeltaHeader): void {
    const { catalog, crash } = this.#context
    this.#clearFilesOf(header)
    crash('replica.discard-files-removed')
    if (header.kind !== 'backfill') {
      catalog.deletePartial(header.vmId)
      return
    }
    const backfill = catalog.backfills.list(header.vmId).find(({ topSeq }) => topSeq > header.seq)
    if (backfill) catalog.backfills.put(header.vmId, { ...backfill, partial: null })
  }

  #clearFilesOf(header: DeltaHeader): void {
    const { files, paths } = this.#context
    for (const { diskId } of header.disks) {
      const folder = paths.diskFolder(header.vmId, diskId)
      if (!files.exists(folder)) continue
      const layer = paths.layer(header.vmId, diskId, header)
      for (const suffix of [journalSuffix, leavesSuffix, partSuffix, '']) files.remove(layer + suffix)
      files.syncFolder(folder)
    }
  }
}

function chainFull(vmId: VmId, layers: number): HotsiteError {
  return new HotsiteError(
    'chain-full',
    `the chain of ${vmId} has ${layers} layers; ${MAX_CHAIN} is the most, and merges have not made room yet`,
    { details: { vmId, layers } },
  )
}

/** Throws `backfill-unknown`: nothing is expected there, or on another base, or of other disks. */
function gapOrThrow({ catalog }: ReplicaContext, header: DeltaHeader): Gap {
  const { vmId, epoch, seq, baseSeq } = header
  const gap = gapFor(catalog.chain(vmId), catalog.backfills.list(vmId), seq)
  if (gap && gap.below.seq === baseSeq && gap.top.epoch === epoch && hasSameDisks(header, gap.top)) return gap
  throw new HotsiteError(
    'backfill-unknown',
    `point ${epoch}/${seq} of ${vmId} is not expected on point ${baseSeq}`,
    {
      details: { vmId, epoch },
    },
  )
}

/**
 * Of a union and its base: an older point between them must find the same disks below and above. A layer that stands on
 * nothing does not say which of its blocks are zeros.
 */
function ensureSameDisks(header: DeltaHeader, base: ChainPoint | undefined): void {
  if (base && hasSameDisks(header, base)) return
  throw new HotsiteError(
    'stream-malformed',
    `a union of other disks than those of point ${header.baseSeq} of ${header.vmId}`,
  )
}

function hasSameDisks(header: DeltaHeader, { disks }: ChainPoint): boolean {
  return (
    disks.length === header.disks.length &&
    disks.every(({ diskId, sizeBytes }) =>
      header.disks.some((disk) => disk.diskId === diskId && disk.sizeBytes === sizeBytes),
    )
  )
}

/** A delta never changes once captured; a synchronization starts over from a later snapshot and finds what is there equal. */
function isSameDelta(partial: DeltaHeader, header: DeltaHeader): boolean {
  if (header.kind !== 'sync') return isDeepStrictEqual(partial, header)
  const { kind, epoch, seq, baseSeq } = header
  return (
    partial.kind === kind && partial.epoch === epoch && partial.seq === seq && partial.baseSeq === baseSeq
  )
}
