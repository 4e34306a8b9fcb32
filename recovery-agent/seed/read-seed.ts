/** Reads a seed folder part by part; what is missing or damaged is told and left out, the rest is good. */
import { type FileHandle, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { PackedBatch } from '#shared/blocks/batch.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import {
  decodeSeedManifest,
  SEED_MANIFEST,
  type SeedManifest,
  type SeedPart,
} from '#shared/formats/seed/manifest.ts'
import { readPart } from '#shared/formats/seed/part.ts'
import type { DiskId, VaultId, VmId } from '#shared/ids.ts'

/** One reading ahead of the decoder: several records. */
const WINDOW_BYTES = 4 << 20

export interface SeedBatch {
  readonly diskId: DiskId
  readonly batch: PackedBatch
}

export interface OpenedSeed {
  readonly manifest: SeedManifest
  /** Sentences for a person, complete once `batches` has ended. */
  readonly problems: readonly string[]
  /** Ascending within a disk where parts are. */
  batches(): AsyncGenerator<SeedBatch, void>
}

/** Throws `seed-missing`, `seed-damaged`, `seed-key-wrong`, `seed-foreign`, `permission-denied`. */
export async function openSeed(request: {
  readonly folder: string
  readonly vaultId: VaultId
  readonly vmId: VmId
  readonly seedKey: Uint8Array
}): Promise<OpenedSeed> {
  const { folder, vaultId, vmId, seedKey } = request
  const manifest = decodeSeedManifest(await readManifest(folder), seedKey)
  if (manifest.vaultId !== vaultId || manifest.vmId !== vmId)
    throw new HotsiteError('seed-foreign', `${folder} holds the seed of VM ${manifest.vmId}, not of ${vmId}`)
  const problems: string[] = manifest.complete
    ? []
    : ['the export had not ended when the seed was carried away']
  return {
    manifest,
    problems,
    async *batches() {
      const byPlace = manifest.parts.toSorted((a, b) => a.firstGroup - b.firstGroup)
      for (const { diskId } of manifest.disks) {
        for (const part of byPlace.filter((each) => each.diskId === diskId)) {
          try {
            yield* partBatches(join(folder, part.file), { part, vaultId, vmId, seedKey })
          } catch (error) {
            if (!isProblemOfThePart(error)) throw error
            problems.push(`${part.file}: ${error.message}`)
          }
        }
      }
    },
  }
}

async function readManifest(folder: string): Promise<string> {
  try {
    return await readFile(join(folder, SEED_MANIFEST), 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR')
      throw new HotsiteError('seed-missing', `there is no ${SEED_MANIFEST} in ${folder} on this host`, {
        cause: error,
      })
    throw error
  }
}

async function* partBatches(
  path: string,
  expected: { part: SeedPart; vaultId: VaultId; vmId: VmId; seedKey: Uint8Array },
): AsyncGenerator<SeedBatch, void> {
  const { part, vaultId, vmId, seedKey } = expected
  await using file = await openPart(path)
  for await (const record of readPart(seedKey, windowReader(file))) {
    switch (record.kind) {
      case 'content': {
        const { content } = record
        const fits = content.vaultId === vaultId && content.vmId === vmId && content.diskId === part.diskId
        if (!fits || content.firstGroup !== part.firstGroup)
          throw new HotsiteError('seed-damaged', 'the file is another part of this seed, or of another one')
        break
      }
      case 'batch':
        yield { diskId: part.diskId, batch: record.batch }
        break
      case 'end':
        if (record.end.endGroup !== part.endGroup || record.end.blocks !== part.blocks)
          throw new HotsiteError('seed-damaged', 'the file is an older writing of this part')
    }
  }
}

async function openPart(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    throw new HotsiteError('seed-damaged', 'the file is missing', { cause: error })
  }
}

/** Reads in large pieces; each answer is memory of its own while it is looked at. */
function windowReader(file: FileHandle): (bytes: number) => Promise<Buffer | undefined> {
  let window: Buffer = Buffer.alloc(0)
  return async (bytes) => {
    if (window.length < bytes) {
      const more = Buffer.allocUnsafe(Math.max(WINDOW_BYTES, bytes))
      window.copy(more)
      let filled = window.length
      for (;;) {
        const { bytesRead } = await file.read(more, filled, more.length - filled)
        filled += bytesRead
        if (bytesRead === 0 || filled === more.length) break
      }
      window = more.subarray(0, filled)
    }
    if (window.length < bytes) return undefined
    const taken = window.subarray(0, bytes)
    window = window.subarray(bytes)
    return taken
  }
}

function isProblemOfThePart(error: unknown): error is Error {
  // EIO: the medium could not be read there; another part may be fine.
  return (error instanceof HotsiteError && error.code === 'seed-damaged') || codeOf(error) === 'EIO'
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
