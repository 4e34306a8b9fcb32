/** What comes to a listener without belonging there, on real sockets. */

import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type WebSocket, WebSocketServer } from 'ws'
import { generateKeys } from '../trust/keys.ts'
import { makeTlsIdentity } from '../trust/tls-identity.ts'
import { encodeMessage } from './codec.ts'
import { dialChannel } from './dial.ts'
import { sealer } from './envelope.ts'
import { channelLimits } from './limits.ts'
import { noMac } from './mac.ts'
import { closedWithErrorCode } from './socket-channel.ts'
import { eventually, testListener, testVault } from './testing.ts'
import { rawSocket, tcpProxy } from './testing-attack.ts'

const vault = testVault()
const other = testVault('vault-b')
const now = Date.now()

describe('refused by the listener, and told why', () => {
  const impostor = { ...vault.server('host-1'), keys: generateKeys() }
  vault.revoked.add('removed')
  test.each([
    ['a member of another vault', other.server('host-1'), 'membership-wrong-vault', {}],
    ['an expired member', vault.server('late', 'agent', { expiresAtMs: now - 1 }), 'membership-expired', {}],
    ['a removed member', vault.server('removed'), 'membership-revoked', {}],
    ['a member of a later key', vault.server('x', 'agent', { generation: 2 }), 'membership-generation', {}],
    ['a stolen membership', impostor, 'channel-bad-proof', {}],
    ['a future version', vault.server('host-2'), 'channel-version-mismatch', { versions: [7, 9] }],
  ])('%s', async (_who, self, code, changes) => {
    await using there = await testListener(vault)
    const dialled = there.dial(self, changes)
    await expect(dialled).rejects.toMatchObject({ code })
    expect((await there.event(code)).code).toBe(code)
    expect(there.channels).toEqual([])
    await eventually(() => there.listener.unauthenticated === 0, 'the stranger to be gone')
  })

  test('a version mismatch names the versions of both', async () => {
    await using there = await testListener(vault)
    const error = await there.dial(vault.server('x'), { versions: [7] }).catch((thrown) => thrown)
    expect(error.details).toMatchObject({ peerVersions: [1] })
    expect(error.message).toContain('version 1 of the wire, the other 7')
  })

  test('of an older generation, after the vault key was regenerated', async () => {
    const server = vault.server('listener', 'coordinator', { generation: 2 })
    const trust = { ...vault.trustFor(server), generation: 2 }
    await using there = await testListener(vault, { trust: () => trust })
    await expect(there.dial(vault.server('host-1'))).rejects.toMatchObject({ code: 'membership-generation' })
  })
})

describe('refused by the client', () => {
  test.each([
    ['a listener of another vault', { vaultPublicKey: other.keys.publicKey }, 'signature-invalid'],
    ['another server than meant', { expectPeer: { serverId: 'someone' as never } }, 'channel-wrong-peer'],
    ['another kind than meant', { expectPeer: { kind: 'agent' as const } }, 'channel-wrong-peer'],
    ['a removed listener', { isRevoked: () => true }, 'membership-revoked'],
    ['an older generation', { generation: 5 }, 'membership-generation'],
  ])('%s', async (_who, changes, code) => {
    await using there = await testListener(vault)
    await expect(there.dial(vault.server('host-1'), changes)).rejects.toMatchObject({ code })
    expect(there.channels).toEqual([])
  })

  test('another certificate than the pinned one, before a single byte of the handshake', async () => {
    await using there = await testListener(vault)
    const pinned = await makeTlsIdentity('test listener')
    const dialled = there.dial(vault.server('x'), { pinnedCertificatePem: pinned.certificatePem })
    await expect(dialled).rejects.toMatchObject({ code: 'channel-certificate-mismatch' })
    expect(there.events).toEqual([])
  })

  test('nobody there, and something that is no Hotsite', async () => {
    await using there = await testListener(vault)
    const unused = await tcpProxy(1)
    await unused[Symbol.asyncDispose]()
    await expect(there.dial(vault.server('x'), { port: unused.port })).rejects.toMatchObject({
      code: 'channel-unreachable',
    })
    await using silent = await tcpProxy(there.listener.port)
    silent.stall()
    const limits = { handshakeTimeoutMs: 100 }
    await expect(there.dial(vault.server('x'), { port: silent.port, limits })).rejects.toMatchObject({
      code: 'channel-handshake-timeout',
    })
    const stop = AbortSignal.timeout(50)
    await expect(there.dial(vault.server('x'), { port: silent.port, signal: stop })).rejects.toMatchObject({
      name: 'TimeoutError',
    })
  })
})

test('a relay that ends TLS on both sides with the stolen TLS key gains nothing: the exporter differs', async () => {
  const tls = await makeTlsIdentity('test listener')
  await using there = await testListener(vault, { tls })
  const relayTls = createServer({ key: tls.keyPem, cert: tls.certificatePem, minVersion: 'TLSv1.3' })
  const relay = new WebSocketServer({ server: relayTls, perMessageDeflate: false })
  let forwarded = 0
  relay.on('connection', async (near: WebSocket) => {
    const early: Buffer[] = []
    near.on('message', (data: Buffer) => early.push(data))
    const { socket: far } = await rawSocket(there.dialOptions(vault.server('unused')))
    near.removeAllListeners('message')
    const pass = (to: WebSocket) => (data: Buffer) => {
      forwarded += 1
      to.send(data)
    }
    near.on('message', pass(far))
    far.on('message', pass(near))
    early.forEach(pass(far))
    far.on('close', () => near.terminate())
    near.on('close', () => far.terminate())
  })
  await new Promise<void>((resolve) => relayTls.listen(0, '127.0.0.1', resolve))
  const port = (relayTls.address() as AddressInfo).port
  await expect(there.dial(vault.server('host-1'), { port })).rejects.toMatchObject({
    code: 'channel-bad-proof',
  })
  expect((await there.event('channel-bad-proof')).code).toBe('channel-bad-proof')
  // Both hellos and the client's proof went through, so it is the proof that failed and nothing before it.
  expect(forwarded).toBeGreaterThanOrEqual(3)
  expect(there.channels).toEqual([])
  relay.close()
  relayTls.closeAllConnections()
  relayTls.close()
})

describe('slow-loris', () => {
  const limits = { handshakeTimeoutMs: 150 }
  const ways: [string, (port: number, ca: string) => Socket][] = [
    ['connects and says nothing', (port) => connectTcp(port, '127.0.0.1')],
    [
      'completes TLS and begins a request',
      (port, ca) => {
        const socket = connectTls({ port, host: '127.0.0.1', ca, checkServerIdentity: () => undefined })
        socket.write('GET /channel HTTP/1.1\r\nHost: x\r\nX-Slow: ')
        return socket
      },
    ],
  ]
  test.each(ways)('%s: is cut off', async (_what, open) => {
    await using there = await testListener(vault, { limits })
    const { pinnedCertificatePem } = there.dialOptions(vault.server('x'))
    const started = performance.now()
    const socket = open(there.listener.port, pinnedCertificatePem)
    socket.resume()
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.on('error', () => undefined)
    await closed
    expect(performance.now() - started).toBeGreaterThan(100)
    await eventually(() => there.listener.unauthenticated === 0, 'the stranger to be forgotten')
  })

  test('opens the WebSocket and dribbles a hello: is cut off', async () => {
    await using there = await testListener(vault, { limits })
    const { socket } = await rawSocket(there.dialOptions(vault.server('x')))
    socket.send(Buffer.alloc(10), { fin: false })
    await new Promise((resolve) => socket.once('close', resolve))
    expect((await there.event('channel-handshake-timeout')).remote).toContain('127.0.0.1')
    expect(there.listener.unauthenticated).toBe(0)
  })

  test('so many strangers at most; the next is turned away, one event tells of it, and members get in later', async () => {
    await using there = await testListener(vault, {
      limits: { handshakeTimeoutMs: 400, maxUnauthenticatedConnections: 4 },
    })
    const sockets = Array.from({ length: 12 }, () => connectTcp(there.listener.port, '127.0.0.1'))
    for (const socket of sockets) socket.on('error', () => undefined)
    await there.event('channel-too-many')
    expect(there.listener.unauthenticated).toBeLessThanOrEqual(4)
    await eventually(() => there.listener.unauthenticated === 0, 'the strangers to be gone')
    await using member = await there.dial(vault.server('host-1'))
    expect(member.peer.kind).toBe('coordinator')
    expect(there.events.filter((event) => event.code === 'channel-too-many')).toHaveLength(1)
  })
})

test('an oversize handshake frame is refused before it is buffered', async () => {
  await using there = await testListener(vault)
  const { socket } = await rawSocket(there.dialOptions(vault.server('x')))
  const closed = new Promise<number>((resolve) => socket.once('close', resolve))
  socket.send(Buffer.alloc(channelLimits.maxHandshakeFrameBytes + 1))
  expect(await closed).toBe(closedWithErrorCode)
  expect((await there.event('channel-oversize')).code).toBe('channel-oversize')
})

test('session messages before the handshake are refused', async () => {
  await using there = await testListener(vault)
  const { socket } = await rawSocket(there.dialOptions(vault.server('x')))
  const header = encodeMessage({ kind: 'reportAck', body: { reportSeq: 1 } })
  const { head, tag } = sealer(noMac, channelLimits, 0).seal(header, undefined)
  socket.send(Buffer.concat([head, tag]))
  await there.event('channel-malformed')
  expect(there.channels).toEqual([])
})

test('random bytes as TCP, as TLS content and as WebSocket messages never stop the listener', async () => {
  await using there = await testListener(vault, { limits: { handshakeTimeoutMs: 1000 } })
  const { port } = there.listener
  const options = there.dialOptions(vault.server('x'))
  const drained = (socket: Socket, bytes: Uint8Array) =>
    new Promise<void>((resolve) => {
      socket.on('error', () => undefined)
      socket.once('close', () => resolve())
      socket.resume()
      socket.end(bytes)
    })
  const layers: Record<string, (bytes: Uint8Array) => Promise<void>> = {
    tcp: (bytes) => drained(connectTcp(port, '127.0.0.1'), bytes),
    tls: (bytes) =>
      drained(
        connectTls({
          port,
          host: '127.0.0.1',
          ca: [options.pinnedCertificatePem],
          checkServerIdentity: () => undefined,
        }),
        bytes,
      ),
    webSocket: async (bytes) => {
      const { socket } = await rawSocket(options)
      socket.send(bytes)
      await new Promise((resolve) => socket.once('close', resolve))
    },
  }
  const property = fc.asyncProperty(
    fc.constantFrom('tcp', 'tls', 'webSocket'),
    fc.uint8Array({ maxLength: 400 }),
    async (layer, bytes) => layers[layer]?.(bytes),
  )
  await fc.assert(property, { numRuns: 60 })
  expect(there.channels).toEqual([])
  await using honest = await there.dial(vault.server('host-1'))
  expect(honest.peer.serverId).toBe('listener')
  await eventually(() => there.listener.unauthenticated === 0, 'all strangers to be gone')
})

test('a flipped bit on the wire below TLS ends the connection', async () => {
  await using there = await testListener(vault)
  await using proxy = await tcpProxy(there.listener.port)
  await using client = await dialChannel(there.dialOptions(vault.server('host-1'), { port: proxy.port }))
  const server = await there.channel(0)
  proxy.flipNextBit()
  void client.send({ kind: 'reportAck', body: { reportSeq: 1 } })
  expect((await server.closed).code).toBe('channel-lost')
  expect((await client.closed).code).toBe('channel-lost')
})

test('a connection cut in the middle of a frame is lost, not closed', async () => {
  await using there = await testListener(vault)
  await using proxy = await tcpProxy(there.listener.port)
  await using client = await dialChannel(there.dialOptions(vault.server('host-1'), { port: proxy.port }))
  const server = await there.channel(0)
  proxy.cutNextBytes()
  void client.send({ kind: 'reportAck', body: { reportSeq: 1 } })
  expect((await server.closed).code).toBe('channel-lost')
  expect((await client.closed).code).toBe('channel-lost')
})
