/**
 * Checksums over everything replica.db says of a VM: its row, its chain with the manifests, its overlays, the delta that
 * is on its way, the points that wait for older ones. They change in the transaction of what they cover, and are compared whenever that is read: a flipped
 * bit, a row that is gone, one too many and rows that changed places are `catalog-damaged`.
 */
import type { Statement } from 'better-sqlite3'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type VmId, vmId } from '#shared/ids.ts'
import type { Migration, Sqlite } from '#shared/sqlite.ts'
import { rowChecksum } from '../../buffer/row-checksum.ts'

export type SumKind = 'replica' | 'chain' | 'overlays' | 'partial' | 'backfills'

type Row = Readonly<Record<string, unknown>>
/** What each statement of a kind answers. */
export type CoveredRows = readonly (readonly Row[])[]

/** What each kind covers, in a fixed order. */
const covered: Readonly<Record<SumKind, readonly string[]>> = {
  replica: ['SELECT vm_id, state, epoch, source_server_id, policy, disks FROM replicas WHERE vm_id = ?'],
  chain: [
    'SELECT vm_id, seq, epoch, state, captured_at_ms, completed_at_ms, consistency, pinned, manifest ' +
      'FROM points WHERE vm_id = ? ORDER BY seq',
    'SELECT vm_id, seq, disk_id, size_bytes, root, changed_bytes, stored_bytes ' +
      'FROM point_disks WHERE vm_id = ? ORDER BY seq, disk_id',
  ],
  overlays: [
    'SELECT vm_id, overlay_id, state, epoch, seq, captured_at_ms, purpose, format, disks ' +
      'FROM overlays WHERE vm_id = ? ORDER BY overlay_id',
  ],
  partial: ['SELECT vm_id, header FROM partials WHERE vm_id = ?'],
  backfills: ['SELECT vm_id, top_seq, epoch, partial FROM backfills WHERE vm_id = ? ORDER BY top_seq'],
}
export const sumKinds = Object.keys(covered) as SumKind[]

export class CatalogSums {
  readonly #statements: ReturnType<typeof prepare>

  constructor(db: Sqlite) {
    this.#statements = prepare(db)
  }

  /** In the transaction of the change. Nothing is left of what has no rows. */
  update(id: VmId, kind: SumKind): void {
    const sum = sumOf(kind, this.rows(id, kind))
    if (sum === undefined) this.#statements.remove.run(id, kind)
    else this.#statements.put.run(id, kind, sum)
  }

  /** Answers the rows. Throws `catalog-damaged`. */
  ensure(id: VmId, kind: SumKind): CoveredRows {
    const stored = this.#statements.get.get(id, kind)?.checksum
    const rows = this.rows(id, kind)
    if (stored === sumOf(kind, rows)) return rows
    throw new HotsiteError('catalog-damaged', `the rows of ${id} (${kind}) are not what was written`, {
      details: { vmId: id, kind },
    })
  }

  /** VMs of which anything is known. */
  vmIds(): VmId[] {
    const names = this.#statements.vms.all().map(({ vm_id }) => vmId.safeParse(vm_id))
    return names.flatMap((parsed) => (parsed.success ? [parsed.data] : []))
  }

  /** Every row of a VM that the sums cover. */
  removeRows(id: VmId): void {
    for (const statement of this.#statements.removeRows()) statement.run(id)
  }

  /** As they are, held against nothing. */
  rows(id: VmId, kind: SumKind): CoveredRows {
    return this.#statements.covered(kind).map((statement) => statement.all(id))
  }
}

function sumOf(kind: SumKind, rows: CoveredRows): number | undefined {
  if (rows.every((each) => each.length === 0)) return undefined
  return rowChecksum(
    kind,
    rows.flatMap((each, i) => [`${i}:${each.length}`, ...each.flatMap((row) => Object.values(row))]),
  )
}

function prepare(db: Sqlite) {
  const tables = ['replicas', 'points', 'point_disks', 'overlays', 'partials', 'backfills', 'catalog_sums']
  // Not before they are needed: a migration sums up when later tables are not there yet.
  const known = new Map<SumKind, Statement<[string], Row>[]>()
  return {
    covered: (kind: SumKind) => {
      const statements = known.get(kind) ?? covered[kind].map((sql) => db.prepare<[string], Row>(sql))
      known.set(kind, statements)
      return statements
    },
    get: db.prepare<[string, string], { checksum: number }>(
      'SELECT checksum FROM catalog_sums WHERE vm_id = ? AND kind = ?',
    ),
    put: db.prepare<[string, string, number]>(
      'INSERT OR REPLACE INTO catalog_sums (vm_id, kind, checksum) VALUES (?, ?, ?)',
    ),
    remove: db.prepare<[string, string]>('DELETE FROM catalog_sums WHERE vm_id = ? AND kind = ?'),
    vms: db.prepare<[], { vm_id: string }>(
      'SELECT vm_id FROM replicas UNION SELECT vm_id FROM catalog_sums ORDER BY vm_id',
    ),
    removeRows: () => tables.map((table) => db.prepare<[string]>(`DELETE FROM ${table} WHERE vm_id = ?`)),
  }
}

/** undefined also for rows that are not what was written: of those nothing is believed. */
export function unlessDamaged<T>(read: () => T | undefined): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof HotsiteError && error.code === 'catalog-damaged') return undefined
    throw error
  }
}

const firstKinds: readonly SumKind[] = ['replica', 'chain', 'overlays', 'partial']

/** What is there is believed once. */
export const catalogSumsMigration: Migration = {
  name: 'checksums over what is said of each VM',
  sql: `
    -- kind: as SumKind
    CREATE TABLE catalog_sums (
      vm_id TEXT NOT NULL,
      kind TEXT NOT NULL,
      checksum INTEGER NOT NULL,
      PRIMARY KEY (vm_id, kind)
    ) STRICT, WITHOUT ROWID;
  `,
  step(db) {
    const sums = new CatalogSums(db)
    for (const id of sums.vmIds()) for (const kind of firstKinds) sums.update(id, kind)
  },
}
