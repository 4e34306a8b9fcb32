import type { DiskId, FabricVmId } from '#shared/ids.ts'

export type Consistency = 'crash' | 'application'

export interface Extent {
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/** One disk of a snapshot. Reads see the instant of the snapshot, whatever the VM writes meanwhile. */
export interface SnapshotDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /**
   * tracked: only these extents may differ from the last released base. Of a disk that shrank and grew again since, what
   * was cut off is among them; a driver that cannot know that says scan. What a new size alone does, callers see themselves.
   * scan: no tracker, or one that is lost or doubtful (`reason`); compare with the stored leaves.
   */
  readonly changes:
    | { readonly kind: 'tracked'; readonly extents: readonly Extent[] }
    | { readonly kind: 'scan'; readonly reason: string }
  /** Where data may be, ascending; everything else reads as zeros. Sparse regions cost nothing. */
  readonly allocated: readonly Extent[]
  /**
   * The same, asked for step by step: the first extent with data that ends above `offsetBytes`; null: none. With it a
   * driver that tracks changes can leave `allocated` to be made on demand, so that a cycle costs what changed.
   */
  readonly nextData?: (offsetBytes: number) => Extent | null
  /** Fills `target` from `offsetBytes`; past the end it fills with zeros. Synchronous: callers run in a worker. */
  read(target: Buffer, offsetBytes: number): void
}

/**
 * All disks of a VM at one instant. Close it as soon as possible: some drivers hold the VM while it is open.
 * close() reports whether the instant held to the end: a watchdog may have let the VM go (I11), and then what was
 * read is torn and must be thrown away.
 */
export interface Snapshot {
  readonly capturedAtMs: number
  readonly consistency: Consistency
  /** Why it is crash-consistent although `quiesce` was asked for. */
  readonly notQuiesced?: string
  readonly disks: readonly SnapshotDisk[]
  /** How long the VM stood still for it, so far. */
  freezeMs(): number
  close(): { readonly intact: boolean }
}

export interface SnapshotRequest {
  readonly fabricVmId: FabricVmId
  /** brief: read within the watchdog's time. long: may stay open for hours, so the driver copies or reflinks if it must. */
  readonly hold: 'brief' | 'long'
  /** What `release` will call this snapshot if its delta is sealed; a repeated seq replaces a snapshot that came to nothing. */
  readonly seq?: number
  /**
   * Applications and file systems of the guest come to rest for the instant, for a bounded time (I11). A driver or a guest
   * that cannot do so gives what it can: `consistency` says what it is.
   */
  readonly quiesce?: boolean
}

/**
 * The hypervisor of one host: everything that touches the disks of its VMs (DESIGN §8). Runs in the capture worker,
 * hence synchronous where it reads. Drivers: folder, libvirt, hyperv.
 */
export interface HostHypervisor {
  /** Thaws and cleans whatever an earlier life of this agent left behind (I11). Call once, before anything else. */
  recover(): Promise<void>
  disks(
    vm: FabricVmId,
  ): Promise<readonly { readonly diskId: DiskId; readonly name: string; readonly sizeBytes: number }[]>
  openSnapshot(request: SnapshotRequest): Promise<Snapshot>
  /**
   * The target durably holds everything up to the snapshot that was open at `seq`: older bases may go (I2).
   * A driver without a tracker has nothing to do.
   */
  release(vm: FabricVmId, seq: number): Promise<void>
  /** The VM is not replicated from here any more: what the driver left in it goes. One that leaves nothing has no such call. */
  forget?(vm: FabricVmId): Promise<void>
}

/** The disks of a VM that is off, for as long as this is not disposed of. */
export interface StoppedDisks extends Disposable {
  readonly disks: readonly StoppedDisk[]
}

export interface StoppedDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /** Of a raw image, or of a Unix socket on which it is shown over NBD, as the only export. */
  readonly path: string
  readonly kind: 'raw' | 'nbd'
}

/** What a target asks of the hypervisor of its host; no snapshots, so it needs no worker. */
export interface HostFiles {
  /** The disk format VMs of this host start from; overlays are made in it. */
  readonly overlayFormat: 'raw' | 'qcow2'
  /** Throws `vm-unknown` and `vm-running`. */
  stoppedDisks(vm: FabricVmId): Promise<StoppedDisks>
  /** Whether any VM is defined with one of these files as a disk, running or not. Throws when that cannot be known. */
  anyVmNames(paths: readonly string[]): Promise<boolean>
}
