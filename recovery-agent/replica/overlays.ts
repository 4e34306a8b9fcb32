/** Writable disks on a recovery point (DESIGN §5, "Failover"). The replica itself is never altered. */
import { join, relative } from 'node:path'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { LayerWriter } from '#shared/formats/qcow2/layer-writer.ts'
import type { OverlayId, VmId } from '#shared/ids.ts'
import type { OverlayDisk, PointRef } from '#shared/messages/commands.ts'
import type { OverlayRow } from './catalog/catalog.ts'
import { type ChainPoint, findPoint, isSamePoint } from './catalog/chain.ts'
import type { ReplicaContext } from './context.ts'
import { refuseDamaged } from './proof/damaged-points.ts'
import { provePoint } from './proof/prove-point.ts'

export interface OverlayRequest {
  readonly vmId: VmId
  readonly overlayId: OverlayId
  readonly point: PointRef | null
  readonly purpose: 'test' | 'failover'
  readonly format: 'raw' | 'qcow2'
  /** false: only what is known to be damaged is refused. A raw overlay is proved while it is written in any case. */
  readonly verify?: boolean
}

/**
 * The lease is recorded before the first byte: the point cannot be pruned from under the copy (I10). Then every block
 * that the point consists of is read and proved; a point that is not what was signed is refused (`point-damaged`).
 */
export function* createOverlay(
  context: ReplicaContext,
  request: OverlayRequest,
): Generator<void, OverlayRow> {
  const { catalog, crash, files, paths, readers } = context
  const { vmId, overlayId } = request
  catalog.lookAgain(vmId)
  const overlay = () => catalog.overlays(vmId).find((one) => one.overlayId === overlayId)
  const existing = overlay()
  if (existing && existing.state !== 'creating') return sameOverlayOrThrow(existing, request)

  const point = choosePoint(context, { ...request, point: request.point ?? existing?.point ?? null })
  refuseDamaged(context, vmId, point)
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
  using _reading = readers.hold(vmId)
  files.ensureFolder(folder)
  try {
    for (const disk of row.disks) {
      yield* writeDisk(context, { row, point, disk, verify: request.verify ?? true })
      crash('replica.overlay-disk-written')
    }
  } catch (error) {
    // Nothing will ever be made of it, so it must not hold the point.
    if (error instanceof HotsiteError && error.code === 'point-damaged') removeOverlay(context, row)
    throw error
  }
  for (const path of [folder, join(paths.overlays, vmId), paths.overlays]) files.syncFolder(path)
  crash('replica.overlay-files-durable')
  if (overlay()?.state !== 'creating')
    throw new HotsiteError('overlay-unknown', `overlay ${overlayId} of ${vmId} was removed meanwhile`, {
      details: { vmId, overlayId },
    })
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
  readonly verify: boolean
}

function* writeDisk(context: ReplicaContext, write: DiskWrite): Generator<void, void> {
  const { files, paths } = context
  const { row, point, disk, verify } = write
  const layerPath = paths.layer(row.vmId, disk.diskId, point)
  const temporary = `${disk.path}.tmp`
  const file = files.open(temporary, 'create')
  try {
    if (disk.format === 'raw') {
      file.truncate(disk.sizeBytes)
      yield* proveOrRefuse(context, write, (blockIndex, bytes) => {
        const offsetBytes = blockIndex * CLUSTER_BYTES
        file.write([bytes.subarray(0, Math.min(bytes.length, disk.sizeBytes - offsetBytes))], offsetBytes)
      })
      file.sync()
    } else {
      if (verify) yield* proveOrRefuse(context, write)
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

function* proveOrRefuse(
  context: ReplicaContext,
  { row, point, disk }: DiskWrite,
  onData?: (blockIndex: number, bytes: Buffer) => void,
): Generator<void, void> {
  const { vmId } = row
  const { diskId } = disk
  const isProved = yield* provePoint(context, { vmId, diskId, point, ...(onData ? { onData } : {}) })
  if (isProved) return
  refuseDamaged(context, vmId, point)
  throw new HotsiteError('layer-damaged', `disk ${diskId} of ${vmId} could not be proved`, {
    details: { vmId, diskId },
  })
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
