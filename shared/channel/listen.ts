/** The listening end of channels: TLS, limits on strangers, and the policy on duplicate identities. */
import { createServer, type Server } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Clock } from '../clock.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { ServerId, VaultId } from '../ids.ts'
import type { Logger } from '../log.ts'
import type { Rng } from '../rng.ts'
import type { TlsIdentity } from '../trust/tls-identity.ts'
import { distrustOf } from './distrust.ts'
import { type Established, serverHandshake, type VaultTrust } from './handshake.ts'
import { handshakeRandom } from './key-schedule.ts'
import { type ChannelLimits, limitsWith } from './limits.ts'
import { messageWire } from './message-wire.ts'
import type { Channel, ChannelClosed } from './port.ts'
import { refusals } from './refusals.ts'
import { type SocketChannel, socketChannel } from './socket-channel.ts'
import { channelPath, driveHandshake, tlsExporter } from './socket-handshake.ts'
import { type Strangers, strangers } from './strangers.ts'

/** Something an operator may want to see: a refused connection, or a suspicious one. */
export interface ChannelEvent {
  /** Code of shared/errors. */
  readonly code: string
  readonly message: string
  /** "address:port" of the other side. */
  readonly remote: string
  /** Proved for `identity-twice` and for channels that failed; undefined for whoever was refused. */
  readonly vaultId?: VaultId
  readonly serverId?: ServerId
}

export interface ListenOptions {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  readonly tls: TlsIdentity
  /** The vaults served here, by the vault id in the client's membership. */
  readonly trust: (vaultId: VaultId) => VaultTrust | undefined
  readonly clock: Clock
  /** Spreads the heartbeats of agents that all return at once. */
  readonly rng?: Rng | undefined
  readonly log: Logger
  readonly onChannel: (channel: Channel) => void
  readonly onRefused: (event: ChannelEvent) => void
  readonly limits?: Partial<ChannelLimits> | undefined
  /** Where payloads are received into, if there is room; undefined: into memory of their own. */
  readonly payloadMemory?: ((sizeBytes: number) => Buffer | undefined) | undefined
  readonly versions?: readonly number[] | undefined
}

export interface ChannelListener extends AsyncDisposable {
  readonly port: number
  /** Established channels. */
  connections(): readonly Channel[]
  /** Connections that have not proved who they are. */
  readonly unauthenticated: number
  /** Closes the channel of a removed server at once; no effect when it is not connected. */
  dropServer(serverId: ServerId): void
}

export async function listenChannels(options: ListenOptions): Promise<ChannelListener> {
  const { log } = options
  const limits = limitsWith(options.limits)
  const channels = new Map<string, SocketChannel>()
  const refused = refusals({
    limits,
    clock: options.clock,
    tell(event) {
      log.warn('channel refused', { code: event.code, reason: event.message, remote: event.remote })
      options.onRefused(event)
    },
  })
  const onRefused = (event: ChannelEvent) => refused.note(event)
  const pending = strangers({ limits, clock: options.clock, onRefused })
  const server = createTlsServer(options, limits)
  server.on('connection', (socket: Socket) => pending.admit(socket))
  const sockets = new WebSocketServer({
    server,
    path: channelPath,
    perMessageDeflate: false,
    maxPayload: limits.maxHandshakeFrameBytes,
    clientTracking: false,
  })
  // ws repeats the errors of the server, which `listening` handles; unheard, they would end the process.
  sockets.on('error', () => undefined)
  sockets.on('connection', (socket, request) =>
    welcome({ socket, wire: request.socket, options, limits, pending, keep, onRefused }),
  )

  function keep(channel: SocketChannel, remote: string): void {
    const { vaultId, serverId, name } = channel.peer
    const key = `${vaultId}/${serverId}`
    const older = channels.get(key)
    channels.set(key, channel)
    if (older) {
      const silentMs = options.clock.monotonicMs() - older.lastReceivedMonotonicMs
      // An older channel that has been silent for an interval is a reconnect after a broken link, not a second machine.
      if (silentMs <= limits.heartbeatIntervalMs)
        onRefused({
          code: 'identity-twice',
          message: `${name} connected again from ${remote} while its older connection was alive`,
          remote,
          vaultId,
          serverId,
        })
      older.close({ code: 'channel-replaced', message: `${name} connected again from ${remote}` })
    }
    void channel.closed.then((why) => {
      if (channels.get(key) === channel) channels.delete(key)
      log.info('channel closed', { peer: serverId, name, code: why.code, reason: why.message })
      if (suspicious.has(why.code)) onRefused({ ...why, remote, vaultId, serverId })
    })
    log.info('channel established', { peer: serverId, name, kind: channel.peer.kind, remote })
    options.onChannel(channel)
  }

  const port = await listening(server, options)
  return {
    port,
    connections: () => [...channels.values()],
    get unauthenticated() {
      return pending.count
    },
    dropServer(serverId) {
      const why: ChannelClosed = {
        code: 'membership-revoked',
        message: 'the server was removed from the vault',
      }
      for (const channel of channels.values()) if (channel.peer.serverId === serverId) channel.close(why)
    },
    async [Symbol.asyncDispose]() {
      const stopped = new Promise<void>((resolve) => server.close(() => resolve()))
      sockets.close()
      pending.dismissAll()
      await Promise.all([...channels.values()].map((channel) => channel[Symbol.asyncDispose]()))
      server.closeAllConnections()
      await stopped
      refused[Symbol.dispose]()
    },
  }
}

/** Ends of a channel that are worth an event; the others are everyday. */
const suspicious = new Set([
  'channel-out-of-sequence',
  'channel-altered',
  'channel-malformed',
  'channel-oversize',
])

function createTlsServer({ tls, log }: ListenOptions, limits: ChannelLimits): Server {
  const server = createServer({
    key: tls.keyPem,
    cert: tls.certificatePem,
    minVersion: 'TLSv1.3',
    handshakeTimeout: limits.handshakeTimeoutMs,
    headersTimeout: limits.handshakeTimeoutMs,
    requestTimeout: limits.handshakeTimeoutMs,
    maxHeaderSize: limits.maxHandshakeFrameBytes,
  })
  server.on('request', (_request, response) => {
    response.writeHead(426, { connection: 'close', 'content-type': 'text/plain' })
    response.end('This port speaks the Hotsite channel.\n')
  })
  server.on('tlsClientError', (error, socket) => {
    log.debug('TLS handshake failed', { reason: error.message, remote: socket.remoteAddress })
    socket.destroy()
  })
  return server
}

function listening(server: Server, { host, port, log }: ListenOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) =>
      reject(
        new HotsiteError('channel-cannot-listen', `cannot listen on ${host}:${port}: ${error.message}`, {
          cause: error,
        }),
      )
    server.once('error', onError)
    server.listen(port, host, () => {
      server.off('error', onError)
      server.on('error', (error) => log.error('listener failed', { error }))
      resolve((server.address() as AddressInfo).port)
    })
  })
}

interface Welcome {
  readonly socket: WebSocket
  readonly wire: Socket
  readonly options: ListenOptions
  readonly limits: ChannelLimits
  readonly pending: Strangers
  readonly keep: (channel: SocketChannel, remote: string) => void
  readonly onRefused: (event: ChannelEvent) => void
}

function welcome({ socket, wire, options, limits, pending, keep, onRefused }: Welcome): void {
  const { clock, log, rng, trust } = options
  const remote = remoteOf(wire)
  const messages = messageWire({ socket, wire, role: 'server', payloadMemory: options.payloadMemory })
  const machine = serverHandshake({
    exporter: tlsExporter(wire),
    random: handshakeRandom(),
    nowMs: clock.now(),
    versions: options.versions,
    trustOf: trust,
  })
  const onEstablished = (established: Established) => {
    pending.proved(wire)
    const distrust = distrustOf({ established, trust: () => trust(established.peer.vaultId), clock })
    const shared = { limits, clock, rng, log, distrust }
    const channel = socketChannel({ socket, messages, wire, role: 'server', established, ...shared })
    // Removed between its Hello and its Proof.
    const unwelcome = distrust()
    if (unwelcome) {
      channel.close(unwelcome)
      onRefused({ ...unwelcome, remote })
    } else keep(channel, remote)
  }
  const onFailed = ({ code, message }: HotsiteError) => onRefused({ code, message, remote })
  driveHandshake({ socket, messages, machine, limits, onEstablished, onFailed })
}

function remoteOf(socket: Socket): string {
  return `${socket.remoteAddress}:${socket.remotePort}`
}
