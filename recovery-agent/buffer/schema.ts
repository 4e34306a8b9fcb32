import type { Migration } from '#shared/sqlite.ts'
import { leafStoreSchema, treePagesMigration } from '../tree/leaf-store.ts'
import { checksumMigration } from './checksum-migration.ts'
import { owedMigration } from './owed-migration.ts'

/**
 * buffer.db. A tree is named by its row in `disks`, so that a synchronization can build a second one beside it and
 * take it over by changing one name. A tree that no disk names is garbage.
 */
export const bufferMigrations: readonly Migration[] = [
  {
    name: 'source VMs, their trees and their deltas',
    sql: `
      CREATE TABLE vms (
        vm_id TEXT PRIMARY KEY,
        fabric_vm_id TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        sealed_seq INTEGER NOT NULL,
        acked_seq INTEGER NOT NULL,
        acked_captured_at_ms REAL,
        needs_sync TEXT
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE disks (
        vm_id TEXT NOT NULL,
        disk_id TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        tree TEXT NOT NULL UNIQUE,
        PRIMARY KEY (vm_id, disk_id)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE deltas (
        -- never reused: garbage collection may still hold the number of one that is gone
        delta INTEGER PRIMARY KEY AUTOINCREMENT,
        vm_id TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        sealed INTEGER NOT NULL,
        stored_bytes INTEGER NOT NULL,
        -- null while unsealed
        header_json TEXT,
        manifest BLOB
      ) STRICT;
      CREATE INDEX deltas_by_seq ON deltas (vm_id, seq);

      -- block_indexes and block_sizes: u32 LE each; payload: the stored blocks one after the other
      CREATE TABLE batches (
        delta INTEGER NOT NULL,
        disk INTEGER NOT NULL,
        batch INTEGER NOT NULL,
        block_indexes BLOB NOT NULL,
        block_sizes BLOB NOT NULL,
        payload BLOB NOT NULL
      ) STRICT;
      CREATE UNIQUE INDEX batches_by_key ON batches (delta, disk, batch);

      ${leafStoreSchema}
    `,
  },
  treePagesMigration,
  checksumMigration,
  owedMigration,
]
