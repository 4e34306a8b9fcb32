/** qemu-nbd over an image, for tests. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { until } from '#shared/folder/testing/test-fabric.ts'
import { connectUnixStream } from '../unix-stream.ts'

export interface ImageServer extends AsyncDisposable {
  readonly socketPath: string
  kill(): Promise<void>
}

export async function serveImage(options: {
  readonly dir: string
  readonly path: string
  readonly format: 'raw' | 'qcow2'
  /** A bitmap in the image, shown as a metadata context. */
  readonly bitmap?: string
}): Promise<ImageServer> {
  const socketPath = join(options.dir, 'nbd.sock')
  const bitmap = options.bitmap === undefined ? [] : ['-B', options.bitmap]
  const child = spawn(
    'qemu-nbd',
    ['-r', '-t', '-e', '4', '-f', options.format, '-k', socketPath, ...bitmap, options.path],
    { stdio: 'ignore' },
  )
  const gone = once(child, 'exit')
  await until('qemu-nbd listens', () => isListening(socketPath) || child.exitCode !== null)
  return {
    socketPath,
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await gone
    },
  }
}

/** A server makes the socket before it listens on it, so that it is there says little. */
function isListening(socketPath: string): boolean {
  try {
    connectUnixStream({ socketPath, timeoutMs: 1_000 })[Symbol.dispose]()
    return true
  } catch {
    return false
  }
}
