/**
 * A process of its own that lets a frozen guest go (I11): when it was frozen for as long as it may be, and at once when the
 * agent is gone, which it sees by the end of its standard input. Nothing but a thaw that was seen sends it away.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

/** $1: connection, $2: domain, $3: seconds it may be frozen. A guest that is off needs nothing; libvirtd may be away for a while. */
const SCRIPT = `
thaw() {
  attempt=0
  until virsh -q -c "$1" domfsthaw "$2"; do
    case $(virsh -q -c "$1" domstate "$2") in 'shut off'*|crashed*) break ;; esac
    attempt=$((attempt + 1))
    [ "$attempt" -lt 600 ] || break
    sleep 1
  done
}
(
  trap 'kill "$sleeper"; wait; exit' TERM
  sleep "$3" & sleeper=$!
  wait "$sleeper"
  thaw "$@"
) &
guard=$!
read -r word
[ "$word" = done ] || thaw "$@"
kill -s TERM "$guard" 2>/dev/null
wait
`

export interface GuardedFreeze {
  readonly uri: string
  readonly uuid: string
  readonly limitMs: number
}

export interface FreezeGuard {
  /** The guest was seen to go on. */
  release(): void
  /** It may still be frozen: now. */
  thaw(): void
}

/** Begin it before the freeze. Throws `capture-failed`. */
export function guardFreeze(freeze: GuardedFreeze): FreezeGuard {
  const child = spawnFreezeGuard(freeze)
  child.on('error', () => {})
  child.stdin?.on('error', () => {})
  if (child.pid === undefined)
    throw new HotsiteError('capture-failed', 'cannot start the guard of the freeze: sh does not start')
  child.unref()
  return { release: () => child.stdin?.end('done\n'), thaw: () => child.stdin?.end() }
}

export function spawnFreezeGuard({ uri, uuid, limitMs }: GuardedFreeze): ChildProcess {
  return spawn('sh', ['-c', SCRIPT, 'hotsite-freeze-guard', uri, uuid, String(limitMs / 1000)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
    env: { PATH: process.env['PATH'], LC_ALL: 'C' },
  })
}
