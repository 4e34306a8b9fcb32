/**
 * The hypervisor of a host over guests in memory: snapshots of one instant, a tracker that some VMs have, snapshots
 * that do not hold. It notes which instant each signed point was captured at; that is what points are judged by.
 */
import type { Extent, HostHypervisor, Snapshot, SnapshotDisk } from '#recovery-agent/hypervisor/port.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { FabricVmId } from '#shared/ids.ts'
import type { PointManifest } from '#shared/trust/point-manifest.ts'
import { type Guest, type Instant, readImage } from './guest.ts'
import type { Scheduler } from './scheduler.ts'

interface Tracker {
  /** Changes after this one are known; undefined: the tracker was lost. */
  baseChange: number | undefined
  /** Change of the guest at which each seq was captured. */
  readonly captured: Map<number, number>
}

export interface GuestSlot {
  readonly guest: Guest
  readonly isTracked: boolean
  readonly tracker: Tracker
  /** The newest snapshot of this life or an earlier one. */
  lastInstant: Instant | undefined
}

export class SimHypervisor {
  readonly #scheduler: Scheduler
  readonly #slots = new Map<FabricVmId, GuestSlot>()
  /** The next so many snapshots do not hold. */
  tornSnapshots = 0
  /** Snapshots that are open now: a life that ended leaves some, its successor must close them (I11). */
  openSnapshots = 0

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler
  }

  /** A VM comes back as another guest when it was failed over twice. */
  define(guest: Guest, isTracked: boolean): void {
    for (const [name, slot] of [...this.#slots]) if (slot.guest.vmId === guest.vmId) this.#slots.delete(name)
    const tracker = { baseChange: undefined, captured: new Map<number, number>() }
    this.#slots.set(guest.fabricVmId, { guest, isTracked, tracker, lastInstant: undefined })
  }

  guest(vm: FabricVmId): Guest | undefined {
    return this.#slots.get(vm)?.guest
  }

  loseTrackers(): void {
    for (const { tracker } of this.#slots.values()) tracker.baseChange = undefined
  }

  /** The instant a point that is being signed was captured at: that of the newest snapshot of its VM. */
  signed({ vmId }: PointManifest): Instant | undefined {
    return [...this.#slots.values()].find(({ guest }) => guest.vmId === vmId)?.lastInstant
  }

  /** The port, as one life of the host uses it. */
  view(clock: Clock, isAlive: () => boolean): HostHypervisor {
    return {
      recover: async () => {
        this.openSnapshots = 0
      },
      disks: async (vm) =>
        this.#slot(vm).guest.disks.map(({ diskId, sizeBytes }) => ({ diskId, name: diskId, sizeBytes })),
      openSnapshot: async ({ fabricVmId, seq }) => this.#open(this.#slot(fabricVmId), clock, seq),
      release: async (vm, seq) => {
        if (isAlive()) this.#release(vm, seq)
      },
    }
  }

  #slot(vm: FabricVmId): GuestSlot {
    const slot = this.#slots.get(vm)
    if (slot) return slot
    throw new HotsiteError('capture-failed', `there is no VM ${vm} on this host`)
  }

  #release(vm: FabricVmId, seq: number): void {
    const tracker = this.#slots.get(vm)?.tracker
    const change = tracker?.captured.get(seq)
    if (!tracker || change === undefined) return
    tracker.baseChange = change
    for (const known of [...tracker.captured.keys()]) if (known < seq) tracker.captured.delete(known)
  }

  #open(slot: GuestSlot, clock: Clock, seq: number | undefined): Snapshot {
    const { guest } = slot
    const isTorn = this.tornSnapshots > 0
    if (isTorn) this.tornSnapshots--
    const instant = guest.instant(this.#scheduler.nowMs)
    slot.lastInstant = instant
    if (seq !== undefined) slot.tracker.captured.set(seq, instant.change)
    this.openSnapshots++
    let isOpen = true
    return {
      capturedAtMs: clock.now(),
      consistency: 'crash',
      disks: instant.disks.map((_, position) => this.#diskOf(slot, instant, { position, isTorn })),
      freezeMs: () => 5,
      close: () => {
        if (isOpen) this.openSnapshots--
        isOpen = false
        return { intact: !isTorn }
      },
    }
  }

  #diskOf(
    { guest, isTracked, tracker }: GuestSlot,
    instant: Instant,
    { position, isTorn }: { position: number; isTorn: boolean },
  ): SnapshotDisk {
    const image = instant.disks[position]
    if (!image) throw new Error('no such disk')
    const { diskId, sizeBytes } = image
    const { baseChange } = tracker
    return {
      diskId,
      sizeBytes,
      changes:
        isTracked && baseChange !== undefined
          ? { kind: 'tracked', extents: extentsOf(guest.writtenBlocks(diskId, baseChange)) }
          : { kind: 'scan', reason: 'no tracker' },
      allocated: extentsOf([...image.blocks.keys()]),
      read(target, offsetBytes) {
        // The guest was let go: it writes while it is read.
        if (isTorn) guest.write()
        const now = guest.disks.find((disk) => disk.diskId === diskId)
        readImage(isTorn && now ? now : image, target, offsetBytes)
      },
    }
  }
}

/** Ascending, neighbours joined. */
function extentsOf(blocks: readonly number[]): Extent[] {
  const extents: { offsetBytes: number; lengthBytes: number }[] = []
  for (const block of blocks.toSorted((a, b) => a - b)) {
    const last = extents.at(-1)
    const offsetBytes = block * BLOCK_BYTES
    if (last && last.offsetBytes + last.lengthBytes === offsetBytes) last.lengthBytes += BLOCK_BYTES
    else extents.push({ offsetBytes, lengthBytes: BLOCK_BYTES })
  }
  return extents
}
