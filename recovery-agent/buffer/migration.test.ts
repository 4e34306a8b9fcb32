import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { GROUP_BYTES, HASH_BYTES, nodeOf } from '#shared/blocks/hash-tree.ts'
import { vmId } from '#shared/ids.ts'
import { openSqlite } from '#shared/sqlite.ts'
import { openBuffer } from './buffer.ts'
import { bufferMigrations } from './schema.ts'

const vm = vmId.parse('vm-1')

it('a buffer of version 1 is taken over whole: cursors, trees and the deltas that wait', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-buffer-'))
  const path = join(dir, 'buffer.db')
  const first = openSqlite({ path, profile: 'bulk', migrations: bufferMigrations.slice(0, 1) })
  const leaves = Buffer.alloc(GROUP_BYTES)
  randomBytes(HASH_BYTES).copy(leaves, 3 * HASH_BYTES)
  const payload = randomBytes(65_536)
  const stats = {
    scannedBytes: 1,
    changedBlocks: 1,
    changedBytes: 65_536,
    storedBytes: 65_536,
    freezeMs: 0.5,
    captureMs: 2.5,
  }
  const header = {
    baseSeq: 6,
    capturedAtMs: 5,
    consistency: 'crash',
    disks: [{ diskId: 'disk-0', sizeBytes: 2 ** 30, batchCount: 1 }],
    stats,
  }
  const run = (sql: string, ...values: unknown[]) => first.prepare(sql).run(...values)
  run("INSERT INTO vms VALUES ('vm-1', 'fabric-1', 2, 7, 6, 1234.5, NULL)")
  run("INSERT INTO disks VALUES ('vm-1', 'disk-0', ?, 'tree-0')", 2 ** 30)
  run('INSERT INTO leaf_groups VALUES (?, ?, ?, ?)', 'tree-0', 9, nodeOf(leaves, 1), leaves)
  run(
    "INSERT INTO deltas VALUES (4, 'vm-1', 2, 7, 1, 65800, ?, ?)",
    JSON.stringify(header),
    Buffer.from('signed'),
  )
  const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
  run('INSERT INTO batches VALUES (4, 0, 0, ?, ?, ?)', u32(2307), u32(65_536), payload)
  first.close()

  const buffer = openBuffer(path)
  expect(buffer.damage).toBeUndefined()
  expect(buffer.vms.get(vm)).toEqual({
    vmId: 'vm-1',
    fabricVmId: 'fabric-1',
    epoch: 2,
    sealedSeq: 7,
    ackedSeq: 6,
    ackedCapturedAtMs: 1234.5,
    needsSync: null,
    ackedLayout: null,
    owed: [],
  })
  expect(buffer.vms.disks(vm)).toEqual([{ diskId: 'disk-0', sizeBytes: 2 ** 30, tree: 'tree-0' }])
  expect(buffer.leaves.group('tree-0', 9)).toEqual(leaves)
  expect([...buffer.leaves.nonZeroGroups('tree-0', 0, 64)]).toEqual([9])
  expect(buffer.deltas.next(vm, 6)).toMatchObject({ delta: 4, seq: 7, manifest: Buffer.from('signed') })
  expect(buffer.deltas.totalBytes()).toBe(65_800)
  const batch = buffer.deltas.batch({ delta: 4, disk: 0, batch: 0 })
  expect(batch).toEqual({ blockIndexes: [2307], storedBytes: [65_536], payload })
  buffer.close()
  rmSync(dir, { recursive: true })
})
