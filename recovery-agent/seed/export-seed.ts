/**
 * Writes the disks of a VM as a seed: a folder somebody carries to the target (offline initial replication).
 *
 * The disks are read from one held snapshot, group by group; zeros and holes cost nothing. Each finished part is
 * listed in seed.json at once, so an export that was interrupted goes on: a part whose groups have the same leaves in
 * the new snapshot is kept, any other is written again. A seed is no recovery point: the first synchronization
 * compares every hash and sends what changed since, so a block of an earlier instant costs a transfer, never
 * correctness.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { groupCountOf } from '#shared/blocks/hash-tree.ts'
import type { Clock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import { writeFileDurably } from '#shared/durable-file.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import {
  decodeSeedManifest,
  encodeSeedManifest,
  SEED_MANIFEST,
  SEED_VERSION,
  type SeedManifest,
  type SeedPart,
} from '#shared/formats/seed/manifest.ts'
import { RECORD_MAX_BYTES } from '#shared/formats/seed/part.ts'
import type { FabricVmId, ServerId, VaultId, VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { GroupReader } from '../capture/group-reader.ts'
import { Pace } from '../capture/pace.ts'
import type { HostHypervisor, SnapshotDisk } from '../hypervisor/port.ts'
import { LeavesDigest } from './leaves-digest.ts'
import { PartFile } from './part-file.ts'

/** A group that is stored raw, in records that are not full where the disk has holes. */
const GROUP_MAX_BYTES: number = 17 * RECORD_MAX_BYTES
/** A part holds at least one whole group. */
export const MIN_PART_BYTES: number = 20 * RECORD_MAX_BYTES

export interface SeedExportRequest {
  readonly vmId: VmId
  readonly fabricVmId: FabricVmId
  /** As this host sees it. */
  readonly folder: string
  readonly partBytes: number
  readonly seedKey: Uint8Array
}

export interface SeedExport {
  readonly files: number
  readonly blocks: number
  readonly bytes: number
  readonly capturedAtMs: number
}

export interface SeedExportDeps {
  readonly hypervisor: HostHypervisor
  readonly vaultId: VaultId
  readonly serverId: ServerId
  readonly clock: Clock
  readonly log: Logger
  readonly crashPoint: CrashPoint
  /** Work done at a stretch before other calls of the thread get their turn. */
  readonly paceMs: number
}

/** Throws `disk-full`, `permission-denied`, `seed-foreign`, `seed-key-wrong`, and what opening a snapshot throws. */
export async function exportSeed(deps: SeedExportDeps, request: SeedExportRequest): Promise<SeedExport> {
  const partBytes = Math.max(request.partBytes, MIN_PART_BYTES)
  try {
    mkdirSync(request.folder, { recursive: true, mode: 0o750 })
    const earlier = earlierParts(deps, request)
    const { fabricVmId } = request
    // Without a number: no point is made of it, so no delta may ever stand on it.
    const snapshot = await deps.hypervisor.openSnapshot({ fabricVmId, hold: 'long' })
    try {
      const capturedAtMs = Math.round(snapshot.capturedAtMs)
      const writing = new SeedWriting(
        deps,
        { ...request, partBytes },
        { earlier, capturedAtMs, disks: snapshot.disks },
      )
      return await writing.run()
    } finally {
      snapshot.close()
    }
  } catch (error) {
    throw asFolderError(error, request.folder)
  }
}

/** Parts of an export of this VM that was interrupted, as far as their files are there. */
function earlierParts(
  { vaultId }: SeedExportDeps,
  { folder, vmId, seedKey }: SeedExportRequest,
): readonly SeedPart[] {
  const path = join(folder, SEED_MANIFEST)
  if (!statSync(path, { throwIfNoEntry: false })) return []
  const manifest = decodeSeedManifest(readFileSync(path, 'utf8'), seedKey)
  if (manifest.vmId !== vmId || manifest.vaultId !== vaultId)
    throw new HotsiteError('seed-foreign', `${folder} holds the seed of VM ${manifest.vmId}, not of ${vmId}`)
  return manifest.parts.filter(({ file, bytes }) => {
    const found = statSync(join(folder, file), { throwIfNoEntry: false })
    return found?.size === bytes
  })
}

class SeedWriting {
  readonly #deps: SeedExportDeps
  readonly #request: SeedExportRequest
  readonly #earlier: readonly SeedPart[]
  readonly #capturedAtMs: number
  readonly #disks: readonly SnapshotDisk[]
  readonly #pace: Pace
  readonly #parts: SeedPart[] = []

  constructor(
    deps: SeedExportDeps,
    request: SeedExportRequest,
    given: {
      readonly earlier: readonly SeedPart[]
      readonly capturedAtMs: number
      readonly disks: readonly SnapshotDisk[]
    },
  ) {
    this.#deps = deps
    this.#request = request
    this.#earlier = given.earlier
    this.#capturedAtMs = given.capturedAtMs
    this.#disks = given.disks
    this.#pace = new Pace(deps.clock, deps.paceMs)
  }

  async run(): Promise<SeedExport> {
    for (const [ordinal, disk] of this.#disks.entries()) await this.#writeDisk(ordinal, disk)
    this.#removeOthers()
    this.#list(true)
    const sum = (of: 'blocks' | 'bytes') => this.#parts.reduce((total, part) => total + part[of], 0)
    const written = { files: this.#parts.length, blocks: sum('blocks'), bytes: sum('bytes') }
    this.#deps.log.info('seed exported', {
      vmId: this.#request.vmId,
      folder: this.#request.folder,
      ...written,
    })
    return { ...written, capturedAtMs: this.#capturedAtMs }
  }

  async #writeDisk(ordinal: number, disk: SnapshotDisk): Promise<void> {
    const reader = new GroupReader(disk)
    const groupCount = groupCountOf(disk.sizeBytes)
    const earlier = this.#earlier.filter(
      ({ diskId, endGroup }) => diskId === disk.diskId && endGroup <= groupCount,
    )
    for (let group = 0; group < groupCount; ) {
      const known = earlier.find(({ firstGroup }) => firstGroup === group)
      if (known && (await this.#stillHolds(reader, known))) {
        this.#parts.push(known)
        group = known.endGroup
        continue
      }
      // Where the next known part begins a part ends, so that what follows can be kept.
      const next = earlier.map(({ firstGroup }) => firstGroup).filter((first) => first > group)
      group = await this.#writePart(reader, {
        ordinal,
        disk,
        group,
        limitGroup: Math.min(groupCount, ...next),
      })
    }
  }

  async #stillHolds(reader: GroupReader, part: SeedPart): Promise<boolean> {
    const digest = new LeavesDigest()
    for (let group = part.firstGroup; group < part.endGroup; group++) {
      digest.add(group, reader.leaves(group))
      await this.#pace.pauseIfDue()
    }
    return digest.hex() === part.leavesHex
  }

  /** Answers the group after the last one in the part. */
  async #writePart(
    reader: GroupReader,
    place: { ordinal: number; disk: SnapshotDisk; group: number; limitGroup: number },
  ): Promise<number> {
    const { vmId, folder, seedKey, partBytes } = this.#request
    const { ordinal, disk, group: firstGroup, limitGroup } = place
    const { diskId, sizeBytes } = disk
    const content = { vaultId: this.#deps.vaultId, vmId, diskId, sizeBytes, firstGroup }
    using part = new PartFile(folder, this.#freeName(ordinal, firstGroup), { seedKey, content })
    const digest = new LeavesDigest()
    let group = firstGroup
    while (group < limitGroup && (group === firstGroup || part.bytes + GROUP_MAX_BYTES <= partBytes)) {
      const { leaves, batches } = reader.fresh(group, { firstBatch: 0, compress: true })
      for (const batch of batches) part.add(batch)
      digest.add(group, leaves)
      group += 1
      await this.#pace.pauseIfDue()
    }
    this.#deps.crashPoint('seed.part-written')
    part.finish(group)
    this.#parts.push({
      file: part.file,
      bytes: part.bytes,
      diskId,
      firstGroup,
      endGroup: group,
      blocks: part.blocks,
      leavesHex: digest.hex(),
    })
    this.#list(false)
    this.#deps.crashPoint('seed.part-listed')
    return group
  }

  /** A listed part is never overwritten: until the list names its successor it is the one that counts. */
  #freeName(ordinal: number, firstGroup: number): string {
    const taken = new Set([...this.#earlier, ...this.#parts].map(({ file }) => file))
    for (let writing = 1; ; writing++) {
      const name = `disk${ordinal}-${String(firstGroup).padStart(8, '0')}-${writing}.seed`
      if (!taken.has(name)) return name
    }
  }

  /** Parts kept in the list until they are replaced: an export that is interrupted again loses none. */
  #list(complete: boolean): void {
    const { vmId, folder, seedKey } = this.#request
    const isReplaced = (old: SeedPart) =>
      this.#parts.some(
        (part) =>
          part.diskId === old.diskId && part.firstGroup < old.endGroup && old.firstGroup < part.endGroup,
      )
    const waiting = complete ? [] : this.#earlier.filter((old) => !isReplaced(old))
    const manifest: SeedManifest = {
      format: 'hotsite-seed',
      version: SEED_VERSION,
      vaultId: this.#deps.vaultId,
      vmId,
      sourceServerId: this.#deps.serverId,
      capturedAtMs: this.#capturedAtMs,
      complete,
      disks: this.#disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
      parts: [...this.#parts, ...waiting],
    }
    writeFileDurably(join(folder, SEED_MANIFEST), encodeSeedManifest(manifest, seedKey), 0o640)
  }

  #removeOthers(): void {
    const { folder } = this.#request
    const listed = new Set(this.#parts.map(({ file }) => file))
    for (const name of readdirSync(folder)) {
      if (/^disk\d+-\d+-\d+\.seed(\.tmp)?$/.test(name) && !listed.has(name))
        rmSync(join(folder, name), { force: true })
    }
  }
}

function asFolderError(error: unknown, folder: string): unknown {
  if (error instanceof HotsiteError || !(error instanceof Error) || !('code' in error)) return error
  switch (error.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new HotsiteError(
        'disk-full',
        `the disk that holds ${folder} is full; finished parts stay there`,
        {
          cause: error,
        },
      )
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
    case 'ENOTDIR':
    case 'EEXIST':
      return new HotsiteError('permission-denied', `${folder} cannot be written`, { cause: error })
    default:
      return error
  }
}
