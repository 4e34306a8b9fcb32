import type { ErrorCode } from '#shared/errors/table.ts'

export type AfterFailure =
  /** A newer epoch runs elsewhere: never send at this one again (I5). */
  | { readonly kind: 'fence'; readonly epoch: number }
  /** The two sides differ: compare hashes, send what differs (I7). */
  | { readonly kind: 'resync'; readonly cause: 'diverged' | 'replica-damaged' }
  /** The ticket is of no use: wait for another, looking again now and then. */
  | { readonly kind: 'await-ticket' }
  /** The link broke: connecting has its own back-off. */
  | { readonly kind: 'reconnect' }
  /** Try the same again, ever less often. */
  | { readonly kind: 'retry' }

/**
 * What to do after sending at `epoch` failed with `code`. A fence goes just above our own epoch, whatever the target
 * claims: it keeps us from sending, and a ticket of the vault for any later epoch may lift it.
 */
export function afterFailure(code: ErrorCode, epoch: number): AfterFailure {
  switch (code) {
    case 'epoch-stale':
      return { kind: 'fence', epoch: epoch + 1 }
    case 'base-unknown':
    case 'delta-diverged':
    // Signed under an identity that was replaced since: a synchronization signs anew.
    case 'manifest-invalid':
      return { kind: 'resync', cause: 'diverged' }
    case 'replica-damaged':
      return { kind: 'resync', cause: 'replica-damaged' }
    case 'ticket-expired':
    case 'ticket-invalid':
    case 'signature-invalid':
      return { kind: 'await-ticket' }
    case 'stream-interrupted':
    // The point is sent once more, or was given up.
    case 'backfill-refused':
      return { kind: 'reconnect' }
    default:
      return { kind: 'retry' }
  }
}

/** Doubling pause with full jitter in its upper half, so that many VMs do not come back at one instant. */
export function retryPauseMs(
  attempt: number,
  limit: { readonly firstMs: number; readonly lastMs: number },
  random: number,
): number {
  const ceiling = Math.min(limit.lastMs, limit.firstMs * 2 ** Math.min(attempt, 20))
  return ceiling / 2 + (ceiling / 2) * random
}
