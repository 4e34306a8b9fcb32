/** Requests of a source as they come off the wire, checked before anything is done with them. */
import { z } from 'zod'
import type { DeltaHeader } from '#recovery-agent/replica/port.ts'
import { blockCountOf } from '#shared/blocks/block.ts'
import type { Bodies } from '#shared/channel/message.ts'
import { describeIssues } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId, vmId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'

/** 64 TiB, as the largest VHDX: nothing a host holds is larger, and block numbers stay below 2^30. */
const DISK_MAX_BYTES = 64 * 2 ** 40

const epoch = z.int().positive()
const seq = z.int().positive()

/** More than a source can owe: each has a union of deltas in its buffer. */
const owedTops = z.array(seq).max(limits.backfillsPerVm)

const openRequest = z.object({ vmId, epoch, ticket: z.instanceof(Uint8Array), owedTops })
export type OpenRequest = z.infer<typeof openRequest>

const deltaHeader = z
  .object({
    vmId,
    epoch,
    seq,
    baseSeq: z.int().nonnegative(),
    kind: z.enum(['delta', 'sync', 'union', 'backfill']),
    capturedAtMs: z.number().nonnegative(),
    consistency: z.enum(['crash', 'application']),
    disks: z
      .array(z.object({ diskId, sizeBytes: z.int().positive().max(DISK_MAX_BYTES) }))
      .min(1)
      .max(limits.disksPerVm),
  })
  .refine(({ seq, baseSeq }) => baseSeq < seq, 'the base must come before the point')
  .refine(({ disks }) => new Set(disks.map((disk) => disk.diskId)).size === disks.length, 'a disk twice')

const deltaEnd = z.object({
  vmId,
  epoch,
  seq,
  manifest: z.instanceof(Uint8Array),
  batches: z.array(z.object({ diskId, nextBatch: z.int().nonnegative() })).max(limits.disksPerVm),
})
export type DeltaEndRequest = z.infer<typeof deltaEnd>

const treeQuery = z.object({
  vmId,
  epoch,
  seq,
  diskId,
  level: z.union([z.literal(0), z.literal(1)]),
  first: z.int().nonnegative(),
  count: z.int().positive().max(limits.treeQueryMaxNodes),
  requestId: z.int().nonnegative(),
})
export type TreeQueryRequest = z.infer<typeof treeQuery>

export function parseOpenReplica(body: Bodies['openReplica']): OpenRequest {
  return parse('openReplica', openRequest, body)
}

/** What a source of this epoch still owes. */
export function parseBackfills(body: Bodies['backfills'], atEpoch: number): readonly number[] {
  return parse('backfills', z.object({ epoch: z.literal(atEpoch), owedTops }), body).owedTops
}

export function parseDeltaBegin(body: Bodies['deltaBegin']): DeltaHeader {
  return parse('deltaBegin', deltaHeader, body)
}

export function parseDeltaEnd(body: Bodies['deltaEnd']): DeltaEndRequest {
  return parse('deltaEnd', deltaEnd, body)
}

/** The nodes asked for must exist on the disk. */
export function parseTreeQuery(body: Bodies['treeQuery'], header: DeltaHeader): TreeQueryRequest {
  const query = parse('treeQuery', treeQuery, body)
  const disk = header.disks.find((one) => one.diskId === query.diskId)
  if (!disk) throw malformed('treeQuery', `disk ${query.diskId} is not part of the delta`)
  const leaves = blockCountOf(disk.sizeBytes)
  const nodes = query.level === 0 ? leaves : Math.ceil(leaves / 256)
  if (query.first + query.count > nodes) {
    throw malformed('treeQuery', `nodes ${query.first}+${query.count} of ${nodes}`)
  }
  return query
}

function parse<Schema extends z.ZodType>(name: string, schema: Schema, body: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(body)
  if (!parsed.success) throw malformed(name, describeIssues(parsed.error))
  return parsed.data
}

export function malformed(name: string, why: string): HotsiteError {
  return new HotsiteError('stream-malformed', `${name}: ${why}`)
}
