/** buffer.db of one agent: cursors, trees and the deltas the target does not have yet (DESIGN §5). */
import { openSqlite, type Sqlite } from '#shared/sqlite.ts'
import { type LeafStore, openLeafStore } from '../tree/leaf-store.ts'
import { type DeltaRows, openDeltaRows } from './delta-rows.ts'
import { type Garbage, openGarbage } from './garbage.ts'
import { bufferMigrations } from './schema.ts'
import { openVmRows, type VmRows } from './vm-rows.ts'

export interface DeltaBuffer {
  readonly vms: VmRows
  readonly deltas: DeltaRows
  readonly leaves: LeafStore
  readonly garbage: Garbage
  /** One durable step: everything `change` does, or nothing. */
  atomically(change: () => void): void
  close(): void
}

export function openBuffer(path: string): DeltaBuffer {
  return bufferOn(openSqlite({ path, migrations: bufferMigrations, profile: 'bulk' }))
}

export function bufferOn(db: Sqlite): DeltaBuffer {
  const leaves = openLeafStore(db)
  const deltas = openDeltaRows(db)
  return {
    vms: openVmRows(db),
    deltas,
    leaves,
    garbage: openGarbage(db, deltas, leaves),
    atomically: (change) => db.transaction(change).immediate(),
    close: () => void db.close(),
  }
}
