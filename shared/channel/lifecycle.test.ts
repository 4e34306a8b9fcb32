/** What becomes of established channels: silence, slow readers, doubles, removals, and reconnects. */
import { describe, expect, test } from 'vitest'
import { type Clock, systemClock } from '../clock.ts'
import { serverId } from '../ids.ts'
import { silentLog } from '../log.ts'
import { systemRng } from '../rng.ts'
import { makeTlsIdentity } from '../trust/tls-identity.ts'
import { type ConnectionEvent, keepConnected } from './keep-connected.ts'
import type { Message } from './message.ts'
import { eventually, testListener, testVault } from './testing.ts'
import { tcpProxy } from './testing-attack.ts'

const vault = testVault()
const quick = { heartbeatIntervalMs: 40, maxSilentIntervals: 3, closeTimeoutMs: 100 }
const ack: Message = { kind: 'reportAck', body: { reportSeq: 1 } }
const payload: Message = {
  kind: 'blocks',
  body: { vmId: 'vm', epoch: 1, seq: 1, diskId: 'd', batch: 0, blockIndexes: [4], storedBytes: [65536] },
  tail: Buffer.alloc(65536, 5),
}

describe('heartbeat', () => {
  test('a peer behind a dead link is given up by both ends', async () => {
    await using there = await testListener(vault, { limits: quick })
    await using proxy = await tcpProxy(there.listener.port)
    const client = await there.dial(vault.server('host-1'), { port: proxy.port, limits: quick })
    const server = await there.channel(0)
    proxy.stall()
    expect((await client.closed).code).toBe('channel-silent')
    expect((await server.closed).code).toBe('channel-silent')
    expect(there.listener.connections()).toEqual([])
  })

  test('an idle channel stays, and heartbeats are not among its messages', async () => {
    await using there = await testListener(vault, { limits: quick })
    await using client = await there.dial(vault.server('host-1'), { limits: quick })
    const server = await there.channel(0)
    await eventually(() => client.counters.framesReceived > 20, 'some heartbeats')
    await server.send(ack)
    for await (const message of client.messages()) {
      expect(message).toEqual(ack)
      break
    }
  })

  test('a slow reader is not mistaken for a dead one, and heartbeats overtake the blocks behind it', async () => {
    const limits = { ...quick, sendHighWaterBytes: 65536, receiveHighWaterBytes: 65536 }
    await using there = await testListener(vault, { limits })
    await using client = await there.dial(vault.server('host-1'), { limits })
    const server = await there.channel(0)
    for (let index = 0; index < 300; index++) void client.send(payload)
    // The server does not read: its socket is paused, yet it goes on telling the client that it lives.
    const heardBefore = client.counters.framesReceived
    await eventually(() => client.counters.framesReceived > heardBefore + 12, 'twelve heartbeats')
    expect(server.counters.framesReceived).toBeLessThan(302)
    let read = 0
    for await (const message of server.messages()) {
      expect(message.kind).toBe('blocks')
      if (++read === 300) break
    }
  })
})

describe('two machines with one identity', () => {
  test('the newer connection replaces the older, and it is an event', async () => {
    await using there = await testListener(vault)
    const self = vault.server('host-1')
    const older = await there.dial(self)
    await using newer = await there.dial(self)
    expect((await older.closed).code).toBe('channel-replaced')
    expect(await there.event('identity-twice')).toMatchObject({ serverId: 'host-1', vaultId: 'vault-a' })
    expect(there.listener.connections()).toEqual([await there.channel(1)])
    await newer.send(ack)
    for await (const message of (await there.channel(1)).messages()) {
      expect(message).toEqual(ack)
      break
    }
  })

  test('a reconnect after a silent link replaces it without an accusation', async () => {
    // Silence is noticed only after three seconds, the reconnect comes after two intervals of it.
    const limits = { heartbeatIntervalMs: 100, maxSilentIntervals: 30, closeTimeoutMs: 100 }
    await using there = await testListener(vault, { limits })
    await using proxy = await tcpProxy(there.listener.port)
    const self = vault.server('host-1')
    await using _lost = await there.dial(self, { port: proxy.port, limits })
    const server = await there.channel(0)
    proxy.stall()
    await systemClock.sleep(250)
    await using _newer = await there.dial(self, { limits })
    expect((await server.closed).code).toBe('channel-replaced')
    expect(there.events).toEqual([])
  })
})

describe('trust that ends while the channel stands', () => {
  test('a removed server is dropped at once and told', async () => {
    await using there = await testListener(vault)
    await using other = await there.dial(vault.server('host-2'))
    const client = await there.dial(vault.server('host-1'))
    there.listener.dropServer(serverId.parse('host-1'))
    expect((await client.closed).code).toBe('membership-revoked')
    expect(there.listener.connections()).toHaveLength(1)
    await other.send(ack)
  })

  test('a revocation is seen at the next heartbeat', async () => {
    const own = testVault()
    await using there = await testListener(own, { limits: quick })
    const client = await there.dial(own.server('host-1'), { limits: quick })
    own.revoked.add('host-1')
    expect((await client.closed).code).toBe('membership-revoked')
  })

  test('a membership that expires ends its channel', async () => {
    let offsetMs = 0
    const clock: Clock = { ...systemClock, now: () => Date.now() + offsetMs }
    await using there = await testListener(vault, { clock, limits: quick })
    const client = await there.dial(vault.server('host-1'), { limits: quick })
    offsetMs = 2 * 3_600_000
    expect((await client.closed).code).toBe('membership-expired')
  })
})

describe('limits of a sender', () => {
  test('what cannot travel is refused to its sender and the channel stays', async () => {
    await using there = await testListener(vault)
    await using client = await there.dial(vault.server('host-1'))
    const tooBig: Message = { ...payload, tail: Buffer.alloc(2 * 1024 * 1024) }
    await expect(client.send(tooBig)).rejects.toMatchObject({ code: 'channel-oversize' })
    const unsafe: Message = { kind: 'reportAck', body: { reportSeq: 2 ** 53 } }
    await expect(client.send(unsafe)).rejects.toMatchObject({ code: 'channel-unsafe-number' })
    await client.send(ack)
    for await (const message of (await there.channel(0)).messages()) {
      expect(message).toEqual(ack)
      break
    }
  })

  test('a sender that never waits fails its channel, not its process', async () => {
    const limits = {
      ...quick,
      sendHighWaterBytes: 65536,
      maxQueuedBytes: 1024 * 1024,
      receiveHighWaterBytes: 65536,
    }
    await using there = await testListener(vault, { limits })
    const client = await there.dial(vault.server('host-1'), { limits })
    await there.channel(0)
    for (let index = 0; index < 100; index++) void client.send(payload)
    expect((await client.closed).code).toBe('channel-queue-full')
  })
})

describe('keepConnected', () => {
  const backoff = { minMs: 5, maxMs: 40 }

  test('comes back when the listener dies and returns, says why, and stops on the signal', async () => {
    const tls = await makeTlsIdentity('test listener')
    const first = await testListener(vault, { tls })
    const port = first.listener.port
    const stop = new AbortController()
    const events: ConnectionEvent[] = []
    const self = vault.server('host-1')
    const running = keepConnected({
      dial: (signal) => first.dial(self, { signal }),
      onChannel: (channel) => channel.send(ack),
      clock: systemClock,
      rng: systemRng,
      log: silentLog,
      signal: stop.signal,
      backoff,
      onEvent: (event) => events.push(event),
    })
    await first.channel(0)
    await first.listener[Symbol.asyncDispose]()
    await eventually(() => events.some((event) => event.code === 'channel-unreachable'), 'a failed attempt')
    await using second = await testListener(vault, { tls, port })
    const channel = await second.channel(0)
    await eventually(
      () => events.filter((event) => event.kind === 'connected').length === 2,
      'the second connection',
    )
    stop.abort()
    await running
    expect((await channel.closed).code).toBe('channel-closed')
    expect(events.map((event) => event.kind)).toEqual(
      expect.arrayContaining(['connected', 'disconnected', 'connect-failed']),
    )
    for (const event of events) expect(event.retryInMs).toBeLessThanOrEqual(backoff.maxMs)
  })

  test('a handler that throws closes its channel with the reason, and the next attempt follows', async () => {
    await using there = await testListener(vault)
    const stop = new AbortController()
    const events: ConnectionEvent[] = []
    let calls = 0
    const running = keepConnected({
      dial: (signal) => there.dial(vault.server('host-1'), { signal }),
      onChannel: () => {
        if (++calls === 1) throw new Error('handler broke')
      },
      clock: systemClock,
      rng: systemRng,
      log: silentLog,
      signal: stop.signal,
      backoff,
      onEvent: (event) => events.push(event),
    })
    expect((await (await there.channel(0)).closed).code).toBe('channel-closed-by-peer')
    await there.channel(1)
    expect(events[1]).toMatchObject({ kind: 'disconnected', code: 'internal', message: 'handler broke' })
    stop.abort()
    await running
  })
})
