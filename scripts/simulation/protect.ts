/** Orders of the coordinator that make, renew and turn around the protection of a VM. */

import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { fabricVmId, type OverlayId, overlayId, vmId } from '#shared/ids.ts'
import type { PointRef } from '#shared/messages/commands.ts'
import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import { seededRng } from '#shared/rng.ts'
import { type DiskImage, Guest, type Load } from './guest.ts'
import { pointsOf } from './listed-points.ts'
import { judgePoints } from './oracle.ts'
import { expectCause, type ProtectedVm, pointName } from './protected-vm.ts'
import { CLUSTER_BYTES, wholeCluster } from './sim-disk.ts'
import type { World } from './world.ts'

export interface VmPlan {
  readonly name: string
  readonly diskBytes: readonly number[]
  readonly load: Load
  readonly isTracked: boolean
  readonly policy: ReplicationPolicy
}

export function defineVm(world: World, plan: VmPlan, seed: number): ProtectedVm {
  const id = vmId.parse(plan.name)
  const fabricId = fabricVmId.parse(`fabric-${plan.name}`)
  const guest = new Guest({ vmId: id, fabricVmId: fabricId, rng: seededRng(seed) })
  for (const sizeBytes of plan.diskBytes) guest.addDisk(sizeBytes)
  guest.load = plan.load
  world.west.hypervisor.define(guest, plan.isTracked)
  const vm: ProtectedVm = {
    vmId: id,
    guest,
    fabricVmId: fabricId,
    epoch: 1,
    source: world.west,
    target: world.east,
    policy: plan.policy,
    isPaused: false,
    pinned: new Set(),
    overlays: new Map(),
    listed: new Map(),
    dropped: new Set(),
    expectedCauses: new Map(),
    ackedSeq: 0,
    takesBackfills: true,
    owed: [],
    rot: 'none',
    fencedPoints: undefined,
  }
  world.vms.push(vm)
  return vm
}

export async function protectVm(world: World, vm: ProtectedVm, cause: 'initial' | 'reversed'): Promise<void> {
  const { vmId: id, epoch, policy, source, target } = vm
  // Also when the order to the source comes before that to the target.
  expectCause(vm, cause)
  if (cause === 'initial') {
    const disks = vm.guest.disks.map(({ diskId, sizeBytes }, index) => ({
      diskId,
      name: diskId,
      sizeBytes,
      boot: index === 0,
    }))
    await world.order(target, 'replica.prepare', {
      vmId: id,
      epoch,
      disks,
      sourceServerId: source.serverId,
      policy,
    })
  }
  await startVm(world, vm, cause)
}

export async function startVm(world: World, vm: ProtectedVm, cause: 'initial' | 'reversed'): Promise<void> {
  await world.order(vm.source, 'replication.start', {
    vmId: vm.vmId,
    epoch: vm.epoch,
    fabricVmId: vm.fabricVmId,
    target: world.addressOf(vm.target),
    ticket: world.ticket(vm),
    policy: vm.policy,
    cause,
    notBeforeMs: null,
  })
}

/**
 * An unplanned failover to the other site, and protection turned around: fence the target, run the VM there from a
 * point, let the returning old source be refused, make it the target. Its disk is the base.
 */
export async function failOver(world: World, vm: ProtectedVm): Promise<boolean> {
  const { target, source, vmId: id } = vm
  const points = pointsOf(vm)
  if (points.length === 0 || vm.rot === 'unproved' || points.some(({ damaged }) => damaged)) return false
  const epoch = vm.epoch + 1
  world.note(`${id} fails over to ${target.name} at epoch ${epoch}`)
  // A disaster: the sites do not hear each other, and the old one goes on in ignorance.
  if (world.chance(0.6) && !world.link.isSilent) {
    world.link.setSilent(true)
    world.scheduler.after(30_000 + world.below(60_000), () => world.link.setSilent(false))
  } else vm.guest.isOff = true
  const fenced = await world.order(target, 'replica.fence', { vmId: id, epoch })
  if (fenced instanceof HotsiteError || !fenced.newest) return false
  vm.epoch = epoch
  vm.ackedSeq = 0
  vm.owed = []
  vm.fencedPoints = new Set(await listedNow(world, vm))
  const overlay = overlayId.parse(`failover-${epoch}`)
  const created = await world.order(target, 'overlay.create', {
    vmId: id,
    overlayId: overlay,
    point: null,
    purpose: 'failover',
    verify: true,
  })
  if (created instanceof HotsiteError) return false
  vm.overlays.set(overlay, created.point)
  const guest = bootFrom(world, vm, { overlay, point: created.point })
  if (!guest) return false
  // Whatever the old source sends meanwhile is of an epoch that is over (I5).
  await world.scheduler.sleep(world.below(240_000))
  vm.guest.isOff = true
  await world.order(source, 'replication.fence', { vmId: id, epoch })
  judgePoints(world.truth, vm, 'all')
  // What stood on points may go from the moment the order is carried out, which is before that is known here.
  for (const name of vm.listed.keys()) vm.dropped.add(name)
  vm.pinned.clear()
  vm.overlays.clear()
  await world.order(target, 'replica.commit', { vmId: id, overlayId: overlay })
  await turnAround(world, vm, guest)
  return true
}

async function listedNow(world: World, vm: ProtectedVm): Promise<string[]> {
  while (!vm.target.parts) await world.scheduler.sleep(1_000)
  return pointsOf(vm).map(pointName)
}

interface Served {
  readonly overlay: OverlayId
  readonly point: PointRef
}

/** The disks a failover or a test is given must be those of the point, whatever happened to the layers (I3). */
export function judgeOverlay(world: World, vm: ProtectedVm, served: Served): DiskImage[] | undefined {
  const { overlay, point } = served
  const signed = world.truth.signed(vm.vmId, point)
  const images: DiskImage[] = []
  for (const disk of signed.at(-1)?.instant.disks ?? []) {
    const end = `/${vm.vmId}/${overlay}/${disk.diskId}.raw`
    const [, file] = [...vm.target.disk.files].find(([name]) => name.endsWith(end)) ?? []
    if (!file) {
      world.truth.violate('I8', `overlay ${overlay} of ${vm.vmId} has no disk ${disk.diskId}`)
      return undefined
    }
    const blocks = [...file.clusters].map(([index, cluster]) => [index, wholeCluster(cluster)] as const)
    images.push({ ...disk, blocks: new Map(blocks) })
  }
  const isOne = signed.some(({ instant }) =>
    instant.disks.every((disk) => {
      const own = images.find(({ diskId }) => diskId === disk.diskId)
      const indexes = new Set([...disk.blocks.keys(), ...(own?.blocks.keys() ?? [])])
      return [...indexes].every((index) => sameBytes(disk.blocks.get(index), own?.blocks.get(index)))
    }),
  )
  if (!isOne)
    world.truth.violate(
      'I3',
      `the disks of ${overlay} of ${vm.vmId} are not those of point ${pointName(point)}`,
    )
  return images
}

/** The VM goes on there. */
function bootFrom(world: World, vm: ProtectedVm, served: Served): Guest | undefined {
  const images = judgeOverlay(world, vm, served)
  if (!images) return undefined
  const fabricId = fabricVmId.parse(`fabric-${vm.vmId}-${vm.epoch}`)
  const guest = new Guest({ vmId: vm.vmId, fabricVmId: fabricId, rng: seededRng(world.below(2 ** 30)) })
  for (const image of images) guest.adopt(image)
  guest.load = vm.guest.load
  return guest
}

const zeros = Buffer.alloc(CLUSTER_BYTES)

function sameBytes(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return (a ?? zeros).equals(b ?? zeros)
}

/** The old source becomes the target, its own disks the base. */
async function turnAround(world: World, vm: ProtectedVm, guest: Guest): Promise<void> {
  const { source, target, fabricVmId: oldFabricId } = vm
  target.hypervisor.define(guest, world.chance(0.5))
  const adopted = await world.order(source, 'replica.adopt', {
    vmId: vm.vmId,
    epoch: vm.epoch,
    fabricVmId: oldFabricId,
    sourceServerId: target.serverId,
    policy: vm.policy,
  })
  if (adopted instanceof HotsiteError) {
    world.truth.violate('I5', `${source.name} does not become the target of ${vm.vmId}: ${adopted.message}`)
    return
  }
  vm.source = target
  vm.target = source
  vm.guest = guest
  vm.fabricVmId = guest.fabricVmId
  vm.fencedPoints = undefined
  vm.rot = 'none'
  vm.listed.clear()
  vm.dropped.clear()
  await protectVm(world, vm, 'reversed')
}
