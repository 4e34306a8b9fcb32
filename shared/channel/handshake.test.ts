/** The handshake without sockets: every refusal by its code. */
import { expect, test } from 'vitest'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { decodeMessage, encodeMessage } from './codec.ts'
import { clientHandshake, refusalFrame, serverHandshake } from './handshake.ts'
import { handshakeRandom } from './key-schedule.ts'
import { testVault } from './testing.ts'

const vault = testVault()
const client = vault.server('host-1')
const server = vault.server('center', 'coordinator')
const exporter = Buffer.alloc(32, 1)

type ClientInput = Parameters<typeof clientHandshake>[0]
type ServerInput = Parameters<typeof serverHandshake>[0]

function pair(clientChanges: Partial<ClientInput> = {}, serverChanges: Partial<ServerInput> = {}) {
  return {
    near: clientHandshake({
      exporter,
      random: handshakeRandom(),
      nowMs: Date.now(),
      vaultId: vault.vaultId,
      trust: vault.trustFor(client),
      ...clientChanges,
    }),
    far: serverHandshake({
      exporter,
      random: handshakeRandom(),
      nowMs: Date.now(),
      trustOf: () => vault.trustFor(server),
      ...serverChanges,
    }),
  }
}

function frame(bytes: Uint8Array | undefined): Uint8Array {
  if (!bytes) throw new Error('a frame was expected')
  return bytes
}

/** Runs it to the end. */
function run({ near, far }: ReturnType<typeof pair>) {
  const hello = far.receive(near.first)
  const proof = near.receive(frame(hello.send))
  const farEnd = far.receive(frame(proof.send))
  const nearEnd = near.receive(frame(farEnd.send))
  return { near: nearEnd.established, far: farEnd.established }
}

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof HotsiteError) return error.code
    throw error
  }
  return 'accepted'
}

test('both sides come to the same keys, one for each direction, and know each other', () => {
  const { near, far } = run(pair())
  expect(near?.keys).toEqual(far?.keys)
  expect(near?.keys.clientToServer).not.toEqual(near?.keys.serverToClient)
  expect(near?.peer.serverId).toBe('center')
  expect(far?.peer.serverId).toBe('host-1')
  expect(run(pair()).near?.keys).not.toEqual(near?.keys)
})

test('the highest version both speak is chosen', () => {
  const { near, far } = run(pair({ versions: [1, 2, 3] }, { versions: [2, 1] }))
  expect([near?.version, far?.version]).toEqual([2, 2])
})

test('no common version is refused, also when the server answers with one that was not offered', () => {
  expect(codeOf(() => run(pair({ versions: [2] }, { versions: [1] })))).toBe('channel-version-mismatch')
  expect(codeOf(() => run(pair({ versions: [] })))).toBe('channel-version-mismatch')
  const { near } = pair({ versions: [2] })
  const { near: other, far } = pair({ versions: [1] })
  expect(codeOf(() => near.receive(frame(far.receive(other.first).send)))).toBe('channel-version-mismatch')
})

test('versions cannot be changed in between: the transcript covers the offer', () => {
  const { near, far } = pair({ versions: [1, 2] }, { versions: [1, 2] })
  const offer = decodeMessage(near.first, undefined)
  if (offer.kind !== 'hello') throw new Error('the first frame is a hello')
  const weakened = encodeMessage({ kind: 'hello', body: { ...offer.body, versions: [1] } })
  const proof = near.receive(frame(far.receive(weakened).send))
  expect(codeOf(() => far.receive(frame(proof.send)))).toBe('channel-bad-proof')
})

test('another TLS connection on the other side: the proof fails', () => {
  expect(codeOf(() => run(pair({}, { exporter: Buffer.alloc(32, 2) })))).toBe('channel-bad-proof')
})

test('the client does not take its own proof back', () => {
  const { near, far } = pair()
  const proof = near.receive(frame(far.receive(near.first).send))
  expect(codeOf(() => near.receive(frame(proof.send)))).toBe('channel-bad-proof')
})

test('an ephemeral key of low order is refused by both', () => {
  const weak = {
    ephemeral: { publicKey: new Uint8Array(32), secretKey: new Uint8Array(32).fill(9) },
    nonce: new Uint8Array(32),
  }
  const { near, far } = pair({ random: weak })
  expect(codeOf(() => far.receive(near.first))).toBe('channel-bad-proof')
  const other = pair({}, { random: weak })
  expect(codeOf(() => other.near.receive(frame(other.far.receive(other.near.first).send)))).toBe(
    'channel-bad-proof',
  )
})

test('keys and nonces of a wrong length, a frame out of turn and one too many are malformed', () => {
  const { near, far } = pair({ random: { ...handshakeRandom(), nonce: new Uint8Array(31) } })
  expect(codeOf(() => far.receive(near.first))).toBe('channel-malformed')
  const proofFirst = encodeMessage({ kind: 'proof', body: { signature: new Uint8Array(64) } })
  expect(codeOf(() => pair().far.receive(proofFirst))).toBe('channel-malformed')
  const finished = pair()
  run(finished)
  expect(codeOf(() => finished.far.receive(finished.near.first))).toBe('channel-malformed')
})

test('a refusal becomes the same error at the other end; a made-up code does not', () => {
  const expired = refusalFrame(new HotsiteError('membership-expired', 'it expired'))
  expect(codeOf(() => pair().near.receive(expired))).toBe('membership-expired')
  const odd = encodeMessage({ kind: 'refusal', body: { code: 'disk-full', message: 'x', versions: [] } })
  expect(codeOf(() => pair().near.receive(odd))).toBe('channel-refused')
})
