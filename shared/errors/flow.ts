import type { ErrorEntry } from './table.ts'

/** What a source says about its pace: resynchronizations that wait, forecasts, hints, backlogs. */
export const flowErrors = {
  'resync-waits': {
    cause:
      'A synchronization of the VM is due and waits for its window, its start time or a person; until then no copy means anything.',
    action: 'Let it begin: "hotsite vm resync VM --now".',
    retryable: true,
  },
  'rpo-breach-forecast': {
    cause:
      'The VM changes faster than the link or the throttle lets through, or the target is away: the data there will soon be older than twice the copy frequency.',
    action:
      'Raise the throttle of the policy, give the link room, or choose a longer copy frequency; if the target is away, bring it back.',
    retryable: true,
  },
  'rpo-breach-over': {
    cause: 'The changes fit through the link again.',
    action: 'Nothing.',
    retryable: true,
  },
  'point-suspect': {
    cause:
      'What was written looks unlike the ordinary work of the VM: far more of it, or data that does not compress, as an encryption of files makes it. A hint, never a judgement: updates and new backups look alike.',
    action:
      'Look into the VM. The recovery point before this one is held; fail over or test with it by "--point" if the VM was attacked.',
    retryable: true,
  },
  'app-consistent-failed': {
    cause:
      'The guest agent does not run in the VM, or its applications and file systems did not come to rest in the time there is for it.',
    action:
      'Nothing is lost: the point is crash-consistent, and it is tried again within minutes. Install and start qemu-guest-agent in the guest; look at its hooks if they are slow.',
    retryable: true,
  },
  'catching-up': {
    cause: 'The target was away or slow, and copy cycles wait in the buffer of the source.',
    action: 'Nothing: what would not be kept travels as part of what is. The message says how long it takes.',
    retryable: true,
  },
  'caught-up': {
    cause: 'The newest state has arrived; older points that the policy keeps may follow.',
    action: 'Nothing.',
    retryable: true,
  },
  backfilled: {
    cause: 'The points of the time the target was away, as far as the policy keeps them, are there as well.',
    action: 'Nothing.',
    retryable: true,
  },
  'backfill-abandoned': {
    cause:
      'Points of the time the target was away could not be brought there any more: a synchronization became due, the target was repaired, or its program is older.',
    action: 'Nothing: newer points are at the target. The message says why.',
    retryable: true,
  },
} as const satisfies Record<string, ErrorEntry>
