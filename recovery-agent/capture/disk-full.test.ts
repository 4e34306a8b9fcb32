import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openSqlite } from '#shared/sqlite.ts'
import { bufferOn } from '../buffer/buffer.ts'
import { bufferMigrations } from '../buffer/schema.ts'
import { createCaptureEngine } from './engine.ts'
import { captureKit, sourceVm, vm } from './test-kit/kit.ts'
import { drainAll, ModelTarget, synchronize } from './test-kit/model-target.ts'

const MIB = 2 ** 20

it('a full disk abandons the capture with disk-full, loses nothing, and the buffer heals by itself', async () => {
  await using kit = captureKit()
  const disk = kit.hypervisor.addDisk('disk-0', 16 * MIB)
  const path = join(kit.dir, 'buffer.db')
  const db = openSqlite({ path, migrations: bufferMigrations, profile: 'bulk' })
  const pages = db.pragma('page_count', { simple: true }) as number
  await using engine = await createCaptureEngine({ ...kit.deps, buffer: bufferOn(db) })
  await engine.add(sourceVm, 'initial')
  const replication = { engine, target: new ModelTarget(), vmId: vm, publicKey: kit.publicKey }
  await synchronize(replication)
  // SQLite's own limit: the same SQLITE_FULL that a full file system gives. Room for one transaction of 4 MiB, not three.
  db.pragma(`max_page_count = ${pages + 90}`)
  kit.hypervisor.write(disk, 0, randomBytes(12 * MIB))
  await expect(engine.capture(vm, { compress: false })).rejects.toMatchObject({
    name: 'HotsiteError',
    code: 'disk-full',
  })
  expect(await engine.state(vm)).toMatchObject({ sealedSeq: 1, bufferedBytes: 0, needsSync: null })
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok')
  db.pragma(`max_page_count = ${pages + 4000}`)
  const outcome = await engine.capture(vm, { compress: false })
  expect(outcome).toMatchObject({ kind: 'sealed', delta: { seq: 2, stats: { changedBlocks: 192 } } })
  expect(await drainAll(replication)).toBe(1)
  expect(replication.target.disks.get(disk.diskId)?.bytes.equals(kit.hypervisor.content(disk))).toBe(true)
})
