import { mergeSteps } from '#shared/formats/qcow2/merge.ts'

/** Instants around every durable step of the replica store. HOTSITE_CRASH_AT takes these names. */
export const replicaCrashPoints = [
  'replica.begin-cleared',
  'replica.begin-recorded',
  'replica.sync-data-durable',
  'replica.sync-journal-written',
  'replica.sync-journal-durable',
  'replica.seal-begun',
  'replica.seal-tables-written',
  'replica.seal-header-written',
  'replica.seal-disk-sealed',
  'replica.seal-disk-renamed',
  'replica.seal-files-durable',
  'replica.seal-in-transaction',
  'replica.seal-committed',
  'replica.copy-written',
  'replica.discard-files-removed',
  'replica.prune-marked',
  ...mergeSteps.map((step) => `replica.prune-${step}` as const),
  'replica.prune-renamed',
  'replica.prune-disk-done',
  'replica.prune-committed',
  'replica.overlay-leased',
  'replica.overlay-disk-written',
  'replica.overlay-files-durable',
  'replica.overlay-ready',
  'replica.overlay-files-removed',
  'replica.adopt-disk-written',
  'replica.adopt-files-durable',
  'replica.adopt-committed',
  'replica.commit-recorded',
  'replica.remove-marked',
  'replica.remove-files-removed',
  'replica.names-aside',
  'replica.rebuild-written',
  'replica.rebuild-renamed',
  'replica.repair-written',
  'replica.repair-synced',
] as const

export type ReplicaCrashPoint = (typeof replicaCrashPoints)[number]
export type ReplicaCrash = (name: ReplicaCrashPoint) => void
