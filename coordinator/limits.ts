/** Every bound of the coordinator, with its reason (I13). Tests and labs pass smaller ones. */
import { assert } from '#shared/assert.ts'

const minuteMs = 60_000
const dayMs = 86_400_000

export interface CoordinatorLimits {
  /** Jobs that run at one time; more wait their turn. Each costs a few small queries a second. */
  readonly maxRunningJobs: number
  /** A job looks again this often even if nothing was heard: a lost wake-up costs no more than this. */
  readonly jobPollMs: number
  /** For the guest to shut down: services of a busy server take minutes. */
  readonly shutDownTimeoutMs: number
  /** For a sign of life after a start: a boot with a disk check. */
  readonly heartbeatTimeoutMs: number
  /** What an unplanned failover spends on a source that may be dying, shut-down and last copy each. */
  readonly bestEffortMs: number
  /**
   * For an agent that is away, before a job touches a running VM: a restart or a short break of the network. After it the
   * VM would be disturbed at a moment nobody chose.
   */
  readonly absentWaitMs: number
  /** A failover waits this long for the old source to confirm its fence; the outbox goes on after that. */
  readonly fenceWaitMs: number
  /** Removing things at a connected agent, when the result only matters for the record. */
  readonly tidyWaitMs: number
  /** Between two tries of a fence that failed. */
  readonly fenceRetryMs: number
  /** The pause doubles with each failure up to this. */
  readonly fenceRetryMaxMs: number
  /** A ticket outlives a week without the coordinator (I12). */
  readonly ticketLifetimeMs: number
  readonly ticketRenewMs: number
  /** Clocks apart by more than this are shown as an event: an NTP client keeps well below. */
  readonly clockSkewWarnMs: number
  /** Counters and last-seen times are stored this often. */
  readonly countersFlushMs: number
  /** Commands under way at one agent. */
  readonly maxCommandsInFlight: number
  /** The same refusal of one server becomes an event this often; the log has every one. */
  readonly refusalRepeatMs: number
  readonly keepEvents: number
  /** With their steps, some 10 KiB each; jobs that go on are not counted out. */
  readonly keepJobs: number
  /** Changes of protected VMs: the renewal of a ticket makes one a day and VM. */
  readonly keepHistory: number
  readonly keepOutboxMs: number
  readonly janitorMs: number
  /** Keepers (fences, tickets) look this often. */
  readonly keeperMs: number
  /** A VM nobody tested for this long is mentioned in the status. */
  readonly drillDueMs: number
}

export const coordinatorLimits: CoordinatorLimits = {
  maxRunningJobs: 64,
  jobPollMs: 1_000,
  shutDownTimeoutMs: 5 * minuteMs,
  heartbeatTimeoutMs: 2 * minuteMs,
  bestEffortMs: 3 * minuteMs,
  absentWaitMs: 10 * minuteMs,
  fenceWaitMs: 20_000,
  tidyWaitMs: 30_000,
  fenceRetryMs: 15_000,
  fenceRetryMaxMs: 10 * minuteMs,
  ticketLifetimeMs: 7 * dayMs,
  ticketRenewMs: dayMs,
  clockSkewWarnMs: 5_000,
  countersFlushMs: 2_000,
  maxCommandsInFlight: 256,
  refusalRepeatMs: 15 * minuteMs,
  keepEvents: 100_000,
  keepJobs: 20_000,
  keepHistory: 100_000,
  keepOutboxMs: 14 * dayMs,
  janitorMs: 10 * minuteMs,
  keeperMs: 1_000,
  drillDueMs: 90 * dayMs,
}

export function coordinatorLimitsWith(changes: Partial<CoordinatorLimits> = {}): CoordinatorLimits {
  const limits = { ...coordinatorLimits, ...changes }
  for (const [name, value] of Object.entries(limits))
    assert(value > 0, `coordinator limit ${name} is positive`)
  assert(limits.ticketRenewMs < limits.ticketLifetimeMs, 'a ticket is renewed before it ends')
  assert(limits.jobPollMs < limits.fenceWaitMs, 'a job looks at a fence more than once')
  return limits
}
