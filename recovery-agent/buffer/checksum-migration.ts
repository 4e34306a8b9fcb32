import type { Migration, Sqlite } from '#shared/sqlite.ts'
import { batchChecksum, deltaChecksum } from './delta-rows.ts'
import { diskChecksum, disksChecksum, vmChecksum } from './vm-rows.ts'

/** Version 3 of buffer.db: every row has a checksum. Rows that are there are believed once more, and checked from then on. */
export const checksumMigration: Migration = {
  name: 'checksums of rows, and how far disks were proved',
  sql: `
    ALTER TABLE vms ADD COLUMN disks_checksum INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE vms ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    -- DiskWalk; null: nothing was re-read yet
    ALTER TABLE disks ADD COLUMN walk_json TEXT;
    ALTER TABLE disks ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE deltas ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE batches ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;

    -- The version once more: a bit that flipped in the file's header must not pass for a file of a newer program.
    CREATE TABLE format (
      only INTEGER PRIMARY KEY CHECK (only = 1),
      version INTEGER NOT NULL,
      checksum INTEGER NOT NULL
    ) STRICT;
  `,
  step(db) {
    addDisks(db)
    addDeltas(db)
    addBatches(db)
  },
}

type Raw<Checksum extends (raw: never) => number> = Parameters<Checksum>[0]

function addDisks(db: Sqlite): void {
  const disks = db.prepare<[], Raw<typeof diskChecksum>>('SELECT * FROM disks ORDER BY vm_id, disk_id').all()
  const setDisk = db.prepare('UPDATE disks SET checksum = ? WHERE vm_id = ? AND disk_id = ?')
  const ofVm = new Map<string, { checksum: number }[]>()
  for (const disk of disks) {
    const checksum = diskChecksum(disk)
    setDisk.run(checksum, disk.vm_id, disk.disk_id)
    ofVm.set(disk.vm_id, [...(ofVm.get(disk.vm_id) ?? []), { checksum }])
  }
  const setVm = db.prepare('UPDATE vms SET disks_checksum = ?, checksum = ? WHERE vm_id = ?')
  for (const vm of db.prepare<[], Raw<typeof vmChecksum>>('SELECT * FROM vms').all()) {
    const disks_checksum = disksChecksum(ofVm.get(vm.vm_id) ?? [])
    setVm.run(disks_checksum, vmChecksum({ ...vm, disks_checksum }), vm.vm_id)
  }
}

function addDeltas(db: Sqlite): void {
  const set = db.prepare('UPDATE deltas SET checksum = ? WHERE delta = ?')
  for (const delta of db.prepare<[], Raw<typeof deltaChecksum>>('SELECT * FROM deltas').all())
    set.run(deltaChecksum(delta), delta.delta)
}

/** One row at a time: a mebibyte each, and together as large as the buffer. */
function addBatches(db: Sqlite): void {
  const next = db.prepare<[number], Raw<typeof batchChecksum> & { rowid: number }>(
    'SELECT rowid, * FROM batches WHERE rowid > ? ORDER BY rowid LIMIT 1',
  )
  const set = db.prepare('UPDATE batches SET checksum = ? WHERE rowid = ?')
  for (let row = next.get(-1); row; row = next.get(row.rowid)) set.run(batchChecksum(row), row.rowid)
}
