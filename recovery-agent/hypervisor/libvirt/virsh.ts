/** libvirt through its own command line: what an operator can type is what we do, and no native binding has to fit. */
import { execFile, spawnSync } from 'node:child_process'
import { promisify } from 'node:util'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

export interface Virsh {
  /** Answers what it prints. Throws `vm-unknown`, `libvirt-unreachable`, `libvirt-failed`. */
  run(args: readonly string[]): Promise<string>
  /** The same for callers that may not wait. */
  runSync(args: readonly string[]): string
}

export interface VirshOptions {
  /** As libvirt has it: `qemu:///system`. */
  readonly uri: string
  /** libvirt itself waits 30 s for a domain that another job holds. */
  readonly timeoutMs: number
}

/** Definitions of domains are some KiB each. */
const MAX_OUTPUT_BYTES = 16 << 20

export function openVirsh({ uri, timeoutMs }: VirshOptions): Virsh {
  const options = {
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    maxBuffer: MAX_OUTPUT_BYTES,
    encoding: 'utf8',
    // Its messages are recognized by their words.
    env: { ...process.env, LC_ALL: 'C' },
  } as const
  const all = (args: readonly string[]) => ['-q', '-c', uri, ...args]
  return {
    async run(args) {
      try {
        return (await promisify(execFile)('virsh', all(args), options)).stdout
      } catch (error) {
        throw failure(uri, args, error as Failure)
      }
    },
    runSync(args) {
      const { error, status, stdout, stderr } = spawnSync('virsh', all(args), options)
      if (error || status !== 0) throw failure(uri, args, { ...error, stderr, code: codeOf(error) ?? status })
      return stdout
    },
  }
}

interface Failure {
  readonly code?: unknown
  readonly killed?: boolean
  readonly stderr?: string
}

function codeOf(error: Error | undefined): unknown {
  return error && 'code' in error ? error.code : undefined
}

function failure(uri: string, args: readonly string[], { code, killed, stderr = '' }: Failure): HotsiteError {
  const what = `virsh ${args[0] ?? ''} at ${uri}`
  const said = stderr
    .replaceAll(/^error: /gm, '')
    .replaceAll(/\s*\n\s*/g, '; ')
    .trim()
  if (code === 'ENOENT')
    return new HotsiteError('libvirt-unreachable', `${what}: the program virsh is not installed`)
  if (killed || code === 'ETIMEDOUT')
    return new HotsiteError('libvirt-unreachable', `${what}: it did not answer in time`)
  if (/failed to connect|Failed to connect|Cannot recv data|End of file while reading/.test(said))
    return new HotsiteError('libvirt-unreachable', `${what}: ${said}`)
  if (/failed to get domain|Domain not found/.test(said))
    return new HotsiteError('vm-unknown', `${what}: ${said}`)
  return new HotsiteError('libvirt-failed', `${what}: ${said || `it ended with ${String(code)}`}`)
}
