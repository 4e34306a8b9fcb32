import type { CoordinatorLimits } from '../limits.ts'

/** Short enough for a test, with the relations of the real ones. */
export const quickLimits: Partial<CoordinatorLimits> = {
  jobPollMs: 200,
  fenceWaitMs: 1_000,
  fenceRetryMs: 50,
  fenceRetryMaxMs: 200,
  tidyWaitMs: 2_000,
  bestEffortMs: 1_000,
  keeperMs: 200,
  countersFlushMs: 200,
}
