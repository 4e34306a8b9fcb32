/** A replica server over the real store in its worker, and sources that say what a test wants over a channel in memory. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openRemoteReplicaStore } from '#recovery-agent/replica/client.ts'
import type { RemoteReplicaStore } from '#recovery-agent/replica/remote.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HASH_BYTES, leafOf, nodeOf, rootOf } from '#shared/blocks/hash-tree.ts'
import type { Bodies, Message, MessageKind } from '#shared/channel/message.ts'
import type { Channel, Peer } from '#shared/channel/port.ts'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import { diskId, type ServerId, serverId, type VmId, vaultId, vmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { memoryChannelPair } from '#shared/testing/memory-channel.ts'
import { generateKeys, type ServerKeys } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'
import { issueTicket, type Ticket } from '#shared/trust/ticket.ts'
import { createReplicaServer, type ReplicaServer } from '../replica-server.ts'

const vault = vaultId.parse('vault')
const source = serverId.parse('source')
const target = serverId.parse('target')
const vaultKeys = generateKeys()
const sourceKeys = generateKeys()
export const disk = diskId.parse('d0')
export const BLOCKS = 300
const sizeBytes = BLOCKS * BLOCK_BYTES - 100

function peer(id: ServerId): Peer {
  return { vaultId: vault, serverId: id, kind: 'agent', name: id, publicKey: sourceKeys.publicKey }
}

export interface TargetKit extends AsyncDisposable {
  readonly store: RemoteReplicaStore
  readonly server: ReplicaServer
  readonly sealed: VmId[]
  /** A source on a connection of its own; without `id` also a new VM whose replica is prepared. */
  source(options?: { epoch?: number; id?: VmId }): Promise<TestSource>
}

export function targetKit(): TargetKit {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-replica-server-'))
  const store = openRemoteReplicaStore({ dir, log: silentLog })
  const sealed: VmId[] = []
  let vms = 0
  const server = createReplicaServer({
    self: { serverId: target, vaultPublicKey: vaultKeys.publicKey },
    store,
    clock: systemClock,
    log: silentLog,
    crashPoint: noCrash,
    onSealed: (id) => void sealed.push(id),
    onDiverged: () => {},
  })
  return {
    store,
    server,
    sealed,
    async source({ epoch = 1, id } = {}) {
      const vm = id ?? vmId.parse(`vm-${++vms}`)
      if (!id) {
        const disks = [{ diskId: disk, sizeBytes }]
        const policy = replicationPolicy.parse({})
        await store.prepare({ vmId: vm, epoch, sourceServerId: source, policy, disks })
      }
      return connect(server, vm, epoch)
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** A source that says what the test wants. */
export interface TestSource extends AsyncDisposable {
  readonly id: VmId
  readonly channel: Channel
  say<Kind extends MessageKind>(kind: Kind, body: Bodies[Kind], tail?: Buffer): void
  /** The next message of one of these kinds; the others are skipped. */
  hears<Kind extends MessageKind>(...kinds: Kind[]): Promise<Extract<Message, { kind: Kind }>>
  open(changes?: Partial<Ticket>, epoch?: number, owedTops?: readonly number[]): void
  begin(changes?: Partial<Bodies['deltaBegin']>): void
  blocks(changes?: Partial<Bodies['blocks']>, tail?: Buffer): void
  end(changes?: Partial<Bodies['deltaEnd']> & { keys?: ServerKeys; root?: Buffer }): void
}

function connect(server: ReplicaServer, vm: VmId, epoch: number): TestSource {
  const [here, there] = memoryChannelPair({ left: peer(source), right: peer(target) })
  const served = server.serve(there)
  const heard = here.messages()[Symbol.asyncIterator]()
  const capturedAtMs = 1_700_000_000_000
  const base = { vmId: vm, epoch, seq: 1 }
  const say: TestSource['say'] = (kind, body, tail) =>
    void here.send({ kind, body, ...(tail ? { tail: Buffer.from(tail) } : {}) } as Message)
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
    open(changes = {}, asked = epoch, owedTops = []) {
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
      say('openReplica', { vmId: vm, epoch: asked, ticket, disks: [], owedTops })
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
          seq: changes.seq ?? base.seq,
          capturedAtMs,
          consistency: 'crash',
          disks: [{ diskId: disk, sizeBytes, root, changedBlocks: 1 }],
          sourceServerId: source,
          suspect: '',
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

export async function refusal(from: TestSource) {
  const { body } = await from.hears('replicaRefusal', 'pointAck')
  return 'code' in body ? body.code : 'acknowledged'
}
