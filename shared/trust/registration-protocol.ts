/**
 * What `register` and the coordinator say to each other: one `POST /register` over TLS 1.3 in which the client shows the
 * vault certificate. The new server key signs the request together with the exporter value of this TLS connection, so
 * that whoever terminates TLS in between cannot pass a request on as its own.
 */
import { createHash } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { z } from 'zod'
import { endpoint } from '../config.ts'
import { serverId, vaultId } from '../ids.ts'
import { canonicalJson } from './canonical-json.ts'
import { sign, verify } from './keys.ts'
import { signedBytes } from './signed-document.ts'

export const registrationPath = '/register'

/** The TLS server name (SNI) the client asks for; the certificate is pinned, so it is never compared with a name. */
export const registrationServerName = 'registration.hotsite.internal'

/** A machine's name as people type it; control characters would spoil logs and terminals. */
const plainName = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}]+$/u, 'no control characters')

export const registrationRequest = z.strictObject({
  vaultId,
  token: z.string().min(1).max(1000),
  kind: z.enum(['provider', 'agent']),
  /** The server as people see it. */
  name: plainName,
  /** Its host name. */
  host: plainName,
  /** Ed25519, 32 bytes. */
  publicKey: z.base64().length(44),
  /** Revoke the server of the same name and kind that is registered already. */
  replace: z.boolean(),
  /** Clock of the sender: skew is found before it shows as an expired membership. */
  nowMs: z.int(),
  /** Ed25519, 64 bytes. */
  proof: z.base64().length(88),
})
export type RegistrationRequest = z.infer<typeof registrationRequest>
export type UnprovenRequest = Omit<RegistrationRequest, 'proof'>

export const registrationReply = z.strictObject({
  serverId,
  membership: z.base64().min(1),
  coordinatorCertificatePem: z.string().startsWith('-----BEGIN CERTIFICATE-----'),
  channelAddresses: z.array(endpoint).min(1).max(16),
})
export type RegistrationReply = z.infer<typeof registrationReply>

/** RFC 5705 names of private use start with EXPERIMENTAL; this one is only ever compared between our two ends. */
const exporterLabel = 'EXPERIMENTAL hotsite registration v1'

/** 32 bytes that both ends of this TLS connection know and nobody else. */
export function exporterOf(socket: TLSSocket): Buffer {
  return socket.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0))
}

export function signRequest(
  request: UnprovenRequest,
  { exporter, secretKey }: { exporter: Uint8Array; secretKey: Uint8Array },
): RegistrationRequest {
  const proof = Buffer.from(sign(proofBytes(request, exporter), secretKey)).toString('base64')
  return { ...request, proof }
}

export function isProven({ proof, ...request }: RegistrationRequest, exporter: Uint8Array): boolean {
  const publicKey = Buffer.from(request.publicKey, 'base64')
  return verify(proofBytes(request, exporter), Buffer.from(proof, 'base64'), publicKey)
}

/** Everything in the request is signed, the token included. */
function proofBytes(request: UnprovenRequest, exporter: Uint8Array): Uint8Array {
  const digest = createHash('sha256').update(canonicalJson(request)).digest()
  return signedBytes('registration', Buffer.concat([exporter, digest]))
}
