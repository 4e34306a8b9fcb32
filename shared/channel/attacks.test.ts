/** Attacks on an established session, by someone who is inside TLS and holds the session keys of one member. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeMessage } from './codec.ts'
import type { Message } from './message.ts'
import type { Channel } from './port.ts'
import { testListener, testVault } from './testing.ts'
import { rawSession } from './testing-attack.ts'

const message: Message = {
  kind: 'blocks',
  body: { vmId: 'vm', epoch: 1, seq: 1, diskId: 'd', batch: 0, blockIndexes: [4], storedBytes: [64] },
  tail: Buffer.alloc(64, 5),
}

async function all(channel: Channel): Promise<Message[]> {
  const seen: Message[] = []
  for await (const one of channel.messages()) seen.push(one)
  return seen
}

const vault = testVault()
const attacker = vault.server('host-1')

/** Lets `attack` loose on a fresh session; what the listener's end delivered and why it closed. */
async function attacked(attack: (session: Awaited<ReturnType<typeof rawSession>>) => void) {
  await using there = await testListener(vault)
  using session = await rawSession(there.dialOptions(attacker))
  const channel = await there.channel(0)
  attack(session)
  const { code } = await channel.closed
  const delivered = await all(channel)
  const { code: wsCode, text } = await session.closed
  return { code, delivered, events: there.events, wsCode, text }
}

function flip(frame: Buffer, index: number, mask = 1): Buffer {
  const copy = Buffer.from(frame)
  copy[index] = (copy[index] ?? 0) ^ mask
  return copy
}

test('an honest frame passes, so that the tests below are about the attack', async () => {
  const { code, delivered, events } = await attacked((session) => {
    session.socket.send(session.seal(message))
    session.socket.close(1000)
  })
  expect(code).toBe('channel-closed')
  expect(delivered).toEqual([message])
  expect(events).toEqual([])
})

const headBytes = 12 + encodeMessage(message).length
test.each([
  ['the sequence number', 7, 'channel-out-of-sequence'],
  ['the header length', 11, 'channel-altered'],
  ['the header length, beyond the frame', 8, 'channel-malformed'],
  ['the header', 20, 'channel-altered'],
  ['the payload', headBytes + 10, 'channel-altered'],
  ['the MAC', headBytes + 64 + 3, 'channel-altered'],
])('a flipped bit in %s closes the channel and is an event', async (_where, index, expected) => {
  const result = await attacked((session) => session.socket.send(flip(session.seal(message), index)))
  expect(result).toMatchObject({ code: expected, delivered: [], wsCode: 4000 })
  expect(result.text).toContain(expected)
  expect(result.events).toMatchObject([{ code: expected, serverId: 'host-1', vaultId: 'vault-a' }])
})

test('a replayed frame is delivered once and closes the channel', async () => {
  const { code, delivered } = await attacked((session) => {
    const frame = session.seal(message)
    session.socket.send(frame)
    session.socket.send(frame)
  })
  expect(code).toBe('channel-out-of-sequence')
  expect(delivered).toHaveLength(1)
})

test('reordered frames close the channel before anything is delivered', async () => {
  const { code, delivered } = await attacked((session) => {
    const [first, second] = [session.seal(message), session.seal(message)]
    session.socket.send(second)
    session.socket.send(first)
  })
  expect(code).toBe('channel-out-of-sequence')
  expect(delivered).toEqual([])
})

test('a frame left out closes the channel at the next one', async () => {
  const { code } = await attacked((session) => {
    session.seal(message)
    session.socket.send(session.seal(message))
  })
  expect(code).toBe('channel-out-of-sequence')
})

test('a replay that is renumbered to fit is still altered', async () => {
  const { code, delivered } = await attacked((session) => {
    const frame = session.seal(message)
    session.socket.send(frame)
    const renumbered = Buffer.from(frame)
    renumbered.writeBigUInt64BE(frame.readBigUInt64BE(0) + 1n, 0)
    session.socket.send(renumbered)
  })
  expect(code).toBe('channel-altered')
  expect(delivered).toHaveLength(1)
})

test.each([1, 16, 30, 90])('a frame cut by %i bytes closes the channel', async (cut) => {
  const { code, delivered } = await attacked((session) => {
    const frame = session.seal(message)
    session.socket.send(frame.subarray(0, frame.length - cut))
  })
  expect(code).toMatch(/^channel-(altered|malformed)$/)
  expect(delivered).toEqual([])
})

test('frames of one session are worth nothing in another of the same member', async () => {
  await using there = await testListener(vault)
  using older = await rawSession(there.dialOptions(attacker))
  const frame = older.seal(message)
  using newer = await rawSession(there.dialOptions(attacker))
  newer.socket.send(frame)
  expect((await (await there.channel(1)).closed).code).toBe('channel-altered')
})

test('a frame of the listener sent back to it is refused', async () => {
  await using there = await testListener(vault)
  using session = await rawSession(there.dialOptions(attacker))
  const channel = await there.channel(0)
  void channel.send(message)
  await expect.poll(() => session.received.length).toBe(1)
  session.socket.send(session.received[0] ?? '')
  expect((await channel.closed).code).toBe('channel-altered')
})

test.each([
  ['a header beyond its limit', Buffer.alloc(8 * 1024 * 1024 + 1), undefined],
  ['a payload beyond its limit', encodeMessage(message), Buffer.alloc(2 * 1024 * 1024)],
  ['a message beyond everything', Buffer.alloc(9 * 1024 * 1024), Buffer.alloc(9 * 1024 * 1024)],
])('%s closes the channel', async (_what, header, tail) => {
  const { code, delivered } = await attacked((session) =>
    session.socket.send(session.sealBytes(header, tail)),
  )
  expect(code).toBe('channel-oversize')
  expect(delivered).toEqual([])
})

test('text, a second hello and an unknown body close the channel', async () => {
  const hello: Message = {
    kind: 'hello',
    body: {
      versions: [1],
      membership: Buffer.alloc(1),
      ephemeralKey: Buffer.alloc(32),
      nonce: Buffer.alloc(32),
    },
  }
  for (const attack of [
    (session: Awaited<ReturnType<typeof rawSession>>) => session.socket.send('hello'),
    (session: Awaited<ReturnType<typeof rawSession>>) => session.socket.send(session.seal(hello)),
    // Field 100 of Frame, which no version of the wire has.
    (session: Awaited<ReturnType<typeof rawSession>>) =>
      session.socket.send(session.sealBytes(Buffer.from('a20600', 'hex'))),
    (session: Awaited<ReturnType<typeof rawSession>>) =>
      session.socket.send(session.sealBytes(Buffer.alloc(0))),
  ]) {
    const { code, delivered } = await attacked(attack)
    expect(code).toBe('channel-malformed')
    expect(delivered).toEqual([])
  }
})

test('random messages from a member never get through as anything and never stop the listener', async () => {
  await using there = await testListener(vault)
  let round = 0
  const property = fc.asyncProperty(
    fc.uint8Array({ maxLength: 300 }),
    fc.boolean(),
    async (bytes, sealed) => {
      using session = await rawSession(there.dialOptions(attacker))
      const channel = await there.channel(round++)
      session.socket.send(sealed ? session.sealBytes(bytes) : bytes)
      session.socket.close(1000)
      await channel.closed
      for (const delivered of await all(channel)) expect(() => encodeMessage(delivered)).not.toThrow()
    },
  )
  await fc.assert(property, { numRuns: 40 })
  await using honest = await there.dial(vault.server('host-2'))
  expect(honest.peer.serverId).toBe('listener')
})
