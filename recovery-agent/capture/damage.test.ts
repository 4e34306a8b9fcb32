/**
 * Rot in buffer.db, between two lives of the engine and in the middle of one: what is damaged is found and named, the
 * VM is compared anew, and no point is ever wrong. A delta that gave other bytes than were captured would give another
 * root than the one signed, and the target here re-derives every root.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { damageOnce } from '../testing/damage-rows.ts'
import { captureKit, sourceVm, vm } from './test-kit/kit.ts'
import { drainAll, type Replication, synchronize } from './test-kit/model-target.ts'

const MIB = 2 ** 20
const TABLES = ['vms', 'disks', 'deltas', 'batches', 'tree_pages', 'trees']

type Kit = ReturnType<typeof captureKit>

const bufferPath = (kit: Kit) => join(kit.dataDir, 'buffer.db')

function writeSome(kit: Kit): void {
  for (const disk of kit.hypervisor.disksOfVm) {
    const offset = Math.floor(Math.random() * (disk.sizeBytes - 200_000))
    kit.hypervisor.write(disk, offset, randomBytes(200_000))
  }
}

/** A VM of two disks with two deltas waiting in the buffer. */
async function filled(kit: Kit): Promise<Replication> {
  const replication = await kit.start([3 * MIB, 17 * MIB + 1])
  writeSome(kit)
  await synchronize(replication)
  for (let i = 0; i < 2; i++) {
    writeSome(kit)
    expect(await replication.engine.capture(vm, { compress: true })).toMatchObject({ kind: 'sealed' })
  }
  return replication
}

/** What the loops of the agent do, without their pauses. Answers the causes of the synchronizations it took. */
async function goOn(kit: Kit, replication: Replication): Promise<Set<string>> {
  const causes = new Set<string>()
  const { engine } = replication
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      const state = await engine.state(vm)
      if (state?.needsSync) {
        causes.add(state.needsSync)
        expect(state.found?.code).toBe(state.needsSync)
        await synchronize(replication)
      }
      await drainAll(replication)
      writeSome(kit)
      const outcome = await engine.capture(vm, { compress: true })
      if (outcome.kind === 'needs-sync') continue
      expect(outcome.kind).toBe('sealed')
      await drainAll(replication)
      if ((await engine.state(vm))?.needsSync === null) return causes
    } catch (error) {
      expect(error).toBeInstanceOf(HotsiteError)
      expect(error).toMatchObject({ code: expect.stringMatching(/^(buffer|tree)-damaged$|^delta-unknown$/) })
    }
  }
  throw new Error('it does not go on')
}

function expectEqualDisks(kit: Kit, { target }: Replication): void {
  for (const disk of kit.hypervisor.disksOfVm) {
    const bytes = target.disks.get(disk.diskId)?.bytes.subarray(0, disk.sizeBytes)
    expect(bytes?.equals(kit.hypervisor.content(disk)), `${disk.diskId} differs`).toBe(true)
  }
}

function damageRow(kit: Kit, choice: readonly [number, number, number]): string {
  const db = new Database(bufferPath(kit))
  try {
    return damageOnce(db, TABLES, choice)
  } finally {
    db.close()
  }
}

async function nextLife(kit: Kit, replication: Replication): Promise<Replication> {
  const engine = await kit.open()
  await engine.add(sourceVm, 'buffer-lost')
  return { ...replication, engine }
}

describe('one damaged row', () => {
  it.each(['between two lives', 'in the middle of a life'])(
    '%s',
    async (when) => {
      const named = new Set<string>()
      await fc.assert(
        fc.asyncProperty(fc.nat(), fc.nat(), fc.nat(), async (kind, table, row) => {
          await using kit = captureKit()
          let replication = await filled(kit)
          const restarts = when === 'between two lives'
          if (restarts) await replication.engine[Symbol.asyncDispose]()
          const what = damageRow(kit, [kind, table, row])
          if (restarts) replication = await nextLife(kit, replication)
          const causes = await goOn(kit, replication)
          for (const cause of causes) {
            expect(['buffer-damaged', 'tree-damaged'], what).toContain(cause)
            named.add(cause)
          }
          expectEqualDisks(kit, replication)
          expect((await replication.engine.usage()).bufferedBytes, what).toBe(0)
        }),
        { numRuns: 20 },
      )
      expect(named.size).toBeGreaterThan(0)
    },
    300_000,
  )

  it.each([
    ['a delta is gone', 'DELETE FROM deltas WHERE seq = 2', 'buffer-damaged'],
    ['a batch is gone', 'DELETE FROM batches', 'buffer-damaged'],
    ['a payload has rotted', 'UPDATE batches SET payload = zeroblob(length(payload))', 'buffer-damaged'],
    ['a cursor has changed', 'UPDATE vms SET acked_seq = 2', 'buffer-damaged'],
    ['a VM is gone', 'DELETE FROM vms', 'buffer-damaged'],
    ['a disk is gone', "DELETE FROM disks WHERE disk_id = 'disk-1'", 'buffer-damaged'],
    ['the top of a tree is gone', 'DELETE FROM trees', 'tree-damaged'],
    ['leaves are others', 'UPDATE tree_pages SET hashes = zeroblob(32) WHERE level = 0', 'tree-damaged'],
  ])('is found and named: %s', async (_what, sql, cause) => {
    await using kit = captureKit()
    let replication = await filled(kit)
    await replication.engine[Symbol.asyncDispose]()
    const db = new Database(bufferPath(kit))
    db.exec(sql)
    db.close()
    replication = await nextLife(kit, replication)
    expect(await goOn(kit, replication)).toEqual(new Set([cause]))
    expectEqualDisks(kit, replication)
  })

  it('costs only its own VM a synchronization', async () => {
    await using kit = captureKit()
    const replication = await filled(kit)
    const other = { ...sourceVm, vmId: 'vm-2' as typeof vm }
    await replication.engine.add(other, 'initial')
    await synchronize({ ...replication, vmId: other.vmId, target: replication.target.clone() })
    await replication.engine[Symbol.asyncDispose]()
    const db = new Database(bufferPath(kit))
    db.exec("UPDATE vms SET acked_seq = 9 WHERE vm_id = 'vm-1'")
    db.close()
    const { engine } = await nextLife(kit, replication)
    expect(await engine.state(vm)).toMatchObject({ needsSync: 'buffer-damaged' })
    expect(await engine.state(other.vmId)).toMatchObject({ needsSync: null, found: null })
    expect((await engine.state(vm))?.found?.message).toContain('table vms, row vm-1')
  })
})

it('a delta that is being deleted, because a synchronization is due, is not called damaged', async () => {
  await using kit = captureKit()
  let read: (() => void) | undefined
  const crashPoint = (name: string) => {
    if (name === 'garbage.step') read?.()
  }
  const replication = await kit.start([40 * MIB], { crashPoint })
  const { engine } = replication
  await synchronize(replication)
  const [disk] = kit.hypervisor.disksOfVm
  if (!disk) throw new Error('a disk')
  kit.hypervisor.write(disk, 0, randomBytes(disk.sizeBytes))
  expect(await engine.capture(vm, { compress: false })).toMatchObject({ kind: 'sealed' })
  const answers: Promise<unknown>[] = []
  read = () => {
    const request = { vmId: vm, seq: 2, diskId: disk.diskId, batch: 0 }
    answers.push(engine.readBatch(request).catch((error: unknown) => error))
  }
  await engine.requireSync(vm, 'requested')
  read = undefined
  expect(await answers[0]).toMatchObject({ code: 'delta-unknown' })
  expect(await engine.state(vm)).toMatchObject({ needsSync: 'requested', found: null })
})

function flipBit(path: string, at: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  const offset = at % statSync(path).size
  readSync(fd, byte, 0, 1, offset)
  byte[0] = (byte[0] ?? 0) ^ (1 << (at % 8))
  writeSync(fd, byte, 0, 1, offset)
  closeSync(fd)
}

describe('a damaged file', () => {
  const asides = (kit: Kit) => readdirSync(kit.dataDir).filter((name) => /damaged-\d$/.test(name))

  it('with any bit flipped is used only as far as it is right', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.nat({ max: 99 }), fc.nat({ max: 2 ** 31 - 1 })),
        fc.boolean(),
        async (at, restarts) => {
          await using kit = captureKit()
          let replication = await filled(kit)
          if (restarts) await replication.engine[Symbol.asyncDispose]()
          flipBit(bufferPath(kit), at)
          if (restarts) replication = await nextLife(kit, replication)
          const causes = await goOn(kit, replication)
          for (const cause of causes) expect(cause).toMatch(/^(buffer|tree)-damaged$/)
          expectEqualDisks(kit, replication)
        },
      ),
      { numRuns: 25 },
    )
  }, 300_000)

  it.each([
    ['empty', (path: string) => truncateSync(path, 0)],
    ['cut off', (path: string) => truncateSync(path, Math.floor(statSync(path).size / 2))],
    ['overwritten', (path: string) => flipBit(path, 0)],
    ['of an impossible version', (path: string) => flipBit(path, 63)],
  ])('that is %s is set aside, and every VM is compared anew', async (_what, damage) => {
    await using kit = captureKit()
    let replication = await filled(kit)
    await replication.engine[Symbol.asyncDispose]()
    damage(bufferPath(kit))
    replication = await nextLife(kit, replication)
    expect(await replication.engine.state(vm)).toMatchObject({ needsSync: 'buffer-damaged' })
    expect(await goOn(kit, replication)).toEqual(new Set(['buffer-damaged']))
    expectEqualDisks(kit, replication)
    expect(asides(kit)).toEqual(['buffer.db.damaged-1'])
  })

  it('is replaced in the middle of work, sessions and cycles included', async () => {
    await using kit = captureKit()
    const replication = await filled(kit)
    const { engine } = replication
    truncateSync(bufferPath(kit), 0)
    expect(await goOn(kit, replication)).toEqual(new Set(['buffer-damaged']))
    expectEqualDisks(kit, replication)
    await engine.requireSync(vm, 'requested')
    const session = await engine.openSync(vm, { newestSeq: replication.target.seq })
    truncateSync(bufferPath(kit), 4096)
    expect(await engine.state(vm)).toMatchObject({ needsSync: 'buffer-damaged' })
    await expect(session.manifest()).rejects.toMatchObject({ code: 'synchronization-superseded' })
    expect(await goOn(kit, replication)).toEqual(new Set(['buffer-damaged']))
    kit.hypervisor.onRead = () => {
      kit.hypervisor.onRead = () => {}
      truncateSync(bufferPath(kit), 100)
    }
    expect(await engine.capture(vm, { compress: true })).toMatchObject({ kind: 'needs-sync' })
    expect(await goOn(kit, replication)).toEqual(new Set(['buffer-damaged']))
    expectEqualDisks(kit, replication)
    expect(asides(kit), 'they do not pile up').toEqual(['buffer.db.damaged-1', 'buffer.db.damaged-2'])
    expect(existsSync(bufferPath(kit))).toBe(true)
  })

  it('of a newer program is left alone', async () => {
    await using kit = captureKit()
    const replication = await filled(kit)
    await replication.engine[Symbol.asyncDispose]()
    const db = new Database(bufferPath(kit))
    db.pragma('user_version = 99')
    db.exec('DROP TABLE format')
    db.close()
    await expect(kit.open()).rejects.toMatchObject({ code: 'data-version-unknown' })
    expect(asides(kit)).toEqual([])
  })
})
