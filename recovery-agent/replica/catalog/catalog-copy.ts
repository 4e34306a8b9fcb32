/**
 * What replica.db knows of one replica, once more, beside its layers: `replicas/<vm>/.catalog`. If the database is lost
 * or damaged, the replica is not: its row, its chain with the signed manifests, and its overlays come from here
 * (rebuild-catalog.ts); hash trees and leaves come from the layers.
 *
 *   hotsite-catalog 2 <crc32 of the rest, 8 hex digits>
 *   { … }                                                    JSON, UTF-8
 *
 * Written whole, and renamed into place, after every change and before whoever asked for it is answered: an epoch that
 * was raised stays raised (I5), and an overlay keeps what it stands on (I10). A merge is in it before its first byte.
 */
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId, overlayId, serverId, type VmId, vmId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import type { ReplicaContext } from '../context.ts'
import { layerName } from '../names.ts'
import type { Backfill } from './backfills.ts'
import type { OverlayRow, ReplicaRow } from './catalog.ts'
import type { ChainPoint } from './chain.ts'

const VERSION = 2
/** Version 1 knew no backfills. */
const READABLE = [1, VERSION]
const MAGIC = 'hotsite-catalog'
/** A chain of 192 points with 64 disks each is 3 MB; what is larger was not written by this program. */
const MAX_COPY_BYTES = 64 << 20

const hex = z.string().regex(/^[0-9a-f]*$/)
const point = z.strictObject({ epoch: z.int().positive(), seq: z.int().nonnegative() })

const copyShape = z.strictObject({
  replica: z.strictObject({
    vmId,
    state: z.enum(['active', 'committed', 'removing']),
    epoch: z.int().positive(),
    sourceServerId: serverId,
    policy: replicationPolicy,
    disks: z.array(z.strictObject({ diskId, sizeBytes: z.int() })),
  }),
  chain: z.array(
    z.strictObject({
      epoch: z.int().positive(),
      seq: z.int().nonnegative(),
      state: z.enum(['base', 'point', 'merging']),
      capturedAtMs: z.number(),
      completedAtMs: z.number(),
      consistency: z.enum(['crash', 'application']),
      pinned: z.boolean(),
      suspect: z.string().nullable(),
      manifestBase64: z.base64().nullable(),
      disks: z.array(
        z.strictObject({
          diskId,
          layer: z.string(),
          sizeBytes: z.int(),
          rootHex: hex,
          changedBytes: z.int(),
          storedBytes: z.int(),
        }),
      ),
    }),
  ),
  overlays: z.array(
    z.strictObject({
      vmId,
      overlayId,
      state: z.enum(['creating', 'ready', 'committed']),
      point,
      capturedAtMs: z.number(),
      purpose: z.enum(['test', 'failover']),
      format: z.enum(['raw', 'qcow2']),
      disks: z.array(
        z.strictObject({ diskId, path: z.string(), format: z.enum(['raw', 'qcow2']), sizeBytes: z.int() }),
      ),
    }),
  ),
  backfills: z.array(z.strictObject({ epoch: z.int().positive(), topSeq: z.int().positive() })).default([]),
})

export interface CatalogCopy {
  readonly replica: ReplicaRow
  readonly chain: readonly {
    readonly member: ChainPoint
    readonly manifest: Buffer | null
    readonly suspect: string | null
  }[]
  readonly overlays: readonly OverlayRow[]
  readonly backfills: readonly Pick<Backfill, 'epoch' | 'topSeq'>[]
}

/**
 * Of every VM that changed since it was last called. Throws what kept one of them from being written, after the others;
 * that one is tried again. Rows that are damaged are never copied, and are nobody else's trouble.
 */
export function saveChangedCopies(context: ReplicaContext): void {
  const { catalog, log } = context
  const failures: unknown[] = []
  for (const id of catalog.takeChanged()) {
    try {
      saveCatalogCopy(context, id)
    } catch (error) {
      if (error instanceof HotsiteError && error.code === 'catalog-damaged') {
        log.error('replica.copy-not-written', { vmId: id, error })
        continue
      }
      catalog.markChanged(id)
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
}

/** On stable storage when it returns; nothing of a replica that is gone. */
export function saveCatalogCopy({ catalog, files, paths }: ReplicaContext, id: VmId): void {
  // What turned since it was read must not go into the copy.
  catalog.lookAgain(id)
  const replica = catalog.replica(id)
  if (!replica) return
  const suspicions = catalog.suspicions.of(id)
  const manifests = catalog.manifests(id)
  const body = Buffer.from(
    JSON.stringify({
      replica,
      chain: catalog.chain(id).map(({ disks, ...member }) => ({
        ...member,
        suspect: suspicions.get(member.seq) ?? null,
        manifestBase64: manifests.get(member.seq)?.toString('base64') ?? null,
        disks: disks.map(({ root, ...disk }) => ({
          ...disk,
          layer: layerName(member),
          rootHex: root.toString('hex'),
        })),
      })),
      overlays: catalog.overlays(id),
      backfills: catalog.backfills.list(id).map(({ epoch, topSeq }) => ({ epoch, topSeq })),
    }),
  )
  const folder = paths.vmFolder(id)
  const path = paths.catalogCopy(id)
  files.ensureFolder(folder)
  const file = files.open(`${path}.tmp`, 'create')
  try {
    file.write([Buffer.from(headerOf(body, VERSION)), body], 0)
    file.sync()
  } finally {
    file.close()
  }
  files.rename(`${path}.tmp`, path)
  files.syncFolder(folder)
  files.syncFolder(paths.replicas)
}

/** undefined: there is none. Throws `catalog-damaged`. */
export function readCatalogCopy({ files, paths }: ReplicaContext, id: VmId): CatalogCopy | undefined {
  const path = paths.catalogCopy(id)
  if (!files.exists(path)) return undefined
  const bytes = wholeFile(files, path)
  const end = bytes.indexOf('\n') + 1
  const body = bytes.subarray(end)
  const header = bytes.subarray(0, end).toString()
  if (!READABLE.some((version) => header === headerOf(body, version)))
    throw damaged(path, 'its first line does not fit the rest')
  try {
    return copyOf(copyShape.parse(JSON.parse(body.toString())))
  } catch (error) {
    throw damaged(path, `it is not in the form of version ${VERSION}`, error)
  }
}

function headerOf(body: Buffer, version: number): string {
  return `${MAGIC} ${version} ${crc32(body).toString(16).padStart(8, '0')}\n`
}

function wholeFile(files: ReplicaContext['files'], path: string): Buffer {
  const file = files.open(path, 'read')
  try {
    const bytes = Buffer.alloc(Math.min(file.sizeBytes(), MAX_COPY_BYTES))
    file.read(bytes, 0)
    return bytes
  } finally {
    file.close()
  }
}

function copyOf({ replica, chain, overlays, backfills }: z.infer<typeof copyShape>): CatalogCopy {
  return {
    replica,
    chain: chain.map(({ suspect, manifestBase64, disks, ...member }) => ({
      member: {
        ...member,
        disks: disks.map(({ layer: _layer, rootHex, ...disk }) => ({
          ...disk,
          root: Buffer.from(rootHex, 'hex'),
        })),
      },
      manifest: manifestBase64 === null ? null : Buffer.from(manifestBase64, 'base64'),
      suspect,
    })),
    overlays,
    backfills,
  }
}

function damaged(path: string, what: string, cause?: unknown): HotsiteError {
  return new HotsiteError('catalog-damaged', `${path}: ${what}`, { details: { path }, cause })
}
