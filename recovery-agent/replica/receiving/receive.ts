/** Which deltas are taken, and how they become points. */
import { isDeepStrictEqual } from 'node:util'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import { MAX_CHAIN } from '#shared/policy/merge-pace.ts'
import { afterFailure } from '../after-failure.ts'
import { saveChangedCopies } from '../catalog/catalog-copy.ts'
import { isSamePoint, newestSeqOf } from '../catalog/chain.ts'
import { type ReplicaContext, refuseOlderEpoch, replicaOrThrow } from '../context.ts'
import { journalSuffix, leavesSuffix, partSuffix } from '../names.ts'
import type { DeltaHeader, DeltaWriter, SealOutcome, SignedManifest } from '../port.ts'
import { sweep } from '../sweep.ts'
import { alreadySealed, ReplicaDeltaWriter, type WriterOwner } from './delta-writer.ts'
import { ReceivingDelta } from './receiving-delta.ts'

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
    this.#supersede(vmId)
    const partial = catalog.partial(vmId)
    if (!partial || !isSameDelta(partial, header)) {
      this.discard(vmId)
      this.#clearFilesOf(header)
      crash('replica.begin-cleared')
    }
    catalog.putPartial(header)
    crash('replica.begin-recorded')
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
    const chain = catalog.chain(vmId)
    delta.sealFiles(chain)
    catalog.transaction(() => {
      delta.record(chain, manifest, clock.now())
      if (manifest.suspect) catalog.suspicions.put(vmId, seq, manifest.suspect)
      crash('replica.seal-in-transaction')
    })
    crash('replica.seal-committed')
    this.#saveCopy(vmId)
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
    catalog.deletePartial(header.vmId)
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

/** A delta never changes once captured; a synchronization starts over from a later snapshot and finds what is there equal. */
function isSameDelta(partial: DeltaHeader, header: DeltaHeader): boolean {
  if (header.kind === 'delta') return isDeepStrictEqual(partial, header)
  const { kind, epoch, seq, baseSeq } = header
  return (
    partial.kind === kind && partial.epoch === epoch && partial.seq === seq && partial.baseSeq === baseSeq
  )
}
