/** The dialling end of a channel. */
import { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { WebSocket } from 'ws'
import type { Clock } from '../clock.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { ServerId } from '../ids.ts'
import type { Logger } from '../log.ts'
import type { ServerKeys } from '../trust/keys.ts'
import { peekMembership } from '../trust/membership.ts'
import { distrustOf } from './distrust.ts'
import { clientHandshake, type ExpectedPeer, type VaultTrust } from './handshake.ts'
import { handshakeRandom } from './key-schedule.ts'
import { type ChannelLimits, limitsWith } from './limits.ts'
import { messageWire } from './message-wire.ts'
import type { Channel } from './port.ts'
import { socketChannel } from './socket-channel.ts'
import { channelPath, driveHandshake, tlsExporter } from './socket-handshake.ts'

export interface DialOptions {
  readonly host: string
  readonly port: number
  /** The certificate the listener must show, and no other. */
  readonly pinnedCertificatePem: string
  readonly self: { readonly membership: Uint8Array; readonly keys: ServerKeys }
  readonly vaultPublicKey: Uint8Array
  readonly isRevoked?: ((serverId: ServerId) => boolean) | undefined
  readonly generation?: number | undefined
  readonly expectPeer?: ExpectedPeer | undefined
  readonly clock: Clock
  readonly log: Logger
  /** Ends the dialling, and later the channel. */
  readonly signal: AbortSignal
  readonly limits?: Partial<ChannelLimits> | undefined
  /** For tests of other versions. */
  readonly versions?: readonly number[] | undefined
}

/**
 * Connects and authenticates both ends. Throws `channel-unreachable`, `channel-certificate-mismatch`,
 * `channel-handshake-timeout`, `channel-refused` and the refusals of the handshake; or the reason of the signal.
 */
export async function dialChannel(options: DialOptions): Promise<Channel> {
  options.signal.throwIfAborted()
  const limits = limitsWith(options.limits)
  const socket = openSocket(options, limits)
  const done = new AbortController()
  const outcome = Promise.withResolvers<Channel>()

  function giveUp(error: unknown): void {
    outcome.reject(error)
    // Only while connecting: terminate() then reports an error of its own, which nobody needs.
    socket.on('error', () => undefined)
    if (socket.readyState === WebSocket.CONNECTING) socket.terminate()
  }
  const onAbort = () => {
    giveUp(options.signal.reason)
    socket.terminate()
  }
  options.signal.addEventListener('abort', onAbort)
  options.clock.sleep(limits.handshakeTimeoutMs, done.signal).then(
    () => {
      giveUp(timeoutError(options, limits))
      socket.terminate()
    },
    () => undefined,
  )
  socket.once('error', (error) => giveUp(dialError(error, options)))
  socket.once('upgrade', ({ socket: wire }) => {
    socket.once('open', () => {
      socket.removeAllListeners('error')
      shakeHands(options, { socket, wire, limits, onChannel: outcome.resolve, onFailed: giveUp })
    })
  })

  try {
    const channel = await outcome.promise
    const onStop = () => channel.close()
    options.signal.addEventListener('abort', onStop)
    void channel.closed.then(() => options.signal.removeEventListener('abort', onStop))
    return channel
  } finally {
    done.abort()
    options.signal.removeEventListener('abort', onAbort)
  }
}

function openSocket(options: DialOptions, limits: ChannelLimits): WebSocket {
  const pinned = new X509Certificate(options.pinnedCertificatePem).fingerprint256
  const host = options.host.includes(':') ? `[${options.host}]` : options.host
  // Typed as TLS options: @types/ws describes checkServerIdentity wrongly.
  const tls: ConnectionOptions = {
    // The only root is the pinned certificate itself; its name does not matter, its identity does.
    ca: [options.pinnedCertificatePem],
    minVersion: 'TLSv1.3',
    checkServerIdentity: (_host, certificate) =>
      certificate.fingerprint256 === pinned
        ? undefined
        : certificateMismatch(options, `its SHA-256 is ${certificate.fingerprint256}, not ${pinned}`),
  }
  return new WebSocket(`wss://${host}:${options.port}${channelPath}`, {
    ...(tls as object),
    perMessageDeflate: false,
    maxPayload: limits.maxHandshakeFrameBytes,
    // Masking protects plain-text proxies from chosen bytes (RFC 6455 §10.3); inside TLS it only costs time.
    generateMask: (mask) => {
      mask.fill(0)
    },
  })
}

interface ShakeHands {
  readonly socket: WebSocket
  readonly wire: Socket
  readonly limits: ChannelLimits
  readonly onChannel: (channel: Channel) => void
  readonly onFailed: (error: HotsiteError) => void
}

function shakeHands(options: DialOptions, { socket, wire, limits, onChannel, onFailed }: ShakeHands): void {
  const trust: VaultTrust = {
    vaultPublicKey: options.vaultPublicKey,
    membership: options.self.membership,
    keys: options.self.keys,
    isRevoked: options.isRevoked ?? (() => false),
    generation: options.generation,
  }
  const machine = clientHandshake({
    exporter: tlsExporter(wire),
    random: handshakeRandom(),
    nowMs: options.clock.now(),
    versions: options.versions,
    vaultId: peekMembership(trust.membership).vaultId,
    trust,
    expectPeer: options.expectPeer,
  })
  const messages = messageWire({ socket, wire, role: 'client' })
  driveHandshake({
    socket,
    messages,
    machine,
    first: machine.first,
    limits,
    onEstablished(established) {
      const distrust = distrustOf({ established, trust: () => trust, clock: options.clock })
      const { clock, log } = options
      const below = { socket, messages, wire, role: 'client' as const }
      onChannel(socketChannel({ ...below, established, limits, clock, log, distrust }))
    },
    onFailed,
  })
}

function timeoutError({ host, port }: DialOptions, limits: ChannelLimits): HotsiteError {
  return new HotsiteError(
    'channel-handshake-timeout',
    `${host}:${port} did not complete the handshake within ${limits.handshakeTimeoutMs} ms`,
  )
}

function certificateMismatch({ host, port }: DialOptions, why: string, cause?: unknown): HotsiteError {
  return new HotsiteError(
    'channel-certificate-mismatch',
    `${host}:${port} shows another certificate than the pinned one: ${why}`,
    { cause },
  )
}

/** OpenSSL's names for "this certificate does not lead to the one root there is". */
const untrusted = /SELF_SIGNED|UNABLE_TO_|CERT_|ERR_TLS_CERT/

function dialError(error: Error, options: DialOptions): HotsiteError {
  if (error instanceof HotsiteError) return error
  const code = 'code' in error ? String(error.code) : ''
  if (untrusted.test(code)) return certificateMismatch(options, error.message, error)
  return new HotsiteError(
    'channel-unreachable',
    `cannot reach ${options.host}:${options.port}: ${error.message || code}`,
    { cause: error },
  )
}
