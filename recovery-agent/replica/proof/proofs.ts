/** Everything the store does to know that its files are what they were, as one part of it. */
import type { VmId } from '#shared/ids.ts'
import type { DiskProof } from '#shared/messages/reports.ts'
import { type ReplicaContext, replicaOrThrow } from '../context.ts'
import { healLocally } from '../healing/heal.ts'
import { repairBlocks, repairWanted } from '../healing/repair.ts'
import type { RepairWanted, ReplicaStore, ScrubSlice, VerifyOutcome, VerifyRequest } from '../port.ts'
import { proofOf, Scrub } from './scrub.ts'
import { verifyReplica } from './verify.ts'

export class Proofs {
  readonly #context: ReplicaContext
  readonly #abandonMerge: (vmId: VmId) => void
  readonly #scrubs = new Map<VmId, Scrub>()

  constructor(context: ReplicaContext, abandonMerge: (vmId: VmId) => void) {
    this.#context = context
    this.#abandonMerge = abandonMerge
  }

  *verify(request: VerifyRequest): Generator<void, VerifyOutcome> {
    replicaOrThrow(this.#context, request.vmId)
    // A pass that goes on would say afterwards what it knew before.
    if (request.percent >= 100) this.forget(request.vmId)
    return yield* verifyReplica(this.#context, { ...request, abandonMerge: this.#abandonMerge })
  }

  *heal(vmId: VmId): Generator<void, number> {
    replicaOrThrow(this.#context, vmId)
    return yield* healLocally(this.#context, { vmId, abandonMerge: this.#abandonMerge })
  }

  scrub(vmId: VmId, budgetMs: number): ScrubSlice {
    replicaOrThrow(this.#context, vmId)
    const scrub = this.#scrubs.get(vmId) ?? new Scrub(this.#context, vmId)
    this.#scrubs.set(vmId, scrub)
    return scrub.slice(budgetMs)
  }

  proof(vmId: VmId): readonly DiskProof[] {
    return proofOf(this.#context, vmId)
  }

  repairWanted(vmId: VmId, options: Parameters<ReplicaStore['repairWanted']>[1]): RepairWanted | null {
    replicaOrThrow(this.#context, vmId)
    return repairWanted(this.#context, vmId, options)
  }

  repair(request: Parameters<ReplicaStore['repair']>[0]): number {
    replicaOrThrow(this.#context, request.vmId)
    return repairBlocks(this.#context, request)
  }

  /** The VM's files go, or everything does. */
  forget(vmId: VmId): void {
    this.#scrubs.get(vmId)?.stop()
    this.#scrubs.delete(vmId)
  }

  close(): void {
    for (const scrub of this.#scrubs.values()) scrub.stop()
  }
}

/** To the end, for callers that have nothing else to do. */
export function drained<T>(steps: Generator<void, T>): T {
  for (;;) {
    const { done, value } = steps.next()
    if (done) return value
  }
}
