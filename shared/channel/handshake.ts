/**
 * The handshake (DESIGN §4) as two state machines that neither send nor wait:
 *
 *   client                                     server
 *     Hello{versions offered, membership, X25519, nonce}  ─▶   verifies the membership, chooses a version
 *     ◀─  Hello{version chosen, membership, X25519, nonce}
 *     Proof{Ed25519 over transcript}  ─▶                       verifies; established
 *     ◀─  Proof{Ed25519 over transcript}
 *   verifies; established
 *
 * The transcript holds both Hellos and the TLS exporter value. Each side signs it under a context of its own, so a
 * proof cannot be sent back to whoever made it. The server answers a stranger with a refusal, never with its membership.
 */
import { assertNever } from '../assert.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { ServerId, VaultId } from '../ids.ts'
import { type ServerKeys, sign, verify } from '../trust/keys.ts'
import { type Membership, peekMembership, verifyMembership } from '../trust/membership.ts'
import { signedBytes } from '../trust/signed-document.ts'
import { decodeMessage, encodeMessage } from './codec.ts'
import { type HandshakeRandom, type SessionKeys, sessionKeys, transcriptHash } from './key-schedule.ts'
import type { Bodies, Message } from './message.ts'
import type { Peer, ServerKind } from './port.ts'

/** Versions this program speaks: proto/VERSIONS.md. */
export const wireVersions: readonly number[] = [1]
/** Messages of each side before session keys are in use. */
export const handshakeMessages = 2

/** What one side needs to be part of a vault. */
export interface VaultTrust {
  readonly vaultPublicKey: Uint8Array
  /** Own membership, encoded and signed. */
  readonly membership: Uint8Array
  readonly keys: ServerKeys
  readonly isRevoked: (serverId: ServerId) => boolean
  /** Of the vault key in force; undefined: any that the vault public key signed. */
  readonly generation?: number | undefined
}

/** Who the client means to reach. */
export interface ExpectedPeer {
  readonly serverId?: ServerId | undefined
  readonly kind?: ServerKind | undefined
}

export interface Established {
  readonly peer: Peer
  readonly version: number
  readonly keys: SessionKeys
  /** When the first of the two memberships ends. */
  readonly validUntilMs: number
}

export interface HandshakeStep {
  /** Encoded frame to send, if any; to be sent before anything of the session. */
  readonly send?: Uint8Array
  readonly established?: Established
}

export interface HandshakeMachine {
  /** Takes one received frame. Throws a HotsiteError that says why the peer is refused; the machine is then spent. */
  receive(header: Uint8Array): HandshakeStep
}

interface CommonInput {
  readonly exporter: Uint8Array
  readonly random: HandshakeRandom
  readonly nowMs: number
  readonly versions?: readonly number[] | undefined
}

export interface ClientHandshakeInput extends CommonInput {
  readonly vaultId: VaultId
  readonly trust: VaultTrust
  readonly expectPeer?: ExpectedPeer | undefined
}

export interface ServerHandshakeInput extends CommonInput {
  readonly trustOf: (vaultId: VaultId) => VaultTrust | undefined
}

type ClientState =
  | { readonly at: 'hello' }
  | { readonly at: 'proof'; readonly transcript: Buffer; readonly established: Established }
  | { readonly at: 'done' }

export function clientHandshake(
  input: ClientHandshakeInput,
): HandshakeMachine & { readonly first: Uint8Array } {
  const { trust } = input
  const offered = input.versions ?? wireVersions
  const first = encodeMessage(helloFrame(offered, trust.membership, input.random))
  let state: ClientState = { at: 'hello' }

  function onHello(header: Uint8Array): HandshakeStep {
    const hello = expectBody(header, 'hello')
    const version = hello.versions[0]
    if (hello.versions.length !== 1 || version === undefined || !offered.includes(version))
      throw versionMismatch(offered, hello.versions)
    const membership = verifyMembership({
      encoded: hello.membership,
      vaultPublicKey: trust.vaultPublicKey,
      nowMs: input.nowMs,
      isRevoked: trust.isRevoked,
      vaultId: input.vaultId,
      ...(trust.generation === undefined ? {} : { generation: trust.generation }),
    })
    ensureExpected(membership, input.expectPeer)
    const transcript = transcriptHash(input.exporter, first, header)
    const keys = sessionKeys(input.random.ephemeral, hello.ephemeralKey, transcript)
    const validUntilMs = Math.min(membership.expiresAtMs, peekMembership(trust.membership).expiresAtMs)
    state = {
      at: 'proof',
      transcript,
      established: { peer: peerOf(membership), version, keys, validUntilMs },
    }
    return { send: proofFrame('channel-proof-client', transcript, trust.keys) }
  }

  return {
    first,
    receive(header) {
      const now = state
      state = { at: 'done' }
      switch (now.at) {
        case 'hello':
          return onHello(header)
        case 'proof':
          verifyProof('channel-proof-server', header, now.transcript, now.established.peer)
          return { established: now.established }
        case 'done':
          throw spent()
        default:
          return assertNever(now)
      }
    },
  }
}

type ServerState =
  | { readonly at: 'hello' }
  | {
      readonly at: 'proof'
      readonly transcript: Buffer
      readonly established: Established
      readonly keys: ServerKeys
    }
  | { readonly at: 'done' }

export function serverHandshake(input: ServerHandshakeInput): HandshakeMachine {
  const spoken = input.versions ?? wireVersions
  let state: ServerState = { at: 'hello' }

  function onHello(header: Uint8Array): HandshakeStep {
    const hello = expectBody(header, 'hello')
    const version = Math.max(...hello.versions.filter((offer) => spoken.includes(offer)))
    if (!Number.isFinite(version)) throw versionMismatch(spoken, hello.versions)
    const claimed = peekMembership(hello.membership)
    const trust = input.trustOf(claimed.vaultId)
    if (!trust)
      throw new HotsiteError('membership-wrong-vault', `vault ${claimed.vaultId} is not served here`)
    const membership = verifyMembership({
      encoded: hello.membership,
      vaultPublicKey: trust.vaultPublicKey,
      nowMs: input.nowMs,
      isRevoked: trust.isRevoked,
      ...(trust.generation === undefined ? {} : { generation: trust.generation }),
    })
    const reply = encodeMessage(helloFrame([version], trust.membership, input.random))
    const transcript = transcriptHash(input.exporter, header, reply)
    const keys = sessionKeys(input.random.ephemeral, hello.ephemeralKey, transcript)
    const validUntilMs = Math.min(membership.expiresAtMs, peekMembership(trust.membership).expiresAtMs)
    const established = { peer: peerOf(membership), version, keys, validUntilMs }
    state = { at: 'proof', transcript, established, keys: trust.keys }
    return { send: reply }
  }

  return {
    receive(header) {
      const now = state
      state = { at: 'done' }
      switch (now.at) {
        case 'hello':
          return onHello(header)
        case 'proof':
          verifyProof('channel-proof-client', header, now.transcript, now.established.peer)
          return {
            send: proofFrame('channel-proof-server', now.transcript, now.keys),
            established: now.established,
          }
        case 'done':
          throw spent()
        default:
          return assertNever(now)
      }
    },
  }
}

function helloFrame(versions: readonly number[], membership: Uint8Array, random: HandshakeRandom): Message {
  const body = { versions, membership, ephemeralKey: random.ephemeral.publicKey, nonce: random.nonce }
  return { kind: 'hello', body }
}

type ProofContext = 'channel-proof-client' | 'channel-proof-server'

function proofFrame(context: ProofContext, transcript: Uint8Array, keys: ServerKeys): Uint8Array {
  const signature = sign(signedBytes(context, transcript), keys.secretKey)
  return encodeMessage({ kind: 'proof', body: { signature } })
}

function verifyProof(context: ProofContext, header: Uint8Array, transcript: Uint8Array, peer: Peer): void {
  const { signature } = expectBody(header, 'proof')
  if (!verify(signedBytes(context, transcript), signature, peer.publicKey))
    throw new HotsiteError(
      'channel-bad-proof',
      `${peer.name} did not prove its identity on this connection: it is another server, or someone relays`,
      { details: { serverId: peer.serverId, vaultId: peer.vaultId } },
    )
}

function expectBody<Kind extends 'hello' | 'proof'>(header: Uint8Array, kind: Kind): Bodies[Kind] {
  const message = decodeMessage(header, undefined)
  if (message.kind === 'refusal') throw refusalError(message.body)
  if (message.kind !== kind)
    throw new HotsiteError('channel-malformed', `expected ${kind} in the handshake, received ${message.kind}`)
  const body = message.body as Bodies[Kind]
  if (
    message.kind === 'hello' &&
    (message.body.ephemeralKey.length !== 32 || message.body.nonce.length !== 32)
  )
    throw new HotsiteError('channel-malformed', 'key and nonce of a hello are 32 bytes each')
  return body
}

function peerOf({ vaultId, serverId, kind, name, publicKey }: Membership): Peer {
  return { vaultId, serverId, kind, name, publicKey }
}

function ensureExpected(membership: Membership, expected: ExpectedPeer | undefined): void {
  const wrongServer = expected?.serverId !== undefined && expected.serverId !== membership.serverId
  const wrongKind = expected?.kind !== undefined && expected.kind !== membership.kind
  if (wrongServer || wrongKind)
    throw new HotsiteError(
      'channel-wrong-peer',
      `reached ${membership.kind} ${membership.serverId} (${membership.name}) where ` +
        `${expected.kind ?? 'server'} ${expected.serverId ?? ''} was meant`,
    )
}

function versionMismatch(spoken: readonly number[], offered: readonly number[]): HotsiteError {
  return new HotsiteError(
    'channel-version-mismatch',
    `this side speaks version ${spoken.join(', ')} of the wire, the other ${offered.join(', ') || 'none'}`,
    { details: { versions: spoken, peerVersions: offered } },
  )
}

function spent(): HotsiteError {
  return new HotsiteError('channel-malformed', 'the handshake is over')
}

/** What a side sends before it hangs up on the other. */
export function refusalFrame(error: HotsiteError, versions: readonly number[] = wireVersions): Uint8Array {
  return encodeMessage({
    kind: 'refusal',
    body: { code: error.code, message: error.message.slice(0, 500), versions },
  })
}

/** Codes a peer may refuse with; anything else it says becomes `channel-refused`. */
const refusalCodes = [
  'channel-version-mismatch',
  'channel-malformed',
  'channel-unsafe-number',
  'channel-oversize',
  'channel-bad-proof',
  'channel-handshake-timeout',
  'membership-wrong-vault',
  'membership-expired',
  'membership-revoked',
  'membership-generation',
  'membership-invalid',
  'signature-invalid',
] as const

export function refusalError(refusal: Bodies['refusal']): HotsiteError {
  const code = refusalCodes.find((known) => known === refusal.code) ?? 'channel-refused'
  return new HotsiteError(code, `the other side refused: ${refusal.message || refusal.code}`, {
    details: { refusedByPeer: true, peerVersions: refusal.versions },
  })
}
