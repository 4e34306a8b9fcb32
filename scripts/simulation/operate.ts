/** What operators and guests do meanwhile. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type OverlayId, overlayId } from '#shared/ids.ts'
import { pointsOf } from './listed-points.ts'
import { diskBytes, type Operation, pick, randomPolicy } from './plan.ts'
import { failOver, judgeOverlay, startVm } from './protect.ts'
import { expectCause, type ProtectedVm, pointName } from './protected-vm.ts'
import type { World } from './world.ts'

/** Runs until the order is carried out; a history goes on meanwhile. */
export async function operate(world: World, kind: Operation): Promise<void> {
  const vm = pick(world.rng, world.vms)
  // The coordinator admits nothing else while a VM changes sides.
  if (world.turning.has(vm)) return
  world.note(`${vm.vmId} operation ${kind}`)
  switch (kind) {
    case 'load':
      vm.guest.load = pick(world.rng, ['none', 'cold', 'hot', 'zeroing'])
      return
    case 'grow':
    case 'shrink':
    case 'add-disk':
    case 'remove-disk':
      changeDisks(world, vm, kind)
      // What was cut off must not come back with the room.
      if (kind === 'shrink') scheduleGrowth(world, vm)
      return
    case 'pause':
      await pause(world, vm)
      return
    case 'policy':
      vm.policy = { ...randomPolicy(world.rng), copyFrequencySeconds: vm.policy.copyFrequencySeconds }
      for (const host of [vm.source, vm.target])
        await world.order(host, 'policy.update', { vmId: vm.vmId, policy: vm.policy })
      return
    case 'pin':
    case 'unpin':
      await pin(world, vm, kind === 'pin')
      return
    case 'overlay':
      await createOverlay(world, vm)
      return
    case 'overlay-remove':
      for (const id of [...vm.overlays.keys()].slice(0, 1)) await removeOverlay(world, vm, id)
      return
    case 'resync':
      expectCause(vm, 'requested')
      expectCause(vm, 'requested')
      await world.order(vm.source, 'replication.resync', { vmId: vm.vmId, cause: 'requested' })
      return
    case 'repeat-start':
      await startVm(world, vm, 'initial')
      return
    case 'copy-now':
      await world.order(vm.source, 'replication.copyNow', { vmId: vm.vmId })
      return
    case 'failover':
      world.turning.add(vm)
      for (const id of [...vm.overlays.keys()]) await removeOverlay(world, vm, id)
      await failOver(world, vm)
      world.turning.delete(vm)
      return
  }
}

function changeDisks(
  world: World,
  { guest }: ProtectedVm,
  kind: 'grow' | 'shrink' | 'add-disk' | 'remove-disk',
): void {
  if (guest.isOff) return
  const disk = pick(world.rng, guest.disks)
  if (kind === 'grow') guest.resize(disk.diskId, disk.sizeBytes + 1 + world.below(8 * 65_536))
  if (kind === 'shrink') guest.resize(disk.diskId, Math.max(70_000, disk.sizeBytes - world.below(6 * 65_536)))
  if (kind === 'add-disk' && guest.disks.length < 4) guest.addDisk(diskBytes(world.rng))
  if (kind === 'remove-disk') guest.removeDisk()
}

function scheduleGrowth(world: World, vm: ProtectedVm): void {
  const cycleMs = vm.policy.copyFrequencySeconds * 1000
  world.scheduler.after(cycleMs * (1 + world.below(5)), () => {
    if (!world.isPeaceful && !world.turning.has(vm)) changeDisks(world, vm, 'grow')
  })
}

async function pause(world: World, vm: ProtectedVm): Promise<void> {
  await world.order(vm.source, 'replication.pause', { vmId: vm.vmId })
  await world.scheduler.sleep(world.below(600_000))
  await world.order(vm.source, 'replication.resume', { vmId: vm.vmId })
}

async function pin(world: World, vm: ProtectedVm, pinned: boolean): Promise<void> {
  const points = pointsOf(vm)
  const chosen = points.filter((point) => point.pinned !== pinned)
  if (chosen.length === 0) return
  const point = pick(world.rng, chosen)
  const { epoch, seq } = point
  const name = pointName(point)
  if (!pinned) vm.pinned.delete(name)
  const done = await world.order(vm.target, 'replica.pin', { vmId: vm.vmId, point: { epoch, seq }, pinned })
  // Between the choice and the order retention may have taken it.
  if (pinned && !(done instanceof HotsiteError) && vm.epoch === epoch) vm.pinned.add(name)
}

async function createOverlay(world: World, vm: ProtectedVm): Promise<void> {
  const points = pointsOf(vm)
  if (points.length === 0 || vm.guest.isOff) return
  const { epoch, seq } = pick(world.rng, points)
  const id = overlayId.parse(`test-${world.below(2 ** 30)}`)
  const done = await world.order(vm.target, 'overlay.create', {
    vmId: vm.vmId,
    overlayId: id,
    point: { epoch, seq },
    purpose: 'test',
    verify: true,
  })
  if (done instanceof HotsiteError || vm.epoch !== epoch) return
  vm.overlays.set(id, done.point)
  judgeOverlay(world, vm, { overlay: id, point: done.point })
}

async function removeOverlay(world: World, vm: ProtectedVm, id: OverlayId): Promise<void> {
  vm.overlays.delete(id)
  await world.order(vm.target, 'overlay.remove', { vmId: vm.vmId, overlayId: id })
}

/** Reads every block of the replica again; what is wrong is healed, or said to be wrong. */
export async function prove(world: World, vm: ProtectedVm): Promise<void> {
  const { epoch, target } = vm
  const outcome = await world.order(target, 'replica.verify', { vmId: vm.vmId, percent: 100 })
  if (outcome instanceof HotsiteError || vm.epoch !== epoch || vm.target !== target) return
  const bad = outcome.disks.reduce((sum, { badBlocks }) => sum + badBlocks, 0)
  world.note(`${vm.vmId} proved: ${bad} bad blocks left, ${outcome.damagedPoints.length} points damaged`)
  if (vm.rot === 'unproved') vm.rot = 'proved'
}
