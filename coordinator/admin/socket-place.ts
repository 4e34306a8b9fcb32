import { chmodSync, lstatSync, mkdirSync, statSync, unlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { adminLimits } from './limits.ts'

/**
 * Makes the place of the admin socket ready to listen on. Whoever can reach the socket rules the coordinator, so its
 * folder must be ours and closed to everybody else; the mode of the socket itself is not honoured everywhere.
 */
export async function prepareSocketPlace(socketPath: string): Promise<void> {
  if (isNamedPipe(socketPath)) return
  ensurePathFits(socketPath)
  ensureFolderIsPrivate(dirname(socketPath))
  await removeStaleSocket(socketPath)
}

function isNamedPipe(socketPath: string): boolean {
  return process.platform === 'win32' || socketPath.startsWith('\\\\.\\pipe\\')
}

export function ensurePathFits(socketPath: string): void {
  const sizeBytes = Buffer.byteLength(socketPath)
  if (process.platform === 'win32' || sizeBytes <= adminLimits.maxSocketPathBytes) return
  throw new HotsiteError(
    'admin-socket-path-unusable',
    `the admin socket path has ${sizeBytes} bytes, the system takes ${adminLimits.maxSocketPathBytes}: ${socketPath}`,
  )
}

function ensureFolderIsPrivate(folder: string): void {
  if (mkdirSync(folder, { recursive: true, mode: 0o700 }) !== undefined) {
    // The umask may have taken bits away; it cannot have added any.
    chmodSync(folder, 0o700)
  }
  const { uid, mode } = statSync(folder)
  if (uid !== process.getuid?.())
    throw new HotsiteError(
      'admin-socket-exposed',
      `${folder} belongs to user ${uid}, not to the one running this`,
    )
  if ((mode & 0o077) !== 0)
    throw new HotsiteError(
      'admin-socket-exposed',
      `${folder} has mode ${(mode & 0o777).toString(8)}; the admin socket needs a folder of mode 700`,
    )
}

async function removeStaleSocket(socketPath: string): Promise<void> {
  const found = lstatSync(socketPath, { throwIfNoEntry: false })
  if (!found) return
  if (!found.isSocket())
    throw new HotsiteError('admin-socket-path-unusable', `${socketPath} exists and is not a socket`)
  if (await isAlive(socketPath))
    throw new HotsiteError('admin-socket-in-use', `another coordinator answers on ${socketPath}`)
  unlinkSync(socketPath)
}

/** A process that does not accept in time is alive all the same: only a refusal proves that nobody is there. */
function isAlive(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath)
    const settle = (alive: boolean) => {
      socket.destroy()
      resolve(alive)
    }
    socket.setTimeout(adminLimits.probeTimeoutMs, () => settle(true))
    socket.once('connect', () => settle(true))
    socket.once('error', (error: NodeJS.ErrnoException) =>
      settle(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    )
  })
}
