/** A disk image shown over NBD by a qemu-nbd of its own, which takes no lock: whoever starts the VM is not held up. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, rmSync } from 'node:fs'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Domain, DomainDisk } from '#shared/libvirt/domain.ts'
import { isListening } from '../../nbd/unix-stream.ts'
import type { LeftoverFiles } from './leftovers.ts'

export interface ShownImage extends Disposable {
  readonly socketPath: string
  /** The one that was asked for, if the image has it. */
  readonly bitmap: string | undefined
}

/** A loaded host starts a program slowly. */
const START_TIMEOUT_MS = 20_000

/** Throws `disk-missing`, `capture-failed`. */
export async function show(
  deps: { readonly files: LeftoverFiles; readonly clock: Clock },
  of: { readonly domain: Domain; readonly disk: DomainDisk; readonly bitmap?: string | undefined },
): Promise<ShownImage> {
  const { domain, disk, bitmap } = of
  const { diskId, target, path, format } = disk
  if (path === null || !existsSync(path))
    throw new HotsiteError(
      'disk-missing',
      `disk ${diskId} of VM ${domain.name} is not at ${path ?? 'any path of this host'}`,
    )
  const image = `driver=${format},force-share=on,file.driver=file,file.filename=${path.replaceAll(',', ',,')}`
  const socketPath = deps.files.socketPath(`${domain.uuid}-${target}`)
  const start = (options: readonly string[]) =>
    startServer(deps.clock, { socketPath, path, options: [...options, '--image-opts', image] })
  if (bitmap !== undefined) {
    try {
      return { socketPath, bitmap, ...(await start(['-B', bitmap])) }
    } catch (error) {
      // QEMU that was killed leaves a bitmap that says nothing, or none: then the disk is shown without.
      if (!(error instanceof HotsiteError) || error.code !== 'capture-failed') throw error
    }
  }
  return { socketPath, bitmap: undefined, ...(await start([])) }
}

async function startServer(
  clock: Clock,
  { socketPath, path, options }: { socketPath: string; path: string; options: readonly string[] },
): Promise<Disposable> {
  rmSync(socketPath, { force: true })
  const server = spawn('qemu-nbd', ['-r', '-t', '-k', socketPath, ...options], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  server.stderr.on('data', (bytes: Buffer) => {
    said = (said + bytes.toString()).slice(-2000)
  })
  const gone = once(server, 'exit').catch(() => {})
  const deadlineMs = clock.monotonicMs() + START_TIMEOUT_MS
  const stop = () => {
    server.kill('SIGKILL')
    rmSync(socketPath, { force: true })
  }
  while (!isListening(socketPath)) {
    const isOver = server.exitCode !== null || server.pid === undefined
    if (isOver || clock.monotonicMs() > deadlineMs) {
      stop()
      const why = said.trim() || 'it does not start; is qemu-utils installed?'
      throw new HotsiteError('capture-failed', `qemu-nbd does not show ${path}: ${why}`)
    }
    await Promise.race([clock.sleep(10), gone])
  }
  return { [Symbol.dispose]: stop }
}
