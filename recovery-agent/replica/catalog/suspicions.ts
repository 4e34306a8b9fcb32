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
  readonly #statements: ReturnType<typeof prepare>

  constructor(db: Sqlite) {
    this.#statements = prepare(db)
  }

  /** Why, by the number of the point. */
  of(vmId: VmId): ReadonlyMap<number, string> {
    return new Map(this.#statements.all.all(vmId).map(({ seq, why }) => [seq, why]))
  }

  put(vmId: VmId, seq: number, why: string): void {
    this.#statements.put.run(vmId, seq, why)
  }

  clear(vmId: VmId, seq: number): void {
    this.#statements.clear.run(vmId, seq)
  }
}

function prepare(db: Sqlite) {
  return {
    all: db.prepare<[string], { seq: number; why: string }>(
      'SELECT seq, why FROM suspicions WHERE vm_id = ?',
    ),
    put: db.prepare<[string, number, string]>(
      'INSERT OR REPLACE INTO suspicions (vm_id, seq, why) VALUES (?, ?, ?)',
    ),
    clear: db.prepare<[string, number]>('DELETE FROM suspicions WHERE vm_id = ? AND seq = ?'),
  }
}
