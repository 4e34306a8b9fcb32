import type { Migration } from '#shared/sqlite.ts'

/** What is known of every stored block, and what was found when it was read again. */
export const proofMigration: Migration = {
  name: 'leaves of stored blocks, damage, and how far the scrub came',
  sql: `
    -- One row for each layer whose leaves are known. leaf_set: where they are; it stays when a merge renames the layer.
    CREATE TABLE layers (
      vm_id TEXT NOT NULL,
      seq INTEGER NOT NULL,
      disk_id TEXT NOT NULL,
      leaf_set INTEGER NOT NULL UNIQUE,
      group_count INTEGER NOT NULL,
      block_count INTEGER NOT NULL,
      file_bytes INTEGER NOT NULL,
      checksum INTEGER NOT NULL,
      PRIMARY KEY (vm_id, seq, disk_id)
    ) STRICT, WITHOUT ROWID;

    -- 256 blocks: which are zeros, which are data, and the leaves of those.
    CREATE TABLE layer_groups (
      leaf_set INTEGER NOT NULL,
      group_index INTEGER NOT NULL,
      zeros BLOB NOT NULL,
      data BLOB NOT NULL,
      leaves BLOB NOT NULL,
      checksum INTEGER NOT NULL,
      PRIMARY KEY (leaf_set, group_index)
    ) STRICT;

    -- Blocks that are not what they were, 256 to a row; group_index -1: the layer as a whole.
    CREATE TABLE damage (
      vm_id TEXT NOT NULL,
      disk_id TEXT NOT NULL,
      seq INTEGER NOT NULL,
      group_index INTEGER NOT NULL,
      blocks BLOB NOT NULL,
      what TEXT NOT NULL,
      found_at_ms REAL NOT NULL,
      PRIMARY KEY (vm_id, disk_id, seq, group_index)
    ) STRICT, WITHOUT ROWID;

    -- The pass that goes on, of each disk; it resumes at (seq, group_index).
    CREATE TABLE scrubs (
      vm_id TEXT NOT NULL,
      disk_id TEXT NOT NULL,
      seq INTEGER NOT NULL,
      group_index INTEGER NOT NULL,
      checked_blocks INTEGER NOT NULL,
      began_at_ms REAL NOT NULL,
      proved_at_ms REAL,
      checksum INTEGER NOT NULL,
      PRIMARY KEY (vm_id, disk_id)
    ) STRICT, WITHOUT ROWID;
  `,
}
