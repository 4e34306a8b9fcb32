/**
 * A process of its own that lets a suspended VM go (I11): after `limitMs`, and at once when the agent is gone, which it
 * sees by the end of its standard input. Started before the VM is suspended, so no instant is left uncovered.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

/**
 * $1: session and group id of the VM, $2: seconds. First whatever made a group of its own within the session, then the
 * group (see signalVm). It waits for its own children, so that nothing is left to an init that may not reap.
 * dash takes a group after "--" with `kill -s` only.
 */
const SCRIPT = `
resume() {
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    set -- "$1" "$2" \${line##*\\) }
    [ "$6" = "$1" ] && [ "$5" != "$1" ] || continue
    pid=\${stat#/proc/}
    kill -s CONT "\${pid%/stat}" 2>/dev/null
  done
  kill -s CONT -- "-$1" 2>/dev/null
}
(
  trap 'kill "$sleeper"; wait; exit' TERM
  sleep "$2" & sleeper=$!
  wait "$sleeper"
  resume "$1" "$2"
) &
timer=$!
read -r word
[ "$word" = done ] || resume "$1" "$2"
kill -s TERM "$timer" 2>/dev/null
wait
`

/** Dispose of it once the VM has been let go. */
export function startWatchdog(leaderPid: number, limitMs: number): Disposable {
  const child: ChildProcess = spawn(
    'sh',
    ['-c', SCRIPT, 'hotsite-freeze-watchdog', String(leaderPid), (limitMs / 1000).toFixed(3)],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'], cwd: '/', env: { PATH: process.env['PATH'] } },
  )
  child.on('error', () => {})
  child.stdin?.on('error', () => {})
  if (child.pid === undefined) {
    throw new HotsiteError('vm-suspend-failed', 'cannot start the watchdog of the freeze: sh does not start')
  }
  child.unref()
  return { [Symbol.dispose]: () => child.stdin?.end('done\n') }
}
