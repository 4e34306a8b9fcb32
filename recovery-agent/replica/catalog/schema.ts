import type { Migration } from '#shared/sqlite.ts'
import { leafStoreSchema, treePagesMigration } from '../../tree/leaf-store.ts'
import { backfillsMigration } from './backfills.ts'
import { catalogSumsMigration } from './catalog-sums.ts'
import { proofMigration } from './proof-schema.ts'
import { suspicionsMigration } from './suspicions.ts'

/**
 * replica.db. It is the truth about which files count: a layer no row names is left over from an earlier life.
 * The tree of a disk is that of its newest layer and is keyed `<vm>/<disk>`.
 */
export const replicaMigrations: readonly Migration[] = [
  {
    name: 'replicas, their chains, overlays and hash trees',
    sql: `
      CREATE TABLE replicas (
        vm_id TEXT PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('active', 'committed', 'removing')),
        epoch INTEGER NOT NULL,
        source_server_id TEXT NOT NULL,
        policy TEXT NOT NULL,
        disks TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;

      -- One row for each member of the chain. base: adopted disks, no point. point: visible and attested.
      -- merging: pruned; its layers are being merged into the next ones.
      CREATE TABLE points (
        vm_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('base', 'point', 'merging')),
        captured_at_ms REAL NOT NULL,
        completed_at_ms REAL NOT NULL,
        consistency TEXT NOT NULL CHECK (consistency IN ('crash', 'application')),
        pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
        -- encoded Signed of the PointManifest, as it came; null for a base
        manifest BLOB,
        PRIMARY KEY (vm_id, seq)
      ) STRICT;

      CREATE TABLE point_disks (
        vm_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        disk_id TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        root BLOB NOT NULL,
        changed_bytes INTEGER NOT NULL,
        stored_bytes INTEGER NOT NULL,
        PRIMARY KEY (vm_id, seq, disk_id)
      ) STRICT, WITHOUT ROWID;

      -- The one delta of a VM that is being received.
      CREATE TABLE partials (
        vm_id TEXT PRIMARY KEY,
        header TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE overlays (
        vm_id TEXT NOT NULL,
        overlay_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'committed')),
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        captured_at_ms REAL NOT NULL,
        purpose TEXT NOT NULL CHECK (purpose IN ('test', 'failover')),
        format TEXT NOT NULL CHECK (format IN ('raw', 'qcow2')),
        disks TEXT NOT NULL,
        PRIMARY KEY (vm_id, overlay_id)
      ) STRICT, WITHOUT ROWID;

      ${leafStoreSchema}
    `,
  },
  treePagesMigration,
  proofMigration,
  suspicionsMigration,
  catalogSumsMigration,
  backfillsMigration,
]
