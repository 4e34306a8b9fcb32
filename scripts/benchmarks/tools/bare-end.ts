/** One end of the bare copy (bare.ts), in a process of its own. Each extent is a header of offset and length, then its bytes. */
import { closeSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'

export type BareRole =
  | { readonly role: 'receiver'; readonly keys: string }
  | { readonly role: 'sender'; readonly keys: string; readonly port: number }

export interface BareJob {
  readonly path: string
  readonly extents: readonly { readonly offsetBytes: number; readonly lengthBytes: number }[]
}

const HEADER_BYTES = 16
const role = JSON.parse(process.argv[2] ?? '{}') as BareRole
const tls = (name: 'server' | 'client') => ({
  ca: readFileSync(join(role.keys, 'ca-cert.pem')),
  cert: readFileSync(join(role.keys, `${name}-cert.pem`)),
  key: readFileSync(join(role.keys, `${name}-key.pem`)),
  minVersion: 'TLSv1.3' as const,
})
const tell = (message: object) => process.send?.(message)

if (role.role === 'receiver') receive()
else send(role.port)

function receive(): void {
  let path = ''
  const server = createServer({ ...tls('server'), requestCert: true, rejectUnauthorized: true }, (socket) =>
    writeExtents(socket, path),
  )
  server.listen(0, '127.0.0.1', () => tell({ port: (server.address() as AddressInfo).port }))
  process.on('message', (job: BareJob) => {
    path = job.path
    tell({})
  })
  process.once('disconnect', () => server.close())
}

function writeExtents(socket: TLSSocket, path: string): void {
  const fd = openSync(path, 'r+')
  const header = Buffer.alloc(HEADER_BYTES)
  let headerBytes = 0
  let at = 0
  let left = 0
  socket.on('data', (chunk: Buffer) => {
    for (let used = 0; used < chunk.length; ) {
      if (left > 0) {
        const count = Math.min(left, chunk.length - used)
        writeSync(fd, chunk, used, count, at)
        used += count
        at += count
        left -= count
        continue
      }
      const count = Math.min(HEADER_BYTES - headerBytes, chunk.length - used)
      chunk.copy(header, headerBytes, used, used + count)
      used += count
      headerBytes += count
      if (headerBytes < HEADER_BYTES) continue
      headerBytes = 0
      at = Number(header.readBigUInt64LE(0))
      left = Number(header.readBigUInt64LE(8))
      if (left > 0) continue
      fsyncSync(fd)
      closeSync(fd)
      socket.end('ok')
    }
  })
}

function send(port: number): void {
  process.on('message', (job: BareJob) => {
    const socket = connect({ ...tls('client'), host: '127.0.0.1', servername: 'localhost', port }, () => {
      void sendExtents(socket, job)
    })
    socket.on('data', () => {})
    socket.once('end', () => tell({}))
  })
  tell({})
}

/** The size of one write: what TLS cuts into records anyway, in as few calls as possible. */
const PIECE_BYTES = 1024 * 1024

async function sendExtents(socket: TLSSocket, { path, extents }: BareJob): Promise<void> {
  const fd = openSync(path, 'r')
  let piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
  let filled = 0
  const flush = async () => {
    if (filled === 0) return
    const more = socket.write(piece.subarray(0, filled))
    piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
    filled = 0
    if (!more) await new Promise<void>((resolve) => socket.once('drain', () => resolve()))
  }
  for (const { offsetBytes, lengthBytes } of [...extents, { offsetBytes: 0, lengthBytes: 0 }]) {
    if (filled + HEADER_BYTES > PIECE_BYTES) await flush()
    piece.writeBigUInt64LE(BigInt(offsetBytes), filled)
    piece.writeBigUInt64LE(BigInt(lengthBytes), filled + 8)
    filled += HEADER_BYTES
    for (let done = 0; done < lengthBytes; ) {
      if (filled === PIECE_BYTES) await flush()
      const count = Math.min(lengthBytes - done, PIECE_BYTES - filled)
      readSync(fd, piece, filled, count, offsetBytes + done)
      filled += count
      done += count
    }
  }
  await flush()
  closeSync(fd)
}
