/**
 * Named instants at which a test may kill the process. Production passes `noCrash`.
 * HOTSITE_CRASH_AT=<name>[:<n>] makes the n-th passage (default 1) a SIGKILL of this process.
 */
export type CrashPoint = (name: string) => void

export const noCrash: CrashPoint = () => {}

export function crashPointFromEnv(env: NodeJS.ProcessEnv): CrashPoint {
  const wanted = env['HOTSITE_CRASH_AT']
  if (!wanted) return noCrash
  // Names may hold a colon themselves: only digits behind the last one are a count.
  const [, name, nth] = /^(.*?)(?::(\d+))?$/.exec(wanted) ?? []
  let left = Number(nth ?? 1)
  return (passed) => {
    if (passed === name && --left === 0) process.kill(process.pid, 'SIGKILL')
  }
}
