/** What attackers have: a client that can send any bytes inside an established session, and a TCP proxy. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { WebSocket } from 'ws'
import { systemClock } from '../clock.ts'
import { peekMembership } from '../trust/membership.ts'
import { encodeMessage } from './codec.ts'
import type { DialOptions } from './dial.ts'
import { opener, sealer } from './envelope.ts'
import { clientHandshake, type Established, handshakeMessages } from './handshake.ts'
import { handshakeRandom } from './key-schedule.ts'
import { channelLimits } from './limits.ts'
import { gmac, noMac } from './mac.ts'
import type { Message } from './message.ts'
import { channelPath, tlsExporter } from './socket-handshake.ts'

export interface RawSession extends Disposable {
  readonly socket: WebSocket
  readonly established: Established
  /** The next frame of the session, complete and correct; alter it before sending. */
  seal(message: Message): Buffer
  sealBytes(header: Uint8Array, tail?: Buffer): Buffer
  /** Frames that the other side sent since the handshake. */
  readonly received: Buffer[]
  readonly closed: Promise<{ readonly code: number; readonly text: string }>
}

/** Opens a WebSocket to a listener without saying anything. */
export async function rawSocket(options: DialOptions): Promise<{ socket: WebSocket; exporter: Buffer }> {
  const socket = new WebSocket(`wss://${options.host}:${options.port}${channelPath}`, {
    ca: [options.pinnedCertificatePem],
    ...({ checkServerIdentity: () => undefined } as object),
    perMessageDeflate: false,
  })
  socket.on('error', () => undefined)
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('upgrade', ({ socket: wire }) =>
      socket.once('open', () => resolve({ socket, exporter: tlsExporter(wire) })),
    )
  })
}

/** A member that completes the handshake and then does as it likes. */
export async function rawSession(options: DialOptions): Promise<RawSession> {
  const { socket, exporter } = await rawSocket(options)
  const machine = clientHandshake({
    exporter,
    random: handshakeRandom(),
    nowMs: systemClock.now(),
    vaultId: peekMembership(options.self.membership).vaultId,
    trust: {
      vaultPublicKey: options.vaultPublicKey,
      membership: options.self.membership,
      keys: options.self.keys,
      isRevoked: () => false,
    },
  })
  const incoming = opener(noMac, channelLimits, 0)
  const outgoing = sealer(noMac, channelLimits, 0)
  const received: Buffer[] = []
  const closed = new Promise<{ code: number; text: string }>((resolve) =>
    socket.once('close', (code, text) => resolve({ code, text: text.toString() })),
  )
  const established = await new Promise<Established>((resolve, reject) => {
    socket.on('message', function onFrame(data: Buffer) {
      try {
        const step = machine.receive(incoming.open(data).header)
        if (step.send) socket.send(whole(outgoing.seal(step.send, undefined)))
        if (!step.established) return
        socket.off('message', onFrame)
        socket.on('message', (frame: Buffer) => received.push(frame))
        resolve(step.established)
      } catch (error) {
        reject(error)
      }
    })
    socket.send(whole(outgoing.seal(machine.first, undefined)))
  })
  const limits = { maxHeaderBytes: 2 ** 31, maxTailBytes: 2 ** 31 }
  const session = sealer(gmac(established.keys.clientToServer, 'client-to-server'), limits, handshakeMessages)
  return {
    socket,
    established,
    seal: (message) => whole(session.seal(encodeMessage(message), message.tail)),
    sealBytes: (header, tail) => whole(session.seal(header, tail)),
    received,
    closed,
    [Symbol.dispose]: () => socket.terminate(),
  }
}

function whole(sealed: { head: Buffer; tail: Buffer | undefined; tag: Buffer }): Buffer {
  return Buffer.concat([sealed.head, sealed.tail ?? Buffer.alloc(0), sealed.tag])
}

export interface TcpProxy extends AsyncDisposable {
  readonly port: number
  /** From now on nothing passes, and nobody is told: a pulled cable. */
  stall(): void
  /** One bit of the next bytes towards the listener is flipped. */
  flipNextBit(): void
  /** The next bytes towards the listener are cut in the middle, then both connections end. */
  cutNextBytes(): void
  readonly connectionCount: number
}

export async function tcpProxy(targetPort: number): Promise<TcpProxy> {
  let mode: 'pass' | 'stall' | 'flip' | 'cut' = 'pass'
  let connectionCount = 0
  const open = new Set<Socket>()
  const server = createServer((near) => {
    connectionCount += 1
    const far = connect(targetPort, '127.0.0.1')
    for (const socket of [near, far]) {
      open.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        open.delete(socket)
        if (mode !== 'stall') for (const other of [near, far]) other.destroy()
      })
    }
    near.on('data', (data) => {
      const now = mode
      if (now === 'stall') return
      if (now === 'flip') {
        mode = 'pass'
        const index = Math.floor(data.length / 2)
        data[index] = (data[index] ?? 0) ^ 0x10
      }
      far.write(now === 'cut' ? data.subarray(0, data.length / 2) : data)
      if (now === 'cut') {
        mode = 'pass'
        far.end()
        near.destroy()
      }
    })
    far.on('data', (data) => {
      if (mode !== 'stall') near.write(data)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    stall() {
      mode = 'stall'
    },
    flipNextBit() {
      mode = 'flip'
    },
    cutNextBytes() {
      mode = 'cut'
    },
    get connectionCount() {
      return connectionCount
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
