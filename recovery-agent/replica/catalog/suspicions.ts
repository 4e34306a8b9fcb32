/** Hints of the source that a point is not the VM's ordinary work, until a person takes one back. */
import type { VmId } from '#shared/ids.ts'
import type { Migration, Sqlite } from '#shared/sqlite.ts'

export const suspicionsMigration: Migration = {
  name: 'points that look suspect',
  sql: `
    CREATE TABLE suspicions (
      vm_id TEXT NOT NULL,
      seq INTEGER NOT NULL,
      why TEXT NOT NULL,
      PRIMARY KEY (vm_id, seq)
    ) STRICT, WITHOUT ROWID;
  `,
}

export class Suspicions {
  readonly #db: Sqlite

  constructor(db: Sqlite) {
    this.#db = db
  }

  /** Why, by the number of the point. */
  of(vmId: VmId): ReadonlyMap<number, string> {
    const rows = this.#db
      .prepare<[string], { seq: number; why: string }>('SELECT seq, why FROM suspicions WHERE vm_id = ?')
      .all(vmId)
    return new Map(rows.map(({ seq, why }) => [seq, why]))
  }

  put(vmId: VmId, seq: number, why: string): void {
    this.#db
      .prepare<[string, number, string]>(
        'INSERT OR REPLACE INTO suspicions (vm_id, seq, why) VALUES (?, ?, ?)',
      )
      .run(vmId, seq, why)
  }

  clear(vmId: VmId, seq: number): void {
    this.#db.prepare<[string, number]>('DELETE FROM suspicions WHERE vm_id = ? AND seq = ?').run(vmId, seq)
  }
}
