/** Instants around every durable step of the source. HOTSITE_CRASH_AT takes these names. */
export const captureCrashPoints = [
  'capture.snapshot-open',
  'capture.snapshot-closed',
  'capture.rows-written',
  'capture.before-seal',
  'capture.in-seal',
  'capture.after-seal',
  'acknowledge.before-cursor',
  'acknowledge.after-cursor',
  'acknowledge.after-release',
  'owe.before-row',
  'owe.after-row',
  'garbage.step',
  'sync.tree-staged',
  'sync.before-commit',
  'sync.in-commit',
  'sync.after-commit',
] as const

export type CaptureCrashPoint = (typeof captureCrashPoints)[number]
