/**
 * Points that came before older ones (`union`), and below which those are still brought. As long as such a row is there
 * the point and the member below it stay as they are.
 */
import type { VmId } from '#shared/ids.ts'
import type { Migration, Sqlite } from '#shared/sqlite.ts'
import type { DeltaHeader } from '../port.ts'
import type { Chain, ChainPoint } from './chain.ts'
import type { CheckedRows } from './checked-rows.ts'

export interface Backfill {
  readonly epoch: number
  /** The point that came first. */
  readonly topSeq: number
  /** The older one that is on its way. */
  readonly partial: DeltaHeader | null
}

export const backfillsMigration: Migration = {
  name: 'points that came before older ones',
  sql: `
    CREATE TABLE backfills (
      vm_id TEXT NOT NULL,
      top_seq INTEGER NOT NULL,
      epoch INTEGER NOT NULL,
      -- header of the older point that is being received; null: none is
      partial TEXT,
      PRIMARY KEY (vm_id, top_seq)
    ) STRICT, WITHOUT ROWID;
  `,
}

interface Row {
  readonly top_seq: number
  readonly epoch: number
  readonly partial: string | null
}

export class BackfillRows {
  readonly #statements: ReturnType<typeof prepare>
  readonly #rows: CheckedRows
  readonly #markChanged: (vmId: VmId) => void

  constructor(db: Sqlite, rows: CheckedRows, markChanged: (vmId: VmId) => void) {
    this.#statements = prepare(db)
    this.#rows = rows
    this.#markChanged = markChanged
  }

  /** Oldest first. Throws `catalog-damaged`. */
  list(vmId: VmId): readonly Backfill[] {
    return this.#rows.read(vmId, 'backfills', () => this.#statements.all.all(vmId).map(backfillOf))
  }

  put(vmId: VmId, { epoch, topSeq, partial }: Backfill): void {
    this.#rows.change(vmId, 'backfills', () => {
      this.#markChanged(vmId)
      this.#statements.put.run(vmId, topSeq, epoch, partial && JSON.stringify(partial))
    })
  }

  remove(vmId: VmId, topSeq: number): void {
    this.#rows.change(vmId, 'backfills', () => {
      this.#markChanged(vmId)
      this.#statements.remove.run(vmId, topSeq)
    })
  }
}

/** Members of the chain that have to stay: the points that came first, and what each of them stands on. */
export function heldByBackfills(chain: Chain, backfills: readonly Backfill[]): Set<number> {
  return new Set(
    backfills.flatMap(({ topSeq }) => {
      const top = chain.findIndex(({ seq }) => seq === topSeq)
      return [chain[top], chain[top - 1]].flatMap((member) => member?.seq ?? [])
    }),
  )
}

/** A backfill whose point came first, with that and the member it stands on now. */
export interface Gap {
  readonly backfill: Backfill
  readonly top: ChainPoint
  readonly below: ChainPoint
}

/** Where a point of this number would go; undefined: nothing is expected there. */
export function gapFor(chain: Chain, backfills: readonly Backfill[], seq: number): Gap | undefined {
  const backfill = backfills.find(({ topSeq }) => topSeq > seq)
  const at = chain.findIndex((member) => member.seq === backfill?.topSeq)
  const [below, top] = [chain[at - 1], chain[at]]
  return backfill && top && below ? { backfill, top, below } : undefined
}

function prepare(db: Sqlite) {
  return {
    all: db.prepare<[string], Row>(
      'SELECT top_seq, epoch, partial FROM backfills WHERE vm_id = ? ORDER BY top_seq',
    ),
    put: db.prepare<[string, number, number, string | null]>(
      'INSERT OR REPLACE INTO backfills (vm_id, top_seq, epoch, partial) VALUES (?, ?, ?, ?)',
    ),
    remove: db.prepare<[string, number]>('DELETE FROM backfills WHERE vm_id = ? AND top_seq = ?'),
  }
}

function backfillOf({ top_seq, epoch, partial }: Row): Backfill {
  return { topSeq: top_seq, epoch, partial: partial === null ? null : (JSON.parse(partial) as DeltaHeader) }
}
