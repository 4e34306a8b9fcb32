/**
 * A blocking stream over a Unix socket, for a worker that reads disks synchronously. Node has none: its sockets only call
 * back. The calls are those of the C library of this very process.
 */
import { createRequire } from 'node:module'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

/** What the client needs of a connection. Both throw `nbd-failed` when the other side is gone or silent. */
export interface ByteStream extends Disposable {
  send(bytes: Buffer): void
  /** Fills `target`. */
  receive(target: Buffer): void
}

export interface ConnectOptions {
  readonly socketPath: string
  /** The longest silence in the middle of an answer: disks are slow at times. */
  readonly timeoutMs?: number
}

const SILENCE_TIMEOUT_MS = 60_000

const AF_UNIX = 1
/** SOCK_STREAM | SOCK_CLOEXEC: no child of ours inherits it. */
const STREAM_TYPE = 1 | 0o2000000
const SOL_SOCKET = 1
const SO_RCVTIMEO = 20
const SO_SNDTIMEO = 21
const MSG_WAITALL = 0x100
const MSG_NOSIGNAL = 0x4000
const EINTR = 4
const EAGAIN = 11
/** sockaddr_un: a family of 2 bytes, then the path with its end. */
const PATH_BYTES = 108

interface LibC {
  socket(domain: number, type: number, protocol: number): number
  connect(fd: number, address: Buffer, lengthBytes: number): number
  setsockopt(fd: number, level: number, name: number, value: Buffer, lengthBytes: number): number
  send(fd: number, bytes: Buffer, lengthBytes: number, flags: number): number
  recv(fd: number, target: Buffer, lengthBytes: number, flags: number): number
  close(fd: number): number
  errno(): number
}

let libC: LibC | undefined

/** Throws `nbd-failed` on a platform without these calls. */
function loadLibC(): LibC {
  if (libC) return libC
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const own = koffi.load(null)
    const call = (declaration: string) => own.func(declaration) as unknown
    libC = {
      socket: call('int socket(int domain, int type, int protocol)') as LibC['socket'],
      connect: call('int connect(int fd, const void *address, uint32_t length)') as LibC['connect'],
      setsockopt: call(
        'int setsockopt(int fd, int level, int name, const void *value, uint32_t length)',
      ) as LibC['setsockopt'],
      send: call('int64_t send(int fd, const void *bytes, uint64_t length, int flags)') as LibC['send'],
      recv: call('int64_t recv(int fd, void *target, uint64_t length, int flags)') as LibC['recv'],
      close: call('int close(int fd)') as LibC['close'],
      errno: () => koffi.errno(),
    }
    return libC
  } catch (error) {
    throw new HotsiteError('nbd-failed', 'this platform has no calls for Unix sockets', { cause: error })
  }
}

export function connectUnixStream({
  socketPath,
  timeoutMs = SILENCE_TIMEOUT_MS,
}: ConnectOptions): ByteStream {
  const c = loadLibC()
  const path = Buffer.from(socketPath)
  if (path.length >= PATH_BYTES)
    throw new HotsiteError(
      'nbd-failed',
      `the path of the socket is longer than ${PATH_BYTES - 1} bytes: ${socketPath}`,
    )
  const fd = c.socket(AF_UNIX, STREAM_TYPE, 0)
  const failed = (what: string, errno = c.errno()) =>
    new HotsiteError('nbd-failed', `${socketPath}: ${what} (errno ${errno})`, {
      details: { socketPath, errno },
    })
  if (fd < 0) throw failed('no socket could be made')
  let isOpen = true
  const close = () => {
    if (isOpen) c.close(fd)
    isOpen = false
  }
  try {
    const address = Buffer.alloc(2 + PATH_BYTES)
    address.writeUInt16LE(AF_UNIX)
    path.copy(address, 2)
    const timeout = Buffer.alloc(16)
    timeout.writeBigInt64LE(BigInt(Math.floor(timeoutMs / 1000)))
    timeout.writeBigInt64LE(BigInt((timeoutMs % 1000) * 1000), 8)
    for (const name of [SO_RCVTIMEO, SO_SNDTIMEO])
      if (c.setsockopt(fd, SOL_SOCKET, name, timeout, timeout.length) < 0)
        throw failed('no time limit could be set')
    if (c.connect(fd, address, address.length) < 0) throw failed('nobody listens there')
  } catch (error) {
    close()
    throw error
  }
  /** Until all of it has passed. */
  const transfer = (bytes: Buffer, move: (rest: Buffer) => number, what: string) => {
    if (!isOpen) throw new HotsiteError('nbd-failed', `${socketPath}: the connection is closed`)
    let done = 0
    while (done < bytes.length) {
      const moved = Number(move(bytes.subarray(done)))
      if (moved > 0) done += moved
      else if (moved === 0) throw failed('the server closed the connection', 0)
      else if (c.errno() === EAGAIN) throw failed(`the server is silent for ${timeoutMs} ms`)
      else if (c.errno() !== EINTR) throw failed(what)
    }
  }
  return {
    send: (bytes) =>
      transfer(bytes, (rest) => c.send(fd, rest, rest.length, MSG_NOSIGNAL), 'a request could not be sent'),
    receive: (target) =>
      transfer(target, (rest) => c.recv(fd, rest, rest.length, MSG_WAITALL), 'an answer could not be read'),
    [Symbol.dispose]: close,
  }
}
