/** The command line with streams of its own in this process: a process for each call costs half a second. */
import { Readable, Writable } from 'node:stream'
import { runCli } from '#coordinator/cli/main.ts'
import { CliFailure, type HotsiteCli } from '../lab-kit/hotsite-cli.ts'

/** What a person sees of one command. */
export interface Said {
  readonly exitCode: number
  readonly out: string
  readonly err: string
}

function collected(): { readonly stream: Writable; readonly text: () => string } {
  const pieces: string[] = []
  const stream = new Writable({
    decodeStrings: false,
    write(piece: string | Buffer, _encoding, done) {
      pieces.push(String(piece))
      done()
    },
  })
  return { stream, text: () => pieces.join('') }
}

const noDaemon = async (): Promise<never> => {
  throw new Error('a daemon takes a process of its own')
}

/** No daemons: those have processes of their own. */
export async function say(socket: string, args: readonly string[]): Promise<Said> {
  const [out, err] = [collected(), collected()]
  const exitCode = await runCli({
    arguments: args,
    terminal: {
      out: out.stream,
      err: err.stream,
      in: Readable.from([]),
      env: { ...process.env, HOTSITE_SOCKET: socket, NO_COLOR: '1' },
    },
    version: '0.0.0',
    daemons: { coordinator: noDaemon, provider: noDaemon, agent: noDaemon },
  })
  return { exitCode, out: out.text(), err: err.text() }
}

/** As hotsiteCli, which starts a process each time. */
export function cliHere(socket: string): HotsiteCli {
  return async (...args) => {
    const { exitCode, out, err } = await say(socket, [...args, '--json'])
    if (exitCode !== 0) throw new CliFailure(args, exitCode, err || out)
    return out.trim() === '' ? undefined : JSON.parse(out)
  }
}
