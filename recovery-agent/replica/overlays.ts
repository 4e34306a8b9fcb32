/** Writable disks on a recovery point (DESIGN §5, "Failover"). The replica itself is never altered. */
import { join, relative } from 'node:path'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { dataRuns } from '#shared/formats/qcow2/layer-reader.ts'
import { LayerWriter } from '#shared/formats/qcow2/layer-writer.ts'
import type { OverlayId, VmId } from '#shared/ids.ts'
import type { OverlayDisk, PointRef } from '#shared/messages/commands.ts'
import type { OverlayRow } from './catalog.ts'
import { type ChainPoint, findPoint, isSamePoint } from './chain.ts'
import type { ReplicaContext } from './context.ts'
import { withChain } from './layer-chain.ts'

export interface OverlayRequest {
  readonly vmId: VmId
  readonly overlayId: OverlayId
  readonly point: PointRef | null
  readonly purpose: 'test' | 'failover'
  readonly format: 'raw' | 'qcow2'
}

/** The lease is recorded before the first byte: the point cannot be pruned from under the copy (I10). */
export function createOverlay(context: ReplicaContext, request: OverlayRequest): OverlayRow {
  const { catalog, crash, files, paths } = context
  const { vmId, overlayId } = request
  const existing = catalog.overlays(vmId).find((overlay) => overlay.overlayId === overlayId)
  if (existing && existing.state !== 'creating') return sameOverlayOrThrow(existing, request)

  const point = choosePoint(context, { ...request, point: request.point ?? existing?.point ?? null })
  const folder = paths.overlayFolder(vmId, overlayId)
  const row: OverlayRow = {
    vmId,
    overlayId,
    state: 'creating',
    point: { epoch: point.epoch, seq: point.seq },
    capturedAtMs: point.capturedAtMs,
    purpose: request.purpose,
    format: request.format,
    disks: point.disks.map(({ diskId, sizeBytes }) => ({
      diskId,
      path: join(folder, `${diskId}.${request.format}`),
      format: request.format,
      sizeBytes,
    })),
  }
  catalog.putOverlay(row)
  crash('replica.overlay-leased')
  files.ensureFolder(folder)
  for (const disk of row.disks) {
    writeDisk(context, { row, point, disk })
    crash('replica.overlay-disk-written')
  }
  for (const path of [folder, join(paths.overlays, vmId), paths.overlays]) files.syncFolder(path)
  crash('replica.overlay-files-durable')
  const ready: OverlayRow = { ...row, state: 'ready' }
  catalog.putOverlay(ready)
  crash('replica.overlay-ready')
  return ready
}

function sameOverlayOrThrow(existing: OverlayRow, request: OverlayRequest): OverlayRow {
  const { point } = request
  const isSame = !point || isSamePoint(point, existing.point)
  if (isSame && existing.format === request.format) return existing
  throw new HotsiteError(
    'overlay-exists',
    `overlay ${request.overlayId} stands on point ${existing.point.epoch}/${existing.point.seq} as ${existing.format}`,
    { details: { overlayId: request.overlayId, point: existing.point } },
  )
}

function choosePoint({ catalog }: ReplicaContext, { vmId, point }: OverlayRequest): ChainPoint {
  const chain = catalog.chain(vmId)
  const chosen = point ? findPoint(chain, point) : chain.findLast(({ state }) => state === 'point')
  if (chosen) return chosen
  throw new HotsiteError(
    'point-unknown',
    point ? `${vmId} has no recovery point ${point.epoch}/${point.seq}` : `${vmId} has no recovery point yet`,
    { details: { vmId, point } },
  )
}

interface DiskWrite {
  readonly row: OverlayRow
  readonly point: ChainPoint
  readonly disk: OverlayDisk
}

function writeDisk(context: ReplicaContext, { row, point, disk }: DiskWrite): void {
  const { files, paths } = context
  const layerPath = paths.layer(row.vmId, disk.diskId, point)
  const temporary = `${disk.path}.tmp`
  const file = files.open(temporary, 'create')
  try {
    if (disk.format === 'raw') {
      withChain(files, layerPath, (layers) => {
        file.truncate(disk.sizeBytes)
        const buffer = Buffer.allocUnsafe(16 * CLUSTER_BYTES)
        for (const run of dataRuns(layers)) {
          const offsetBytes = run.blockIndex * CLUSTER_BYTES
          const bytes = buffer.subarray(
            0,
            Math.min(run.blockCount * CLUSTER_BYTES, disk.sizeBytes - offsetBytes),
          )
          run.layer.file.read(bytes, run.cluster * CLUSTER_BYTES)
          file.write([bytes], offsetBytes)
        }
      })
      file.sync()
    } else {
      const backingName = relative(paths.overlayFolder(row.vmId, row.overlayId), layerPath)
      new LayerWriter(file).seal({ sizeBytes: disk.sizeBytes, backingName })
    }
  } catch (error) {
    files.remove(temporary)
    throw error
  } finally {
    file.close()
  }
  files.rename(temporary, disk.path)
}

/** Those that lease `point` (I10). A committed raw overlay is a disk of its own and needs none. */
export function overlaysOn(overlays: readonly OverlayRow[], point: PointRef): readonly OverlayRow[] {
  return overlays.filter(
    (overlay) =>
      isSamePoint(overlay.point, point) && !(overlay.state === 'committed' && overlay.format === 'raw'),
  )
}

/** Files first, the lease last. Repeatable. */
export function removeOverlay({ catalog, crash, files, paths }: ReplicaContext, row: OverlayRow): void {
  files.remove(paths.overlayFolder(row.vmId, row.overlayId))
  files.syncFolder(join(paths.overlays, row.vmId))
  crash('replica.overlay-files-removed')
  catalog.deleteOverlay(row.vmId, row.overlayId)
}
