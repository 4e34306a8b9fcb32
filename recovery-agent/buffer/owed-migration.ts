import type { Migration } from '#shared/sqlite.ts'
import { vmChecksum } from './vm-rows.ts'

/** Version 4 of buffer.db: points that are owed, and what disks the newest acknowledged one has. */
export const owedMigration: Migration = {
  name: 'older points that are owed',
  sql: `
    -- null: not known
    ALTER TABLE vms ADD COLUMN acked_layout TEXT;
    -- OwedRange[]
    ALTER TABLE vms ADD COLUMN owed TEXT NOT NULL DEFAULT '[]';
  `,
  step(db) {
    const set = db.prepare('UPDATE vms SET checksum = ? WHERE vm_id = ?')
    const all = db.prepare<[], Parameters<typeof vmChecksum>[0] & { checksum: number }>('SELECT * FROM vms')
    for (const vm of all.all()) {
      const { acked_layout: _layout, owed: _owed, ...former } = vm
      // What is damaged stays so.
      if (vm.checksum === vmChecksum(former)) set.run(vmChecksum(vm), vm.vm_id)
    }
  },
}
