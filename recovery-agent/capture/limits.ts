import { BATCH_RAW_BYTES } from '#shared/blocks/batch.ts'

/** Every bound of the capture worker (I13). */
export interface CaptureLimits {
  /** What the deltas in buffer.db may fill; the agent's configuration sets it. */
  readonly bufferMaxBytes: number
  /**
   * Changed blocks kept in memory while a snapshot is open, so that nothing is compressed or written meanwhile. Of the whole
   * agent, for copy cycles run one at a time: a quarter of what it may take.
   */
  readonly collectBytes: number
  /**
   * Payload of one transaction. Each waits for five syncs, whatever its size; with its index it fits the page cache of
   * SQLite (16 MiB), which would otherwise sync once more in the middle of it.
   */
  readonly transactionBytes: number
  /** Leaves one capture may change in memory before the seal. Beyond it a synchronization does the work. */
  readonly pendingTreeBytes: number
  /** Blocks the tracker called unchanged that are re-read in one cycle, for each disk: a tenth of a second. */
  readonly proveBytes: number
  /** Work done at a stretch before other calls get their turn. */
  readonly paceMs: number
}

export const defaultCaptureLimits: CaptureLimits = {
  bufferMaxBytes: 8 * 2 ** 30,
  collectBytes: 96 * 2 ** 20,
  transactionBytes: 12 * 2 ** 20,
  pendingTreeBytes: 64 * 2 ** 20,
  proveBytes: 256 * 2 ** 20,
  paceMs: 20,
}

/** One read from a disk: 1 MiB into one reused buffer (4.2 GB/s with BLAKE3, measured). */
export const READ_BYTES = 2 ** 20

/** The same for a buffer that is smaller than two transactions. Throws RangeError. */
export function withinBuffer(limits: CaptureLimits): CaptureLimits {
  if (limits.transactionBytes < BATCH_RAW_BYTES) throw new RangeError('transactionBytes is below one batch')
  if (limits.bufferMaxBytes < 2 * BATCH_RAW_BYTES) throw new RangeError('bufferMaxBytes is below two batches')
  if (limits.collectBytes < READ_BYTES) throw new RangeError('collectBytes is below one read')
  return { ...limits, transactionBytes: Math.min(limits.transactionBytes, limits.bufferMaxBytes / 2) }
}
