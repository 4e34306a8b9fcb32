/** libvirt through its own command line: what an operator can type is what we do, and no native binding has to fit. */
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { HotsiteError } from '../errors/hotsite-error.ts'

export interface Virsh {
  /** Answers what it prints. Throws `vm-unknown`, `libvirt-unreachable`, `libvirt-failed`. */
  run(args: readonly string[]): Promise<string>
  /** The same with one more argument: the path of a file that holds this text, for as long as it takes. */
  runWithFile(args: readonly string[], text: string): Promise<string>
  /**
   * Many commands over one connection, each with what it printed; undefined: that one failed. Arguments without single
   * quotes. Throws `libvirt-unreachable`.
   */
  batch(commands: readonly (readonly string[])[]): Promise<(string | undefined)[]>
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
  const run = async (args: readonly string[]): Promise<string> => {
    try {
      return (await promisify(execFile)('virsh', all(args), options)).stdout
    } catch (error) {
      throw failure(uri, args, error as Failure)
    }
  }
  return {
    run,
    async runWithFile(args, text) {
      // Not its standard input: virsh opens that by name, and a socket cannot be opened.
      const dir = mkdtempSync(join(tmpdir(), 'hotsite-virsh-'))
      try {
        const path = join(dir, 'text.xml')
        writeFileSync(path, text, { mode: 0o600 })
        return await run([...args, path])
      } finally {
        rmSync(dir, { recursive: true, force: true })
      }
    },
    async batch(commands) {
      if (commands.length === 0) return []
      // Not -q: a command that only says that it is done would say nothing.
      const script = commands.map((args, i) => `echo ${mark(i)}; ${args.map(quoted).join(' ')}`).join('; ')
      const printed = await promisify(execFile)('virsh', ['-c', uri, script], options).catch(
        (error: Failure) => {
          const failed = failure(uri, commands[0] ?? [], error)
          // The last command decides how virsh ends.
          if (failed.code === 'libvirt-unreachable') throw failed
          return { stdout: error.stdout ?? '' }
        },
      )
      return resultsOf(printed.stdout, commands.length)
    },
    runSync(args) {
      const { error, status, stdout, stderr } = spawnSync('virsh', all(args), options)
      if (error || status !== 0) throw failure(uri, args, { ...error, stderr, code: codeOf(error) ?? status })
      return stdout
    },
  }
}

const mark = (index: number) => `@hotsite-result-${index}@`

function quoted(text: string): string {
  if (text.includes("'")) throw new Error(`a single quote in the virsh argument ${text}`)
  return `'${text}'`
}

function resultsOf(printed: string, count: number): (string | undefined)[] {
  return Array.from({ length: count }, (_, i) => {
    const from = printed.indexOf(mark(i))
    if (from < 0) return undefined
    const next = printed.indexOf(mark(i + 1), from)
    const text = printed.slice(from + mark(i).length, next < 0 ? undefined : next).trim()
    return text === '' ? undefined : text
  })
}

interface Failure {
  readonly code?: unknown
  readonly stdout?: string
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
