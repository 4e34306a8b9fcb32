import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DataMap } from '../data-map.ts'
import type { SnapshotDisk } from '../port.ts'
import { copyData, createCopies, reconcileCopy } from './disk-copy.ts'
import type { Hold } from './hold.ts'
import { closeDisks, measured, type OpenDisk, snapshotDisk } from './open-disks.ts'

export interface CopiedDisks {
  readonly capturedAtMs: number
  readonly freezeMs: number
  readonly disks: readonly SnapshotDisk[]
  readonly copies: readonly OpenDisk[]
}

/** While the VM runs, and put right while it stands still. A VM that is off by then is no exception. */
export async function copyDisks(request: {
  vmName: string
  sources: readonly OpenDisk[]
  dir: string
  dataMap: DataMap
  hold: () => Promise<Hold>
}): Promise<CopiedDisks> {
  const copies = createCopies(request.sources, request.dir)
  try {
    return await copyWhileRunning(request, copies)
  } catch (error) {
    closeDisks(copies)
    throw error
  }
}

type Request = Parameters<typeof copyDisks>[0]

async function copyAll({ sources, dataMap }: Request, copies: readonly OpenDisk[]): Promise<void> {
  for (const [index, source] of sources.entries()) {
    const copy = copies[index]
    if (copy) await copyData(source, copy, dataMap)
  }
}

async function copyWhileRunning(request: Request, copies: readonly OpenDisk[]): Promise<CopiedDisks> {
  const { vmName, sources, dataMap } = request
  await copyAll(request, copies)
  const hold = await request.hold()
  const tooSlow = () =>
    new HotsiteError(
      'snapshot-too-slow',
      `the disks of VM ${vmName} could not be copied while it stood still; it was let go after ${Math.round(hold.freezeMs())} ms`,
    )
  let maps: ReturnType<typeof reconcileCopy>[]
  try {
    maps = sources.map((source, index) => {
      const copy = copies[index]
      return copy
        ? reconcileCopy(source, copy, dataMap, () => {
            if (hold.remainingMs() === 0) throw tooSlow()
          })
        : []
    })
  } catch (error) {
    hold.release()
    throw error
  }
  if (!hold.release().intact) throw tooSlow()
  const sized = measured(copies)
  return {
    capturedAtMs: hold.heldAtMs,
    freezeMs: hold.freezeMs(),
    disks: sized.map((copy, index) => snapshotDisk(copy, maps[index] ?? [])),
    copies: sized,
  }
}
