import { classOfError } from '#coordinator/admin/error-class.ts'

/** Scripts depend on these: the numbers never change their meaning. docs/cli.md and `hotsite --help` list them. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  unreachable: 5,
  jobFailed: 6,
  /** Ctrl-C while waiting, as shells have it; the job goes on. */
  interrupted: 130,
} as const

export const exitCodeHelp = [
  [exitCodes.ok, 'done'],
  [exitCodes.failed, 'failed'],
  [exitCodes.usage, 'the command, or what was given to it, is not valid'],
  [exitCodes.notFound, 'not found'],
  [exitCodes.refused, 'refused: busy, not allowed in this state, already done, or not confirmed'],
  [exitCodes.unreachable, 'the coordinator was not reached'],
  [exitCodes.jobFailed, 'the job failed or was cancelled'],
  [exitCodes.interrupted, 'interrupted while waiting; the job goes on'],
] as const

export function exitCodeOf(code: string): number {
  switch (classOfError(code)) {
    case 'invalid':
      return exitCodes.usage
    case 'not-found':
      return exitCodes.notFound
    case 'refused':
      return exitCodes.refused
    case 'unreachable':
      return exitCodes.unreachable
    case 'failed':
      return exitCodes.failed
  }
}
