/** Judges the recovery points of a VM by what its guest's disks were. */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import type { PointReport } from '#shared/messages/reports.ts'
import { type DiskImage, orderViolation } from './guest.ts'
import { ChainReader } from './layer-file.ts'
import { pointsOf } from './listed-points.ts'
import { type ProtectedVm, pointName } from './protected-vm.ts'
import type { Truth } from './truth.ts'

/** Clusters that were compared with a block of a guest and were equal; neither ever changes. */
const equalPairs = new WeakMap<Buffer, Buffer>()
const zeros = Buffer.alloc(BLOCK_BYTES)

/** Every point that is listed, or only the newest, against the guest; and that no point is missing. Nothing while the target is off. */
export function judgePoints(truth: Truth, vm: ProtectedVm, which: 'all' | 'newest'): void {
  if (!vm.target.parts) return
  const points = pointsOf(vm).toSorted((a, b) => a.seq - b.seq)
  judgeListed(truth, vm, points)
  for (const point of which === 'all' ? points : points.slice(-1)) judgePoint(truth, vm, point)
}

function judgeListed(truth: Truth, vm: ProtectedVm, points: readonly PointReport[]): void {
  const names = new Set(points.map(pointName))
  if (names.size !== points.length) truth.violate('I4', `a point of ${vm.vmId} is listed twice`)
  for (const name of vm.pinned)
    if (!names.has(name)) truth.violate('I10', `pinned point ${name} of ${vm.vmId} is gone`)
  for (const [id, point] of vm.overlays)
    if (!names.has(pointName(point)))
      truth.violate('I10', `point ${pointName(point)} of ${vm.vmId} is gone although ${id} stands on it`)
  for (const name of [...vm.listed.keys()]) {
    if (names.has(name)) continue
    vm.listed.delete(name)
    if (!vm.dropped.has(name)) truth.violate('I10', `point ${name} of ${vm.vmId} was lost`)
  }
  for (const point of points) {
    const name = pointName(point)
    if (vm.dropped.has(name) && !vm.listed.has(name))
      truth.violate('I4', `point ${name} of ${vm.vmId} came back`)
    vm.listed.set(name, point)
    const isLate = vm.fencedPoints && point.epoch < vm.epoch && !vm.fencedPoints.has(name)
    if (isLate) truth.violate('I5', `point ${name} of ${vm.vmId} came after the fence of epoch ${vm.epoch}`)
  }
  const newest = points.findLast(({ epoch }) => epoch === vm.epoch)
  if (vm.ackedSeq > 0 && (newest?.seq ?? 0) < vm.ackedSeq)
    truth.violate(
      'I2',
      `${vm.vmId}: the source let go of everything up to ${vm.ackedSeq}, the target holds ${newest?.seq ?? 'nothing'}`,
    )
}

function judgePoint(truth: Truth, vm: ProtectedVm, point: PointReport): void {
  const name = `point ${pointName(point)} of ${vm.vmId}`
  const signed = truth.signed(vm.vmId, point)
  if (signed.length === 0) {
    truth.violate('I3', `${name} was never captured`)
    return
  }
  // A turned bit is found by a proof; from then on a point that is not said to be damaged is sound.
  if (vm.rot === 'unproved' || point.damaged) return
  truth.pointsVerified++
  const problems = signed.map(({ instant }) => differenceOf(vm, point, instant.disks))
  if (!problems.includes(undefined)) truth.violate('I3', `${name}: ${problems[0]}`)
}

/** Undefined: the point is this state of the guest. */
function differenceOf(vm: ProtectedVm, point: PointReport, disks: readonly DiskImage[]): string | undefined {
  const named = new Set(point.roots.map(({ diskId }) => diskId))
  if (named.size !== disks.length) return `it has ${named.size} disks, the guest had ${disks.length}`
  const found: DiskImage[] = []
  for (const disk of disks) {
    if (!named.has(disk.diskId)) return `it has no disk ${disk.diskId}`
    const read = readDisk(vm, point, disk)
    if (typeof read === 'string') return read
    found.push(read)
  }
  return orderViolation(found)
}

function readDisk(vm: ProtectedVm, point: PointReport, disk: DiskImage): DiskImage | string {
  const { diskId, sizeBytes } = disk
  const store = vm.target.parts?.store
  if (!store) return 'the target went away'
  try {
    const reader = new ChainReader(vm.target.disk, store.layerPath(vm.vmId, point, diskId))
    if (reader.sizeBytes !== sizeBytes)
      return `${diskId} has ${reader.sizeBytes} bytes instead of ${sizeBytes}`
    const blocks = new Map<number, Buffer>()
    for (let index = 0; index < blockCountOf(sizeBytes); index++) {
      const read = reader.block(index)
      if (read && index === 0) blocks.set(0, read)
      if (!isEqual(read, disk.blocks.get(index))) return `block ${index} of ${diskId} differs`
    }
    return { diskId, sizeBytes, blocks }
  } catch (error) {
    return `${diskId} cannot be read: ${error instanceof Error ? error.message : error}`
  }
}

function isEqual(read: Buffer | undefined, truth: Buffer | undefined): boolean {
  if (read === truth) return true
  if (!read || !truth) return (read ?? truth)?.equals(zeros) ?? true
  if (equalPairs.get(read) === truth) return true
  if (!read.equals(truth)) return false
  equalPairs.set(read, truth)
  return true
}
