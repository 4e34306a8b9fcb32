/** A disk image shown over NBD by a qemu-nbd of its own, which takes no lock: whoever starts the VM is not held up. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, rmSync } from 'node:fs'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Domain, DomainDisk } from '#shared/libvirt/domain.ts'
import { NbdClient } from '../../nbd/client.ts'
import type { LeftoverFiles } from './leftovers.ts'

export interface ShownImage extends Disposable {
  readonly socketPath: string
  /** A reader of it. While it is open others may connect as well; the program ends with its last one, also when we are killed. */
  readonly client: NbdClient
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
  const start = (options: readonly string[], contexts: readonly string[]) =>
    startServer(deps.clock, { socketPath, path, options: [...options, '--image-opts', image], contexts })
  if (bitmap !== undefined) {
    try {
      return await start(['-B', bitmap], [`qemu:dirty-bitmap:${bitmap}`])
    } catch (error) {
      // QEMU that was killed leaves a bitmap that says nothing, or none: then the disk is shown without.
      if (!(error instanceof HotsiteError) || error.code !== 'capture-failed') throw error
    }
  }
  return await start([], [])
}

async function startServer(
  clock: Clock,
  of: { socketPath: string; path: string; options: readonly string[]; contexts: readonly string[] },
): Promise<ShownImage> {
  const { socketPath, path, options } = of
  rmSync(socketPath, { force: true })
  // Without -t it ends with its last client; -e 0: any number of them.
  const server = spawn('qemu-nbd', ['-r', '-e', '0', '-k', socketPath, ...options], {
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
  const contexts = ['base:allocation', ...of.contexts]
  for (;;) {
    try {
      const client = NbdClient.connect({ socketPath, exportName: '', contexts })
      const dispose = () => {
        client[Symbol.dispose]()
        stop()
      }
      return { socketPath, client, [Symbol.dispose]: dispose }
    } catch (error) {
      const isOver = server.exitCode !== null || server.pid === undefined
      if (isOver || clock.monotonicMs() > deadlineMs) {
        stop()
        const why = said.trim() || 'it does not start; is qemu-utils installed?'
        throw new HotsiteError('capture-failed', `qemu-nbd does not show ${path}: ${why}`, { cause: error })
      }
      await Promise.race([clock.sleep(10), gone])
    }
  }
}
