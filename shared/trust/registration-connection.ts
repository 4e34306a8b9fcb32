/** One attempt to register at one address: TLS 1.3 with the pinned coordinator, one request, one answer. */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect, createSecureContext, type TLSSocket } from 'node:tls'
import { z } from 'zod'
import type { Endpoint } from '../config.ts'
import { errorFromDocument, HotsiteError } from '../errors/hotsite-error.ts'
import type { KeyPairPem } from './key-and-certificate.ts'
import {
  exporterOf,
  type RegistrationReply,
  type RegistrationRequest,
  registrationPath,
  registrationReply,
  registrationServerName,
} from './registration-protocol.ts'
import { registrationLimits } from './trust-limits.ts'
import { thumbprintOf } from './vault-certificate.ts'

export interface RegistrationTarget {
  readonly address: Endpoint
  readonly coordinatorCertificatePem: string
  readonly vaultCertificateThumbprint: string
  readonly vaultKeyPair: KeyPairPem
  readonly timeoutMs: number
}

/**
 * Throws `coordinator-unreachable` when another address is worth a try; `coordinator-certificate-mismatch`, `clock-skew`,
 * `registration-certificate-refused` and whatever the coordinator answers otherwise.
 */
export async function requestRegistration(
  target: RegistrationTarget,
  makeRequest: (exporter: Uint8Array) => RegistrationRequest,
): Promise<RegistrationReply> {
  const socket = await openTls(target)
  try {
    const { status, body } = await post(socket, JSON.stringify(makeRequest(exporterOf(socket))), target)
    return readReply(status, body, target)
  } finally {
    socket.destroy()
  }
}

async function openTls(target: RegistrationTarget): Promise<TLSSocket> {
  const pin = thumbprintOf(new X509Certificate(target.coordinatorCertificatePem))
  let pinMissed = false
  const socket = connect({
    host: target.address.host,
    port: target.address.port,
    servername: registrationServerName,
    minVersion: 'TLSv1.3',
    secureContext: createSecureContext({
      ca: target.coordinatorCertificatePem,
      allowPartialTrustChain: true,
      cert: target.vaultKeyPair.certificatePem,
      key: target.vaultKeyPair.privateKeyPem,
    }),
    // The certificate itself is pinned; the name in it says nothing.
    checkServerIdentity: (_name, certificate) => {
      pinMissed = certificate.fingerprint256.replaceAll(':', '') !== pin
      return pinMissed ? new Error('the certificate is not the pinned one') : undefined
    },
  })
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(target.timeoutMs) })
    return socket
  } catch (error) {
    socket.destroy()
    throw connectError(error, { pinMissed, target })
  }
}

const otherCertificateCodes = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_SIGNATURE_FAILURE',
])

function connectError(
  error: unknown,
  { pinMissed, target }: { pinMissed: boolean; target: RegistrationTarget },
): HotsiteError {
  const where = nameOf(target.address)
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED')
    return new HotsiteError(
      'clock-skew',
      `the certificate of the coordinator at ${where} is not valid by the clock of this server`,
      { cause: error },
    )
  if (pinMissed || otherCertificateCodes.has(code))
    return new HotsiteError(
      'coordinator-certificate-mismatch',
      `${where} shows another certificate than the one in the registration file`,
      { cause: error },
    )
  if (code.startsWith('ERR_SSL') || code === 'EPROTO')
    return new HotsiteError(
      'coordinator-certificate-mismatch',
      `what answers at ${where} does not speak TLS 1.3 as a coordinator does (${code})`,
      { cause: error },
    )
  const reason =
    error instanceof Error && error.name === 'AbortError' ? 'no answer in time' : code || 'no connection'
  return unreachable(target, reason, error)
}

function unreachable(target: RegistrationTarget, reason: string, cause: unknown): HotsiteError {
  return new HotsiteError('coordinator-unreachable', `${nameOf(target.address)}: ${reason}`, { cause })
}

function nameOf({ host, port }: Endpoint): string {
  return `${host}:${port}`
}

async function post(
  socket: TLSSocket,
  body: string,
  target: RegistrationTarget,
): Promise<{ status: number; body: string }> {
  const signal = AbortSignal.timeout(target.timeoutMs)
  const request = httpRequest({
    createConnection: () => socket,
    method: 'POST',
    path: registrationPath,
    headers: { host: nameOf(target.address), 'content-type': 'application/json', connection: 'close' },
    signal,
  })
  try {
    request.end(body)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    return { status: response.statusCode ?? 0, body: await readBounded(response) }
  } catch (error) {
    if (error instanceof HotsiteError) throw error
    if (signal.aborted) throw unreachable(target, 'connected, but no answer in time', error)
    throw refusedAfterHandshake(target, error)
  }
}

/**
 * In TLS 1.3 the server judges the client's certificate after the client is done, so a refusal looks like a connection
 * that ends before the answer.
 */
function refusedAfterHandshake(target: RegistrationTarget, cause: unknown): HotsiteError {
  const given = thumbprintOf(new X509Certificate(target.vaultKeyPair.certificatePem))
  const expected = target.vaultCertificateThumbprint
  const explanation =
    given === expected
      ? 'it was the one of the vault when the registration file was made; it was replaced since, or the coordinator is stopping'
      : `when the registration file was made, the vault had ${expected}`
  return new HotsiteError(
    'registration-certificate-refused',
    `the coordinator at ${nameOf(target.address)} ended the connection on the certificate ${given}: ${explanation}`,
    { cause, details: { given, expected } },
  )
}

async function readBounded(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    sizeBytes += part.length
    if (sizeBytes > registrationLimits.maxReplyBytes)
      throw new HotsiteError('registration-reply-invalid', 'the answer of the coordinator is too large')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

const refusalSchema = z.object({
  code: z.string(),
  message: z.string(),
  details: z.record(z.string(), z.unknown()).optional(),
})

function readReply(status: number, body: string, target: RegistrationTarget): RegistrationReply {
  const document = parseJson(body)
  if (status === 200) {
    const reply = registrationReply.safeParse(document)
    if (reply.success) return reply.data
  } else {
    const { data } = refusalSchema.safeParse(document)
    if (data) throw errorFromDocument({ code: data.code, message: data.message, details: data.details ?? {} })
  }
  throw new HotsiteError(
    'registration-reply-invalid',
    `${nameOf(target.address)} answered with status ${status} and something that is no answer to a registration`,
  )
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
