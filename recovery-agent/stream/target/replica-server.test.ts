/** What a source, honest or not, can make a target do: the real store in its worker, a channel in memory. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openRemoteReplicaStore } from '#recovery-agent/replica/client.ts'
import type { RemoteReplicaStore } from '#recovery-agent/replica/remote.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HASH_BYTES, leafOf, nodeOf, rootOf } from '#shared/blocks/hash-tree.ts'
import type { Bodies, Message, MessageKind } from '#shared/channel/message.ts'
import type { Channel, Peer } from '#shared/channel/port.ts'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId, serverId, type VmId, vaultId, vmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { memoryChannelPair } from '#shared/testing/memory-channel.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'
import { issueTicket, type Ticket } from '#shared/trust/ticket.ts'
import { createReplicaServer, type ReplicaServer } from './replica-server.ts'

const vault = vaultId.parse('vault')
const source = serverId.parse('source')
const target = serverId.parse('target')
const vaultKeys = generateKeys()
const sourceKeys = generateKeys()
const disk = diskId.parse('d0')
const BLOCKS = 300
const sizeBytes = BLOCKS * BLOCK_BYTES - 100
const peer = (id: typeof source, publicKey = sourceKeys.publicKey): Peer => ({
  vaultId: vault,
  serverId: id,
  kind: 'agent',
  name: id,
  publicKey,
})

let dir: string
let store: RemoteReplicaStore
let server: ReplicaServer
let vms = 0
const sealed: VmId[] = []

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-replica-server-'))
  store = openRemoteReplicaStore({ dir, log: silentLog })
  server = createReplicaServer({
    self: { serverId: target, vaultPublicKey: vaultKeys.publicKey },
    store,
    clock: systemClock,
    log: silentLog,
    crashPoint: noCrash,
    onSealed: (id) => void sealed.push(id),
    onDiverged: () => {},
  })
})
afterAll(async () => {
  await store[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true, force: true })
})

/** A source that says what the test wants. */
interface TestSource extends AsyncDisposable {
  readonly id: VmId
  readonly channel: Channel
  say<Kind extends MessageKind>(kind: Kind, body: Bodies[Kind], tail?: Buffer): void
  /** The next message of one of these kinds; the others are skipped. */
  hears<Kind extends MessageKind>(...kinds: Kind[]): Promise<Extract<Message, { kind: Kind }>>
  open(changes?: Partial<Ticket>, epoch?: number): void
  begin(changes?: Partial<Bodies['deltaBegin']>): void
  blocks(changes?: Partial<Bodies['blocks']>, tail?: Buffer): void
  end(changes?: Partial<Bodies['deltaEnd']> & { keys?: typeof sourceKeys; root?: Buffer }): void
}

async function newSource({ epoch = 1, id }: { epoch?: number; id?: VmId } = {}): Promise<TestSource> {
  const vm = id ?? vmId.parse(`vm-${++vms}`)
  if (!id) {
    const disks = [{ diskId: disk, sizeBytes }]
    await store.prepare({
      vmId: vm,
      epoch,
      sourceServerId: source,
      policy: replicationPolicy.parse({}),
      disks,
    })
  }
  const [here, there] = memoryChannelPair({ left: peer(source), right: peer(target) })
  const served = server.serve(there)
  const heard = here.messages()[Symbol.asyncIterator]()
  const capturedAtMs = 1_700_000_000_000
  const base = { vmId: vm, epoch, seq: 1 }
  const say: TestSource['say'] = (kind, body, tail) =>
    void here.send({ kind, body, ...(tail ? { tail } : {}) } as Message)
  return {
    id: vm,
    channel: here,
    say,
    async hears(...kinds) {
      for (;;) {
        const { value, done } = await heard.next()
        if (done) throw new Error(`the channel ended before ${kinds}`)
        if ((kinds as MessageKind[]).includes(value.kind)) return value as never
      }
    },
    open(changes = {}, asked = epoch) {
      const now = Date.now()
      const ticket = issueTicket(
        {
          vaultId: vault,
          vmId: vm,
          epoch: asked,
          sourceServerId: source,
          targetServerId: target,
          issuedAtMs: now,
          expiresAtMs: now + 60_000,
          ...changes,
        },
        vaultKeys.secretKey,
      )
      say('openReplica', { vmId: vm, epoch: asked, ticket, disks: [] })
    },
    begin: (changes = {}) =>
      say('deltaBegin', {
        ...base,
        baseSeq: 0,
        kind: 'delta',
        capturedAtMs,
        consistency: 'crash',
        disks: [{ diskId: disk, sizeBytes }],
        ...changes,
      }),
    blocks: (changes = {}, tail = Buffer.alloc(BLOCK_BYTES, 1)) =>
      say(
        'blocks',
        { ...base, diskId: disk, batch: 0, blockIndexes: [0], storedBytes: [BLOCK_BYTES], ...changes },
        tail,
      ),
    end({ keys = sourceKeys, root = rootWith(Buffer.alloc(BLOCK_BYTES, 1)), ...changes } = {}) {
      const manifest = signManifest(
        {
          vaultId: vault,
          ...base,
          capturedAtMs,
          consistency: 'crash',
          disks: [{ diskId: disk, sizeBytes, root, changedBlocks: 1 }],
          sourceServerId: source,
        },
        keys,
      )
      say('deltaEnd', { ...base, manifest, batches: [{ diskId: disk, nextBatch: 1 }], ...changes })
    },
    async [Symbol.asyncDispose]() {
      here.close()
      await served
    },
  }
}

/** The root of a disk whose first block is this and whose others are zero. */
function rootWith(first: Buffer): Buffer {
  const leaves = Buffer.alloc(256 * HASH_BYTES)
  leafOf(first).copy(leaves)
  return rootOf(Buffer.concat([nodeOf(leaves, 1), Buffer.alloc(HASH_BYTES)]), sizeBytes)
}

async function refusal(from: TestSource) {
  const { body } = await from.hears('replicaRefusal', 'pointAck')
  return 'code' in body ? body.code : 'acknowledged'
}

test('a point is acknowledged only when sealed, and a delta that is here already at once (I3, I4)', async () => {
  await using it = await newSource()
  it.open()
  expect((await it.hears('replicaOpened')).body).toMatchObject({ newestSeq: 0, epoch: 1 })
  it.begin()
  expect((await it.hears('deltaAccepted')).body.resume).toEqual([{ diskId: disk, nextBatch: 0 }])
  it.blocks()
  const { body } = await it.hears('blocksDurable')
  expect(body).toMatchObject({ creditBytes: BLOCK_BYTES, disks: [{ diskId: disk, nextBatch: 1 }] })
  it.end()
  expect((await it.hears('pointAck')).body.seq).toBe(1)
  expect((await store.points(it.id)).map(({ seq }) => seq)).toEqual([1])
  expect(sealed).toContain(it.id)
  it.begin()
  expect((await it.hears('pointAck', 'deltaAccepted')).kind).toBe('pointAck')
})

test('a break in the middle: the next connection resumes at the batch that is durable, repeats are harmless', async () => {
  const first = await newSource()
  first.open()
  first.begin()
  first.blocks()
  await first.hears('blocksDurable')
  await first[Symbol.asyncDispose]()
  await using second = await newSource({ id: first.id })
  second.open()
  second.begin()
  expect((await second.hears('deltaAccepted')).body.resume).toEqual([{ diskId: disk, nextBatch: 1 }])
  second.blocks()
  second.end()
  expect((await second.hears('pointAck', 'replicaRefusal')).kind).toBe('pointAck')
})

test('an older connection of the same VM cannot write any more once a newer one opened it', async () => {
  await using older = await newSource()
  older.open()
  older.begin()
  await older.hears('deltaAccepted')
  await using newer = await newSource({ id: older.id })
  newer.open()
  newer.begin()
  await newer.hears('deltaAccepted')
  older.blocks()
  older.end()
  newer.blocks()
  newer.end()
  expect((await newer.hears('pointAck', 'replicaRefusal')).kind).toBe('pointAck')
  // The late messages of the older one were dropped: the next thing it hears is the answer to a new attempt.
  older.open()
  expect((await older.hears('replicaOpened', 'replicaRefusal', 'pointAck')).kind).toBe('replicaOpened')
})

describe('who may open a replica', () => {
  test.each([
    ['a ticket for another VM', { vmId: vmId.parse('other') }, 'ticket-invalid'],
    ['a ticket for another source', { sourceServerId: serverId.parse('other') }, 'ticket-invalid'],
    ['a ticket for another target', { targetServerId: serverId.parse('other') }, 'ticket-invalid'],
    ['a ticket for a later epoch', { epoch: 3 }, 'ticket-invalid'],
    ['an expired ticket', { expiresAtMs: 5 }, 'ticket-expired'],
  ])('%s is refused', async (_case, changes, code) => {
    await using it = await newSource()
    it.open(changes)
    expect(await refusal(it)).toBe(code)
    it.open()
    await it.hears('replicaOpened')
  })

  test('no ticket at all, an epoch that is over, one that is not prepared, a VM that is not here', async () => {
    await using it = await newSource({ epoch: 2 })
    it.say('openReplica', { vmId: it.id, epoch: 2, ticket: Buffer.from('none'), disks: [] })
    expect(await refusal(it)).toBe('signature-invalid')
    it.open({}, 1)
    const { body } = await it.hears('replicaRefusal')
    expect(body).toMatchObject({ code: 'epoch-stale', epoch: 2 })
    it.open({}, 3)
    expect(await refusal(it)).toBe('replica-not-prepared')
    await using stranger = await newSource({ id: vmId.parse('nobody') })
    stranger.open()
    expect(await refusal(stranger)).toBe('replica-unknown')
  })
})

describe('hostile input is refused with a code, the channel stays, and no point comes of it', () => {
  const full = Buffer.alloc(BLOCK_BYTES, 1)
  const cases: [string, (it: TestSource) => void, string][] = [
    ['a block beyond the disk', (it) => it.blocks({ blockIndexes: [BLOCKS] }), 'stream-malformed'],
    ['a disk that is not part of it', (it) => it.blocks({ diskId: 'd9' }), 'stream-malformed'],
    ['a disk name with a path', (it) => it.blocks({ diskId: '../../etc' }), 'stream-malformed'],
    ['fewer bytes than announced', (it) => it.blocks({}, full.subarray(1)), 'stream-malformed'],
    ['more bytes than announced', (it) => it.blocks({ storedBytes: [100] }), 'stream-malformed'],
    [
      'a block larger than a block',
      (it) => it.blocks({ storedBytes: [BLOCK_BYTES + 1] }, Buffer.alloc(BLOCK_BYTES + 1)),
      'stream-malformed',
    ],
    [
      'the same block twice',
      (it) => it.blocks({ blockIndexes: [4, 4], storedBytes: [0, 0] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    [
      'blocks that go back',
      (it) => it.blocks({ blockIndexes: [4, 3], storedBytes: [0, 0] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    [
      'no block',
      (it) => it.blocks({ blockIndexes: [], storedBytes: [] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    [
      'a bomb: 256 MiB in 10 KiB of zstd',
      (it) => {
        const bomb = zstdCompressSync(Buffer.alloc(1 << 28))
        it.blocks({ storedBytes: [bomb.length] }, bomb)
      },
      'stream-malformed',
    ],
    ['a batch that skips one', (it) => it.blocks({ batch: 1 }), 'stream-out-of-order'],
    ['blocks of another delta', (it) => it.blocks({ seq: 7 }), 'stream-out-of-order'],
    [
      'an end before all batches',
      (it) => it.end({ batches: [{ diskId: disk, nextBatch: 9 }] }),
      'stream-out-of-order',
    ],
    ['an end with a manifest of another key', (it) => it.end({ keys: generateKeys() }), 'manifest-invalid'],
    [
      'an end with a manifest that is none',
      (it) => it.end({ manifest: Buffer.from('x') }),
      'manifest-invalid',
    ],
    [
      'tree nodes beyond the disk',
      (it) =>
        it.say('treeQuery', {
          vmId: it.id,
          epoch: 1,
          seq: 1,
          diskId: disk,
          level: 0,
          first: 299,
          count: 2,
          requestId: 1,
        }),
      'stream-malformed',
    ],
    [
      'all tree nodes there are',
      (it) =>
        it.say('treeQuery', {
          vmId: it.id,
          epoch: 1,
          seq: 1,
          diskId: disk,
          level: 1,
          first: 0,
          count: 2 ** 40,
          requestId: 1,
        }),
      'stream-malformed',
    ],
    [
      'a disk of 2^53 bytes',
      (it) => it.begin({ disks: [{ diskId: disk, sizeBytes: Number.MAX_SAFE_INTEGER }] }),
      'stream-malformed',
    ],
    ['a delta without disks', (it) => it.begin({ disks: [] }), 'stream-malformed'],
    ['a delta on a point that is not here', (it) => it.begin({ seq: 9, baseSeq: 8 }), 'base-unknown'],
    ['a delta of a later epoch', (it) => it.begin({ epoch: 2 }), 'stream-out-of-order'],
  ]
  test.each(cases)('%s', async (_case, attack, code) => {
    await using it = await newSource()
    it.open()
    it.begin()
    await it.hears('deltaAccepted')
    attack(it)
    expect(await refusal(it)).toBe(code)
    it.open()
    await it.hears('replicaOpened')
    expect(await store.points(it.id)).toEqual([])
  })

  test('a root that is not that of the bytes: refused as diverged, nothing of it stays', async () => {
    await using it = await newSource()
    it.open()
    it.begin()
    it.blocks({}, Buffer.alloc(BLOCK_BYTES, 2))
    it.end()
    const { body } = await it.hears('replicaRefusal')
    expect(body).toMatchObject({ code: 'delta-diverged', seq: 1, diskIds: [disk] })
    it.open()
    it.begin()
    expect((await it.hears('deltaAccepted')).body.resume).toEqual([{ diskId: disk, nextBatch: 0 }])
  })

  test('any messages in any order: the server answers or ignores, and an honest source still gets its point', async () => {
    const text = fc.constantFrom('d0', 'd1', '', '../x')
    const small = fc.constantFrom(0, 1, 2, 300, 65_536, Number.MAX_SAFE_INTEGER)
    const attack = fc.oneof(
      fc.record({
        kind: fc.constant('blocks' as const),
        diskId: text,
        batch: small,
        index: small,
        bytes: small,
      }),
      fc.record({ kind: fc.constant('deltaBegin' as const), seq: small, baseSeq: small, sizeBytes: small }),
      fc.record({
        kind: fc.constant('treeQuery' as const),
        diskId: text,
        level: small,
        first: small,
        count: small,
      }),
      fc.record({ kind: fc.constant('deltaEnd' as const), manifest: fc.uint8Array({ maxLength: 40 }) }),
      fc.record({ kind: fc.constant('pointAck' as const) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(attack, { maxLength: 12 }), async (attacks) => {
        await using it = await newSource()
        const at = { vmId: it.id, epoch: 1, seq: 1 }
        it.open()
        it.begin()
        for (const one of attacks) {
          if (one.kind === 'blocks')
            it.blocks({
              diskId: one.diskId,
              batch: one.batch,
              blockIndexes: [one.index],
              storedBytes: [one.bytes],
            })
          else if (one.kind === 'deltaBegin')
            it.begin({
              seq: one.seq,
              baseSeq: one.baseSeq,
              disks: [{ diskId: disk, sizeBytes: one.sizeBytes }],
            })
          else if (one.kind === 'treeQuery') it.say('treeQuery', { ...at, requestId: 1, ...one })
          else if (one.kind === 'deltaEnd') it.end({ manifest: one.manifest })
          else it.say('pointAck', at)
        }
        await using honest = await newSource({ id: it.id })
        honest.open()
        await honest.hears('replicaOpened')
        await store.discardPartial(it.id)
        honest.begin()
        await honest.hears('deltaAccepted')
        honest.blocks()
        honest.end()
        expect(await refusal(honest)).toBe('acknowledged')
      }),
      { numRuns: 12 },
    )
  })
})

test('after exclusively() interrupted it, a transfer writes nothing, whatever was on its way (I5)', async () => {
  await using it = await newSource()
  it.open()
  it.begin()
  await it.hears('deltaAccepted')
  for (let batch = 0; batch < 20; batch++) it.blocks({ batch, blockIndexes: [batch] })
  await server.exclusively(it.id, async (interrupt) => {
    await store.raiseEpoch(it.id, 2)
    await interrupt(new HotsiteError('epoch-stale', 'epoch 2', { details: { epoch: 2 } }))
  })
  const { diskBytes } = await store.usage(it.id)
  it.blocks({ batch: 20 })
  it.end()
  expect((await it.hears('replicaRefusal')).body).toMatchObject({ code: 'epoch-stale', epoch: 2 })
  it.open({}, 1)
  expect(await refusal(it)).toBe('epoch-stale')
  expect((await store.usage(it.id)).diskBytes).toBeLessThanOrEqual(diskBytes)
  expect(await store.points(it.id)).toEqual([])
})
