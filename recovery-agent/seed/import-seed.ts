/**
 * Puts a seed into a replica that has no point yet, as the beginning of its first synchronization: an unsealed
 * synchronization resumes by hash comparison, so the source finds what the seed brought equal and sends the rest, and
 * the first point is attested like all others. Repeatable, and what a crash left of an import counts the next time.
 */

import type { VaultId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandRequest, CommandResultOf } from '#shared/messages/commands.ts'
import type { DeltaHeader } from '../replica/port.ts'
import type { RemoteDeltaWriter, RemoteReplicaStore } from '../replica/remote.ts'
import { openSeed } from './read-seed.ts'

/** Made durable after so much payload: what a crash takes is imported again. */
const DURABLE_EVERY_BYTES = 64 << 20

export interface SeedImportDeps {
  readonly store: Pick<RemoteReplicaStore, 'prepare' | 'begin' | 'points'>
  readonly vaultId: VaultId
  readonly log: Logger
}

/** Under the VM's lock. Throws what `openSeed` and the replica store throw. */
export async function importSeed(
  { store, vaultId, log }: SeedImportDeps,
  request: CommandRequest<'seed.import'>,
  signal: AbortSignal,
): Promise<CommandResultOf<'seed.import'>> {
  const { vmId, epoch, sourceServerId, policy, folder } = request
  const seed = await openSeed({ folder, vaultId, vmId, seedKey: Buffer.from(request.keyBase64, 'base64') })
  const { disks, capturedAtMs } = seed.manifest
  const { newestSeq } = await store.prepare({ vmId, epoch, sourceServerId, policy, disks })
  // Replication has begun: what the seed holds is there, or was replaced by something newer.
  if (newestSeq > 0) return { blocks: 0, bytes: 0, problems: [] }
  const header: DeltaHeader = {
    vmId,
    epoch,
    seq: 1,
    baseSeq: 0,
    kind: 'sync',
    capturedAtMs,
    consistency: 'crash',
    disks,
  }
  const writer = await store.begin(header)
  try {
    const { blocks, bytes } = await writeAll(writer, seed.batches(), signal)
    log.info('seed imported', { vmId, epoch, blocks, bytes, problems: seed.problems })
    return { blocks, bytes, problems: [...seed.problems] }
  } finally {
    await writer.close()
  }
}

async function writeAll(
  writer: RemoteDeltaWriter,
  batches: ReturnType<Awaited<ReturnType<typeof openSeed>>['batches']>,
  signal: AbortSignal,
): Promise<{ readonly blocks: number; readonly bytes: number }> {
  const nextBatch = new Map(writer.resume.map(({ diskId, nextBatch: next }) => [diskId, next]))
  let blocks = 0
  let bytes = 0
  let unsyncedBytes = 0
  for await (const { diskId, batch: packed } of batches) {
    signal.throwIfAborted()
    const batch = nextBatch.get(diskId) ?? 0
    nextBatch.set(diskId, batch + 1)
    const payloadBytes = packed.payload.length
    await writer.write({ diskId, batch, ...packed })
    blocks += packed.blockIndexes.length
    bytes += payloadBytes
    unsyncedBytes += payloadBytes
    if (unsyncedBytes < DURABLE_EVERY_BYTES) continue
    await writer.sync()
    unsyncedBytes = 0
  }
  await writer.sync()
  return { blocks, bytes }
}
