import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { commandId, jobId, serverId, vaultId, vmId } from '#shared/ids.ts'
import { openSqlite } from '#shared/sqlite.ts'
import { insertEvent, listEvents, pruneEvents } from './events.ts'
import { findActiveJob, findJob, insertJob, listJobs, listSteps, pruneJobs, updateJob } from './jobs.ts'
import { coordinatorMigrations } from './migrations.ts'
import { openStore } from './open.ts'
import { abandonCommands, dueCommands, endCommand, findCommand, putCommand } from './outbox.ts'
import { historyOf, pruneHistory } from './protected-vms.ts'
import { listReports, pruneReports, putReport } from './reports.ts'

let dataDir = ''
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'hotsite-store-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))
const path = () => join(dataDir, 'coordinator.db')

const vault = vaultId.parse('v1')
const vm = vmId.parse('vm1')
const server = serverId.parse('s1')
const command = (id: string, about = vm) => ({
  vaultId: vault,
  commandId: commandId.parse(id),
  serverId: server,
  vmId: about,
  kind: 'replication.pause' as const,
  request: { vmId: about },
})

describe('migrations', () => {
  it('a database of a newer version is refused and left as it was', async () => {
    await openStore(dataDir)[Symbol.asyncDispose]()
    const newer = new Database(path())
    newer.pragma(`user_version = ${coordinatorMigrations.length + 1}`)
    newer.close()
    const before = readFileSync(path())
    expect(() => openStore(dataDir)).toThrowError(expect.objectContaining({ code: 'data-version-unknown' }))
    expect(readFileSync(path()).equals(before)).toBe(true)
  })
  it('one that fails leaves nothing of itself', async () => {
    const broken = { name: 'broken', sql: 'CREATE TABLE half (a TEXT) STRICT; CREATE TABLE half (a TEXT);' }
    const migrations = [...coordinatorMigrations, broken]
    expect(() => openSqlite({ path: path(), migrations, profile: 'control' })).toThrow()
    const db = new Database(path())
    expect(db.pragma('user_version', { simple: true })).toBe(coordinatorMigrations.length)
    expect(db.prepare("SELECT name FROM sqlite_schema WHERE name = 'half'").all()).toEqual([])
    db.close()
    await openStore(dataDir)[Symbol.asyncDispose]()
  })
  it('every table is strict and keyed by its vault', async () => {
    await openStore(dataDir)[Symbol.asyncDispose]()
    const db = new Database(path())
    const tables = db.prepare("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").all() as {
      name: string
      strict: number
    }[]
    for (const { name, strict } of tables.filter((table) => !table.name.startsWith('sqlite_'))) {
      const columns = db.prepare(`SELECT name FROM pragma_table_info('${name}')`).all() as { name: string }[]
      expect([name, strict, columns[0]?.name]).toEqual([name, 1, 'vault_id'])
    }
    expect(tables.length).toBeGreaterThan(10)
    db.close()
  })
})

describe('outbox', () => {
  it('a command is stored once and ends once', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    await putCommand(db, command('c1'), 1)
    await putCommand(db, { ...command('c1'), request: { vmId: vmId.parse('other') } }, 2)
    expect((await findCommand(db, vault, commandId.parse('c1')))?.request).toContain('vm1')
    expect(await endCommand(db, command('c1'), { state: 'done', result: '{}', nowMs: 3 })).toBe(true)
    expect(await endCommand(db, command('c1'), { state: 'failed', error: '{}', nowMs: 4 })).toBe(false)
    expect(await findCommand(db, vault, commandId.parse('c1'))).toMatchObject({ state: 'done', error: null })
  })
  it('a result from another server than the one that was asked does not count', async () => {
    await using store = openStore(dataDir)
    await putCommand(store.db, command('c1'), 1)
    const stranger = { ...command('c1'), serverId: serverId.parse('s2') }
    expect(await endCommand(store.db, stranger, { state: 'done', result: '{}', nowMs: 3 })).toBe(false)
  })
  it('one command of a VM at a time, in order; other VMs do not wait for it', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    for (const [id, about] of [
      ['c1', vm],
      ['c2', vm],
      ['c3', vmId.parse('vm2')],
    ] as const)
      await putCommand(db, command(id, about), 1)
    const due = async () => (await dueCommands(db, vault, server)).map((row) => row.commandId)
    expect(await due()).toEqual(['c1', 'c3'])
    await endCommand(db, command('c1'), { state: 'failed', error: '{}', nowMs: 2 })
    expect(await due()).toEqual(['c2', 'c3'])
  })
  it('giving up one step leaves the commands of the others', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    for (const id of ['job-1:stop:1', 'job-1:stop-vm:1', 'job-10:stop:1'])
      await putCommand(db, command(id, vmId.parse(id.replaceAll(':', '-'))), 1)
    await abandonCommands(db, { vaultId: vault, idPrefix: 'job-1:stop:', nowMs: 2 })
    const open = (await dueCommands(db, vault, server)).map((row) => row.commandId)
    expect(open).toEqual(['job-1:stop-vm:1', 'job-10:stop:1'])
  })
})

describe('jobs', () => {
  const job = (id: string) => ({
    vaultId: vault,
    jobId: jobId.parse(id),
    kind: 'pause',
    vmId: vm,
    vmName: 'shop',
    params: '{}',
    createdAtMs: 1,
  })
  it('the database itself refuses a second active job of a VM', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    await insertJob(db, job('j1'), [{ name: 'a', title: 'A' }])
    await expect(insertJob(db, job('j2'), [])).rejects.toThrow(/UNIQUE/)
    const first = await findJob(db, 'j1')
    if (first) await updateJob(db, first, { state: 'failed', endedAtMs: 2 })
    await insertJob(db, job('j2'), [])
    expect((await findActiveJob(db, vault, vm))?.jobId).toBe('j2')
  })
  it('one that has ended does not run again', async () => {
    await using store = openStore(dataDir)
    await insertJob(store.db, job('j1'), [])
    const first = await findJob(store.db, 'j1')
    if (!first) throw new Error('no job')
    await expect(updateJob(store.db, { ...first, state: 'failed' }, { state: 'running' })).rejects.toThrow(
      /from failed/,
    )
  })
})

describe('events', () => {
  it('the same event is stored once, and the oldest go first', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    const event = (eventId: string) =>
      ({
        vaultId: vault,
        eventId,
        atMs: 1,
        severity: 'info',
        code: 'c',
        message: 'm',
        vmId: null,
        serverId: null,
      }) as const
    expect(await insertEvent(db, event('e1'))).toBe(true)
    expect(await insertEvent(db, event('e1'))).toBe(false)
    for (const id of ['e2', 'e3']) await insertEvent(db, event(id))
    await pruneEvents(db, 2)
    expect((await listEvents(db, 10)).map(({ eventId }) => eventId)).toEqual(['e3', 'e2'])
  })
})

it('reports: ten thousand VMs of one server are kept, no more; the state of a known one is replaced still', async () => {
  await using store = openStore(dataDir)
  const insert = new Database(path())
  const statement = insert.prepare("INSERT INTO reports VALUES ('v1', 's1', 'replica', ?, 0, '{}')")
  insert.transaction(() => {
    for (let index = 0; index < 10_000; index += 1) statement.run(`vm${index}`)
  })()
  insert.close()
  const report = { vmId: vm, epoch: 1, points: [], mergeDebtBytes: 0, diskBytes: 0, proof: [], error: null }
  const put = (subject: string, of = server) =>
    putReport(store.db, 'replica', subject, { vaultId: vault, serverId: of, receivedAtMs: 5, report })
  expect(await put('one-more')).toBe(false)
  expect(await put('vm7')).toBe(true)
  expect(await put('one-more', serverId.parse('s2'))).toBe(true)
  expect(await listReports(store.db, 'replica', 'vm7')).toMatchObject([{ receivedAtMs: 5, report }])
  // None of them is protected: what was not heard of since is forgotten.
  await pruneReports(store.db, 5)
  expect((await listReports(store.db, 'replica')).map(({ serverId: of }) => of).sort()).toEqual(['s1', 's2'])
})

describe('history', () => {
  it('of jobs: the newest stay with their steps, and one that goes on however old it is', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    for (const n of [1, 2, 3, 4]) {
      const id = jobId.parse(`job-${n}`)
      const about = { vmId: vmId.parse(`vm${n}`), vmName: 'shop', params: '{}', createdAtMs: n }
      const steps = [{ name: 'one', title: 'One' }]
      await insertJob(db, { vaultId: vault, jobId: id, kind: 'pause', ...about }, steps)
      const job = await findJob(db, id)
      if (job && n > 1) await updateJob(db, job, { state: 'succeeded', endedAtMs: n })
    }
    const all = await listJobs(db, 10)
    await pruneJobs(db, 2)
    expect((await listJobs(db, 10)).map((job) => job.jobId)).toEqual(['job-4', 'job-3', 'job-1'])
    const steps = await Promise.all(all.map((job) => listSteps(db, job)))
    expect(steps.map((each) => each.length)).toEqual([1, 1, 0, 1])
    await pruneJobs(db, 2)
    expect(await listJobs(db, 10)).toHaveLength(3)
  })
  it('a job that has ended is written no more', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    const id = jobId.parse('job-1')
    const about = { vmId: vm, vmName: 'shop', params: '{}', createdAtMs: 1 }
    await insertJob(db, { vaultId: vault, jobId: id, kind: 'verify', ...about }, [])
    const job = await findJob(db, id)
    if (!job) throw new Error('no job')
    await updateJob(db, job, { state: 'cancelled', endedAtMs: 2 })
    await expect(updateJob(db, job, { state: 'running' })).rejects.toMatchObject({ code: 'state-changed' })
  })
  it('of states: the newest rows stay', async () => {
    await using store = openStore(dataDir)
    const { db } = store
    for (const n of [1, 2, 3])
      await db
        .insertInto('state_history')
        .values({ vault_id: vault, vm_id: vm, at_ms: n, event: `e${n}`, state: '{}', epoch: 1, job_id: null })
        .execute()
    await pruneHistory(db, 2)
    expect((await historyOf(db, vault, vm)).map(({ event }) => event)).toEqual(['e2', 'e3'])
    await pruneHistory(db, 2)
    expect(await historyOf(db, vault, vm)).toHaveLength(2)
  })
})
