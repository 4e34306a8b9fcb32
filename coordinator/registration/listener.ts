/**
 * The registration port of the coordinator: HTTPS, TLS 1.3 only, and only for holders of a vault certificate's key. It is
 * a port of its own so that the port of the channel never asks for certificates and this one never carries anything else.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { Clock } from '#shared/clock.ts'
import type { Endpoint } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { exporterOf, registrationPath } from '#shared/trust/registration-protocol.ts'
import type { TlsIdentity } from '#shared/trust/tls-identity.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'
import { thumbprintOf } from '#shared/trust/vault-certificate.ts'
import { type Admission, admitServer } from './admit-server.ts'
import { FailureLimiter } from './failure-limiter.ts'
import { answer, answerRefusal, refusalOf } from './reply.ts'
import { readRequest } from './request-body.ts'
import { trustAtHandshake } from './trust-at-handshake.ts'
import type { VaultTrustSource } from './trust-source.ts'

export interface RegistrationListenerOptions {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  readonly tls: TlsIdentity
  /** Handed to servers: where their daemons connect to. */
  readonly channelAddresses: readonly Endpoint[]
  readonly vaults: VaultTrustSource
  readonly clock: Clock
  readonly log: Logger
  /** Tests shorten these. */
  readonly limits?: Partial<Record<'stepTimeoutMs' | 'maxFailures', number>>
}

export interface RegistrationListener extends AsyncDisposable {
  readonly address: Endpoint
}

/** Throws `registration-port-unavailable`. Ends open requests and stops listening when disposed. */
export async function startRegistrationListener(
  options: RegistrationListenerOptions,
): Promise<RegistrationListener> {
  const { host, port, tls, log, clock, vaults } = options
  const limits = { ...registrationLimits, ...options.limits }
  const limiter = new FailureLimiter(limits)
  const server = createServer({
    key: tls.keyPem,
    cert: tls.certificatePem,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: true,
    // Nobody is trusted by default; who is, is decided by name at each handshake. An absent `ca` would mean the
    // certification authorities of the web.
    ca: [],
    SNICallback: trustAtHandshake({ tls, vaults, log }),
    handshakeTimeout: limits.stepTimeoutMs,
    headersTimeout: limits.stepTimeoutMs,
    requestTimeout: limits.stepTimeoutMs,
    connectionsCheckingInterval: Math.min(1000, limits.stepTimeoutMs),
    maxHeaderSize: 8192,
    keepAlive: false,
  })
  server.maxConnections = limits.maxConnections
  server.maxRequestsPerSocket = 1
  server.on('request', (request, response) => {
    void serve({ request, response, options, limiter })
  })
  server.on('tlsClientError', (error, socket) => {
    const address = socket.remoteAddress ?? 'unknown'
    if (limiter.isBlocked(address, clock.monotonicMs())) return
    const silenced = limiter.fail(address, clock.monotonicMs())
    const reason = socket.authorizationError ?? ('code' in error ? error.code : error.message)
    log.warn('registration.tls-refused', { address, reason: String(reason), furtherOnesSilenced: silenced })
  })
  server.listen(port, host)
  await listening(server, { host, port })
  const { port: boundPort } = server.address() as AddressInfo
  log.info('registration.listening', { host, port: boundPort })
  return {
    address: { host, port: boundPort },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

async function listening(
  server: ReturnType<typeof createServer>,
  { host, port }: { host: string; port: number },
): Promise<void> {
  try {
    await once(server, 'listening')
  } catch (error) {
    throw new HotsiteError(
      'registration-port-unavailable',
      `cannot listen on ${host}:${port}: ${(error as Error).message}`,
      { cause: error },
    )
  }
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly options: RegistrationListenerOptions
  readonly limiter: FailureLimiter
}

async function serve({ request, response, options, limiter }: Exchange): Promise<void> {
  const { clock, log } = options
  const address = request.socket.remoteAddress ?? 'unknown'
  if (limiter.isBlocked(address, clock.monotonicMs())) {
    // Not logged again: the failure that used up the last try said so.
    const error = new HotsiteError(
      'registration-rate-limited',
      `too many registrations from ${address} failed`,
    )
    return answerRefusal(request, response, refusalOf(error))
  }
  try {
    const { reply, outcome } = await register(request, options)
    log.info('registration.accepted', { address, ...outcome })
    answer(response, 200, reply)
  } catch (error) {
    const furtherOnesSilenced = limiter.fail(address, clock.monotonicMs())
    const refusal = refusalOf(error)
    if (refusal.known) {
      const { code, message } = refusal.document
      log.warn('registration.refused', { address, code, message, furtherOnesSilenced })
    } else log.error('registration.failed', { address, error })
    answerRefusal(request, response, refusal)
  }
}

async function register(
  request: IncomingMessage,
  { vaults, tls, channelAddresses, clock }: RegistrationListenerOptions,
): Promise<Admission> {
  if (request.method !== 'POST' || request.url !== registrationPath)
    throw new HotsiteError('not-found', `this port answers POST ${registrationPath} only`)
  const { socket } = request
  const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined
  if (!(socket instanceof TLSSocket) || !certificate)
    throw new HotsiteError('registration-certificate-refused', 'the connection brings no certificate')
  const connection = { clientThumbprint: thumbprintOf(certificate), exporter: exporterOf(socket) }
  return admitServer(await readRequest(request), connection, {
    vaults,
    coordinatorCertificatePem: tls.certificatePem,
    channelAddresses,
    nowMs: clock.now(),
  })
}
