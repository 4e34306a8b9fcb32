import { expect, test } from 'vitest'
import type { Message } from './message.ts'
import type { Channel } from './port.ts'
import { eventually, testListener, testVault } from './testing.ts'

const command = (commandId: string): Message => ({
  kind: 'command',
  body: { commandId, kind: 'replica.pin', json: Buffer.from('{}') },
})

function blocks(batch: number, bytes: number): Message {
  return {
    kind: 'blocks',
    body: { vmId: 'vm', epoch: 1, seq: 1, diskId: 'd', batch, blockIndexes: [1, 2], storedBytes: [0, bytes] },
    tail: Buffer.alloc(bytes, batch),
  }
}

async function take(channel: Channel, count: number): Promise<Message[]> {
  const taken: Message[] = []
  if (count === 0) return taken
  for await (const message of channel.messages()) {
    taken.push(message)
    if (taken.length === count) break
  }
  return taken
}

test('both ends know each other and exchange messages with and without payload', async () => {
  const vault = testVault()
  await using there = await testListener(vault)
  await using client = await there.dial(vault.server('host-1'), { expectPeer: { kind: 'coordinator' } })
  const server = await there.channel(0)
  expect(client.peer).toMatchObject({ serverId: 'listener', kind: 'coordinator', vaultId: 'vault-a' })
  expect(server.peer).toMatchObject({ serverId: 'host-1', kind: 'agent', name: 'host-1' })

  await client.send(command('c1'))
  await client.send(blocks(7, 1024 * 1024))
  await server.send({ kind: 'pointAck', body: { vmId: 'vm', epoch: 2 ** 53 - 1, seq: 0, slowMs: 0 } })
  const [first, second] = await take(server, 2)
  expect(first).toEqual(command('c1'))
  expect(second?.kind).toBe('blocks')
  expect(second?.tail?.equals(Buffer.alloc(1024 * 1024, 7))).toBe(true)
  expect(await take(client, 1)).toEqual([
    { kind: 'pointAck', body: { vmId: 'vm', epoch: 2 ** 53 - 1, seq: 0, slowMs: 0 } },
  ])
  expect(there.listener.connections()).toHaveLength(1)
  expect(there.listener.unauthenticated).toBe(0)
})

test('counters count what the socket carried', async () => {
  const vault = testVault()
  await using there = await testListener(vault)
  await using client = await there.dial(vault.server('host-1'))
  const server = await there.channel(0)
  const before = client.counters
  await client.send(blocks(1, 100_000))
  await take(server, 1)
  const after = client.counters
  expect(after.bytesSent - before.bytesSent).toBeGreaterThan(100_000)
  expect(after.bytesSent - before.bytesSent).toBeLessThan(100_200)
  expect(after.framesSent).toBe(before.framesSent + 1)
  expect(server.counters.bytesReceived).toBe(after.bytesSent)
  expect(server.counters.framesReceived).toBe(after.framesSent)
})

test('an orderly close delivers what was sent before it, and both ends say so', async () => {
  const vault = testVault()
  await using there = await testListener(vault)
  const client = await there.dial(vault.server('host-1'))
  const server = await there.channel(0)
  for (let batch = 0; batch < 10; batch++) void client.send(blocks(batch, 1024 * 1024))
  client.close()
  const batches: number[] = []
  for await (const message of server.messages())
    if (message.kind === 'blocks') batches.push(message.body.batch)
  expect(batches).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  expect((await server.closed).code).toBe('channel-closed')
  expect((await client.closed).code).toBe('channel-closed')
  await expect(client.send(command('late'))).rejects.toMatchObject({ code: 'channel-closed' })
  await eventually(() => there.listener.connections().length === 0, 'the listener to forget it')
})

test('a slow reader bounds what the sender may queue, and nothing is lost', async () => {
  const vault = testVault()
  const limits = { sendHighWaterBytes: 512 * 1024, receiveHighWaterBytes: 512 * 1024 }
  await using there = await testListener(vault, { limits })
  await using client = await there.dial(vault.server('host-1'), { limits })
  const server = await there.channel(0)
  const total = 400
  let sent = 0
  const sending = (async () => {
    for (; sent < total; sent++) await client.send(blocks(sent, 256 * 1024))
  })()
  // The sender comes to rest: nobody reads, so the kernel's buffers and both marks are all that fills.
  let last = -1
  while (last !== sent) {
    last = sent
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  expect(sent).toBeLessThan(total / 2)
  const taken = await take(server, total)
  await sending
  expect(taken.map((message) => message.kind === 'blocks' && message.body.batch)).toEqual(
    Array.from({ length: total }, (_, index) => index),
  )
})

test('a command overtakes the blocks that wait in front of it; blocks keep their order with what ends them', async () => {
  const vault = testVault()
  const limits = { sendHighWaterBytes: 64 * 1024, receiveHighWaterBytes: 64 * 1024 }
  await using there = await testListener(vault, { limits })
  await using client = await there.dial(vault.server('host-1'), { limits })
  const server = await there.channel(0)
  for (let batch = 0; batch < 100; batch++) void client.send(blocks(batch, 256 * 1024))
  void client.send({ kind: 'pointAck', body: { vmId: 'vm', epoch: 1, seq: 1, slowMs: 0 } })
  void client.send(command('urgent'))
  const kinds = (await take(server, 102)).map((message) => message.kind)
  expect(kinds.indexOf('command')).toBeLessThan(90)
  expect(kinds.indexOf('pointAck')).toBe(101)
})
