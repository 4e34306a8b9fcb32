/** replica.db as objects: every statement the store runs. */
import type { Statement } from 'better-sqlite3'
import type { DiskId, OverlayId, ServerId, VmId } from '#shared/ids.ts'
import type { OverlayDisk, PointRef } from '#shared/messages/commands.ts'
import { type ReplicationPolicy, replicationPolicy } from '#shared/messages/policy.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { type LeafStore, openLeafStore } from '../../tree/leaf-store.ts'
import type { DeltaHeader, ReplicaDisk } from '../port.ts'
import { BackfillRows } from './backfills.ts'
import { CatalogSums, unlessDamaged } from './catalog-sums.ts'
import type { Chain, ChainDisk, ChainPoint } from './chain.ts'
import { CheckedRows } from './checked-rows.ts'
import { DamageRows } from './damage.ts'
import { LayerLeaves } from './layer-leaves.ts'
import { Suspicions } from './suspicions.ts'

export interface ReplicaRow {
  readonly vmId: VmId
  /** committed: a failover is final; what is left serves its overlay. removing: files go, then the row. */
  readonly state: 'active' | 'committed' | 'removing'
  readonly epoch: number
  readonly sourceServerId: ServerId
  readonly policy: ReplicationPolicy
  readonly disks: readonly ReplicaDisk[]
}

export interface OverlayRow {
  readonly vmId: VmId
  readonly overlayId: OverlayId
  readonly state: 'creating' | 'ready' | 'committed'
  readonly point: PointRef
  readonly capturedAtMs: number
  readonly purpose: 'test' | 'failover'
  readonly format: 'raw' | 'qcow2'
  readonly disks: readonly OverlayDisk[]
}

export interface ScrubRow {
  readonly vmId: VmId
  readonly diskId: DiskId
  readonly seq: number
  readonly groupIndex: number
  readonly checkedBlocks: number
  readonly beganAtMs: number
  readonly provedAtMs: number | null
  readonly checksum: number
}

type Row = Readonly<Record<string, unknown>>

export class Catalog {
  readonly leaves: LeafStore
  readonly layerLeaves: LayerLeaves
  readonly damage: DamageRows
  readonly suspicions: Suspicions
  readonly backfills: BackfillRows
  readonly sums: CatalogSums
  readonly #db: Sqlite
  readonly #rows: CheckedRows
  readonly #statements = new Map<string, Statement<unknown[], Row>>()
  #changes = 0
  #changeCount = 0
  readonly #changedVms = new Set<VmId>()

  constructor(db: Sqlite) {
    this.#db = db
    this.leaves = openLeafStore(db)
    this.layerLeaves = new LayerLeaves(db)
    this.damage = new DamageRows(db)
    this.suspicions = new Suspicions(db)
    this.sums = new CatalogSums(db)
    this.#rows = new CheckedRows(db, this.sums)
    this.backfills = new BackfillRows(db, this.#rows, (vmId) => this.markChanged(vmId))
  }

  /** Grows with every change of any chain and of what is known of its layers: who read before it grew looks again. */
  get changes(): number {
    return this.#changes + this.layerLeaves.changes
  }

  /** VMs whose rows changed since the last call: what the copies beside the layers do not say yet. */
  takeChanged(): VmId[] {
    const changed = [...this.#changedVms]
    this.#changedVms.clear()
    return changed
  }

  /** Grows with every row of a replica, a chain or an overlay that is written. */
  get changeCount(): number {
    return this.#changeCount
  }

  markChanged(vmId: VmId): void {
    this.#changeCount++
    this.#changedVms.add(vmId)
  }

  transaction<T>(work: () => T): T {
    return this.#rows.transaction(work)
  }

  /** Those whose rows are as they were written; of the others nothing is believed. */
  replicas(): ReplicaRow[] {
    return this.sums.vmIds().flatMap((vmId) => unlessDamaged(() => this.replica(vmId)) ?? [])
  }

  /** Rows are held against their checksums when they are read next, also those that were before. */
  lookAgain(vmId: VmId): void {
    this.#rows.lookAgain(vmId)
  }

  /** Nothing is left of what is said of a VM. */
  removeRows(vmId: VmId): void {
    this.lookAgain(vmId)
    this.sums.removeRows(vmId)
  }

  /** Throws `catalog-damaged`, like everything that reads rows. */
  replica(vmId: VmId): ReplicaRow | undefined {
    return this.#rows.read(vmId, 'replica', ([rows = []]) => rows.map(replicaOf)[0])
  }

  putReplica(row: ReplicaRow): void {
    this.#rows.change(row.vmId, 'replica', () => {
      this.markChanged(row.vmId)
      this.#run(
        'INSERT INTO replicas (vm_id, state, epoch, source_server_id, policy, disks) VALUES (?, ?, ?, ?, ?, ?) ' +
          'ON CONFLICT (vm_id) DO UPDATE SET state = excluded.state, epoch = excluded.epoch, ' +
          'source_server_id = excluded.source_server_id, policy = excluded.policy, disks = excluded.disks',
        row.vmId,
        row.state,
        row.epoch,
        row.sourceServerId,
        JSON.stringify(row.policy),
        JSON.stringify(row.disks),
      )
    })
  }

  deleteReplica(vmId: VmId): void {
    this.#rows.change(vmId, 'replica', () => {
      this.#run('DELETE FROM replicas WHERE vm_id = ?', vmId)
      this.#run('DELETE FROM scrubs WHERE vm_id = ?', vmId)
    })
  }

  chain(vmId: VmId): Chain {
    return this.#rows.read(vmId, 'chain', ([points = [], allDisks = []]) => {
      const disks = Map.groupBy(allDisks, (row) => row['seq'])
      return points.map((row) => pointOf(row, disks.get(row['seq']) ?? []))
    })
  }

  addToChain(vmId: VmId, member: ChainPoint, manifest: Uint8Array | null): void {
    this.#rows.change(vmId, 'chain', () => {
      this.markChanged(vmId)
      this.#run(
        'INSERT INTO points (vm_id, seq, epoch, state, captured_at_ms, completed_at_ms, consistency, pinned, manifest) ' +
          'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
        vmId,
        member.seq,
        member.epoch,
        member.state,
        member.capturedAtMs,
        member.completedAtMs,
        member.consistency,
        member.pinned ? 1 : 0,
        manifest && Buffer.from(manifest),
      )
      for (const disk of member.disks) this.#putDisk(vmId, member.seq, disk)
    })
  }

  putChainDisk(vmId: VmId, seq: number, disk: ChainDisk): void {
    this.#rows.change(vmId, 'chain', () => this.#putDisk(vmId, seq, disk))
  }

  #putDisk(vmId: VmId, seq: number, disk: ChainDisk): void {
    this.markChanged(vmId)
    this.#changes++
    this.#run(
      'INSERT OR REPLACE INTO point_disks (vm_id, seq, disk_id, size_bytes, root, changed_bytes, stored_bytes) ' +
        'VALUES (?, ?, ?, ?, ?, ?, ?)',
      vmId,
      seq,
      disk.diskId,
      disk.sizeBytes,
      disk.root,
      disk.changedBytes,
      disk.storedBytes,
    )
  }

  setState(vmId: VmId, seq: number, state: ChainPoint['state']): void {
    this.#rows.change(vmId, 'chain', () => {
      this.markChanged(vmId)
      this.#changes++
      this.#run('UPDATE points SET state = ? WHERE vm_id = ? AND seq = ?', state, vmId, seq)
    })
  }

  setPinned(vmId: VmId, seq: number, pinned: boolean): void {
    this.#rows.change(vmId, 'chain', () => {
      this.markChanged(vmId)
      this.#run('UPDATE points SET pinned = ? WHERE vm_id = ? AND seq = ?', pinned ? 1 : 0, vmId, seq)
    })
  }

  removeFromChain(vmId: VmId, seq: number): void {
    this.#rows.change(vmId, 'chain', () => {
      this.markChanged(vmId)
      this.#changes++
      this.#run('DELETE FROM points WHERE vm_id = ? AND seq = ?', vmId, seq)
      this.#run('DELETE FROM point_disks WHERE vm_id = ? AND seq = ?', vmId, seq)
      this.layerLeaves.removeMember(vmId, seq)
      this.damage.removeMember(vmId, seq)
      this.suspicions.clear(vmId, seq)
    })
  }

  /** By seq; of a base there is none. */
  manifests(vmId: VmId): ReadonlyMap<number, Buffer> {
    const rows = this.#all('SELECT seq, manifest FROM points WHERE vm_id = ? AND manifest IS NOT NULL', vmId)
    return new Map(rows.map((row) => [row['seq'] as number, row['manifest'] as Buffer]))
  }

  manifest(vmId: VmId, seq: number): Buffer | null {
    const row = this.#all('SELECT manifest FROM points WHERE vm_id = ? AND seq = ?', vmId, seq)[0]
    return (row?.['manifest'] as Buffer | null | undefined) ?? null
  }

  partial(vmId: VmId): DeltaHeader | undefined {
    return this.#rows.read(vmId, 'partial', ([rows = []]) =>
      rows.map((row) => JSON.parse(row['header'] as string) as DeltaHeader).at(0),
    )
  }

  putPartial(header: DeltaHeader): void {
    this.#rows.change(header.vmId, 'partial', () => {
      this.#run(
        'INSERT OR REPLACE INTO partials (vm_id, header) VALUES (?, ?)',
        header.vmId,
        JSON.stringify(header),
      )
    })
  }

  deletePartial(vmId: VmId): void {
    this.#rows.change(vmId, 'partial', () => {
      this.#run('DELETE FROM partials WHERE vm_id = ?', vmId)
    })
  }

  overlays(vmId: VmId): readonly OverlayRow[] {
    return this.#rows.read(vmId, 'overlays', ([rows = []]) => rows.map(overlayOf))
  }

  putOverlay(row: OverlayRow): void {
    this.#rows.change(row.vmId, 'overlays', () => {
      this.markChanged(row.vmId)
      this.#run(
        'INSERT OR REPLACE INTO overlays ' +
          '(vm_id, overlay_id, state, epoch, seq, captured_at_ms, purpose, format, disks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
        row.vmId,
        row.overlayId,
        row.state,
        row.point.epoch,
        row.point.seq,
        row.capturedAtMs,
        row.purpose,
        row.format,
        JSON.stringify(row.disks),
      )
    })
  }

  deleteOverlay(vmId: VmId, overlayId: OverlayId): void {
    this.#rows.change(vmId, 'overlays', () => {
      this.markChanged(vmId)
      this.#run('DELETE FROM overlays WHERE vm_id = ? AND overlay_id = ?', vmId, overlayId)
    })
  }

  scrub(vmId: VmId, diskId: DiskId): ScrubRow | undefined {
    return this.#all('SELECT * FROM scrubs WHERE vm_id = ? AND disk_id = ?', vmId, diskId).map(scrubOf)[0]
  }

  putScrub(row: ScrubRow): void {
    this.#run(
      'INSERT OR REPLACE INTO scrubs ' +
        '(vm_id, disk_id, seq, group_index, checked_blocks, began_at_ms, proved_at_ms, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      row.vmId,
      row.diskId,
      row.seq,
      row.groupIndex,
      row.checkedBlocks,
      row.beganAtMs,
      row.provedAtMs,
      row.checksum,
    )
  }

  dropTree(vmId: VmId, diskId: DiskId): void {
    this.leaves.truncate(treeOf(vmId, diskId), 0)
  }

  close(): void {
    this.#db.close()
  }

  /** Each statement is prepared once: preparing costs more than most of them. */
  #statement(sql: string): Statement<unknown[], Row> {
    const known = this.#statements.get(sql) ?? this.#db.prepare<unknown[], Row>(sql)
    this.#statements.set(sql, known)
    return known
  }

  #all(sql: string, ...values: unknown[]): Row[] {
    return this.#statement(sql).all(...values)
  }

  #run(sql: string, ...values: unknown[]): void {
    this.#statement(sql).run(...values)
  }
}

export function treeOf(vmId: VmId, diskId: DiskId): string {
  return `${vmId}/${diskId}`
}

function replicaOf(row: Row): ReplicaRow {
  return {
    vmId: row['vm_id'] as VmId,
    state: row['state'] as ReplicaRow['state'],
    epoch: row['epoch'] as number,
    sourceServerId: row['source_server_id'] as ServerId,
    policy: replicationPolicy.parse(JSON.parse(row['policy'] as string)),
    disks: JSON.parse(row['disks'] as string) as ReplicaDisk[],
  }
}

function pointOf(row: Row, disks: readonly Row[]): ChainPoint {
  return {
    epoch: row['epoch'] as number,
    seq: row['seq'] as number,
    state: row['state'] as ChainPoint['state'],
    capturedAtMs: row['captured_at_ms'] as number,
    completedAtMs: row['completed_at_ms'] as number,
    consistency: row['consistency'] as ChainPoint['consistency'],
    pinned: row['pinned'] === 1,
    disks: disks.map((disk) => ({
      diskId: disk['disk_id'] as DiskId,
      sizeBytes: disk['size_bytes'] as number,
      root: disk['root'] as Buffer,
      changedBytes: disk['changed_bytes'] as number,
      storedBytes: disk['stored_bytes'] as number,
    })),
  }
}

function scrubOf(row: Row): ScrubRow {
  return {
    vmId: row['vm_id'] as VmId,
    diskId: row['disk_id'] as DiskId,
    seq: row['seq'] as number,
    groupIndex: row['group_index'] as number,
    checkedBlocks: row['checked_blocks'] as number,
    beganAtMs: row['began_at_ms'] as number,
    provedAtMs: row['proved_at_ms'] as number | null,
    checksum: row['checksum'] as number,
  }
}

function overlayOf(row: Row): OverlayRow {
  return {
    vmId: row['vm_id'] as VmId,
    overlayId: row['overlay_id'] as OverlayId,
    state: row['state'] as OverlayRow['state'],
    point: { epoch: row['epoch'] as number, seq: row['seq'] as number },
    capturedAtMs: row['captured_at_ms'] as number,
    purpose: row['purpose'] as OverlayRow['purpose'],
    format: row['format'] as OverlayRow['format'],
    disks: JSON.parse(row['disks'] as string) as OverlayDisk[],
  }
}
