/**
 * A process of its own that ends a backup job which could hurt the guest (I11): when room for scratch files gets scarce,
 * for a guest whose overwritten blocks find no room is paused by QEMU; and at once when the agent is gone, which it sees by
 * the end of its standard input. A guest that was paused for it all the same is continued.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

/**
 * $1: connection, $2: domain, $3: folder of the scratch files, $4: KiB that have to stay free there, $5: socket of the job,
 * by which it is told from the jobs of others. One that an agent began with its last breath comes a little later.
 */
const SCRIPT = `
end_job() {
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    if virsh -q -c "$1" backup-dumpxml "$2" | grep -qF "$5"; then
      virsh -q -c "$1" domjobabort "$2" && break
    fi
    sleep 1
  done
  case $(virsh -q -c "$1" domstate --reason "$2") in
    'paused (I/O error)'*) virsh -q -c "$1" resume "$2" ;;
  esac
}
(
  trap 'kill "$sleeper"; wait; exit' TERM
  while free=$(df -Pk "$3" | awk 'NR == 2 { print $4 }') && [ "$free" -ge "$4" ]; do
    sleep 1 & sleeper=$!
    wait "$sleeper"
  done
  end_job "$@"
) &
guard=$!
read -r word
[ "$word" = done ] || end_job "$@"
kill -s TERM "$guard" 2>/dev/null
wait
`

export interface GuardedJob {
  readonly uri: string
  readonly uuid: string
  readonly socketPath: string
  readonly scratchDir: string
  readonly minFreeBytes: number
}

/** Begin it before the job, and dispose of it when that has ended. */
export function guardJob(job: GuardedJob): Disposable {
  const child = spawnGuard(job)
  child.on('error', () => {})
  child.stdin?.on('error', () => {})
  if (child.pid === undefined)
    throw new HotsiteError('capture-failed', 'cannot start the guard of the backup job: sh does not start')
  child.unref()
  return { [Symbol.dispose]: () => child.stdin?.end('done\n') }
}

export function spawnGuard({ uri, uuid, socketPath, scratchDir, minFreeBytes }: GuardedJob): ChildProcess {
  const minFreeKib = String(Math.ceil(minFreeBytes / 1024))
  return spawn('sh', ['-c', SCRIPT, 'hotsite-job-guard', uri, uuid, scratchDir, minFreeKib, socketPath], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
    env: { PATH: process.env['PATH'], LC_ALL: 'C' },
  })
}
