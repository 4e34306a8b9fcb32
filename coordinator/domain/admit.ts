import type { Operation, OperationVerdict } from './allowed-operations.ts'
import { operationWords } from './operation-words.ts'

export interface ActiveJob {
  readonly jobId: string
  readonly kind: string
  /** Canonical JSON of what was asked, to recognise a repeat. */
  readonly params: string
}

export type Admission =
  | {
      readonly kind: 'accepted'
      /** A job that is ended for it. */
      readonly insteadOf?: string
    }
  /** The same request is under way already: answer with its job. */
  | { readonly kind: 'recognised'; readonly jobId: string }
  | { readonly kind: 'denied'; readonly code: 'vm-busy' | 'operation-not-allowed'; readonly reason: string }

export interface AdmissionInput {
  readonly operation: Operation
  readonly params: string
  readonly active: ActiveJob | null
  readonly verdict: OperationVerdict
}

/** A disaster does not wait until blocks were read again. */
const givesWay = (active: ActiveJob, operation: Operation): boolean =>
  active.kind === 'verify' && operation === 'unplannedFailover'

/** A repeated request is accepted once, recognised, or denied; never run twice (DESIGN §7). */
export function admit({ operation, params, active, verdict }: AdmissionInput): Admission {
  if (active) {
    if (active.kind === operation && active.params === params)
      return { kind: 'recognised', jobId: active.jobId }
    if (givesWay(active, operation) && verdict.allowed) return { kind: 'accepted', insteadOf: active.jobId }
    return {
      kind: 'denied',
      code: 'vm-busy',
      reason: `job ${active.jobId} (${operationWords(active.kind)}) is working on it`,
    }
  }
  if (!verdict.allowed) return { kind: 'denied', code: 'operation-not-allowed', reason: verdict.reason }
  return { kind: 'accepted' }
}
