import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { eventually } from '#shared/channel/testing.ts'
import { systemClock } from '#shared/clock.ts'
import { silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { startCoordinator } from '../coordinator.ts'
import { pruneBackups, takeBackup } from './backup.ts'
import { isSchedule, scheduleBackups } from './schedule.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-backup-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const loopback = { host: '127.0.0.1', port: 0 }
const start = (dataDir: string) =>
  startCoordinator({
    config: { dataDir, listen: loopback, registration: loopback },
    clock: systemClock,
    rng: systemRng,
    log: silentLog,
  })

it('a coordinator started on a backup has the vault, its key and the certificate that servers pinned', async () => {
  const dataDir = join(dir, 'data')
  await using coordinator = await start(dataDir)
  const vault = await coordinator.service.createVault({ name: 'main', region: 'here', subscription: 'test' })
  const folder = await takeBackup({
    dataDir,
    backupDir: join(dir, 'backups'),
    nowMs: Date.UTC(2026, 10, 22, 2, 30),
  })
  // What comes after the backup is not in it.
  await coordinator.service.createVault({ name: 'later', region: 'here', subscription: 'test' })

  await using restored = await start(folder)
  expect((await restored.service.listVaults()).map(({ name }) => name)).toEqual(['main'])
  expect((await restored.service.showVault('main')).publicKeyBase64).toBe(vault.publicKeyBase64)
  expect((await restored.service.regenerateKey('main')).keyGeneration).toBe(vault.keyGeneration + 1)
  expect(restored.certificatePem).toBe(coordinator.certificatePem)
  expect(statSync(folder).mode & 0o077).toBe(0)
})

it('keeps the newest ones, sweeps interrupted ones and touches nothing else', async () => {
  for (const name of [
    'coordinator-20261120T023000Z',
    'coordinator-20261121T023000Z',
    'coordinator-20261122T023000Z',
  ])
    mkdirSync(join(dir, name))
  mkdirSync(join(dir, 'coordinator-20261123T023000Z.unfinished'))
  writeFileSync(join(dir, 'notes.txt'), 'mine')
  pruneBackups(dir, 2)
  expect(readdirSync(dir).sort()).toEqual([
    'coordinator-20261121T023000Z',
    'coordinator-20261122T023000Z',
    'notes.txt',
  ])
})

it('a backup that fails leaves no half of one', async () => {
  await expect(
    takeBackup({ dataDir: join(dir, 'nowhere'), backupDir: join(dir, 'backups'), nowMs: 0 }),
  ).rejects.toThrow()
  expect(readdirSync(join(dir, 'backups'))).toEqual([])
})

it('runs on the calendar and stops with its owner', async () => {
  const dataDir = join(dir, 'data')
  await using _coordinator = await start(dataDir)
  const backupDir = join(dir, 'backups')
  // Six fields: node-cron takes seconds, so the test need not wait for a minute.
  await using _schedule = scheduleBackups({
    config: { enabled: true, schedule: '* * * * * *', keep: 1, dir: backupDir },
    dataDir,
    clock: systemClock,
    log: silentLog,
  })
  await eventually(
    () => readdirSync(dir).includes('backups') && readdirSync(backupDir).some((name) => name.endsWith('Z')),
    'a backup',
  )
})

it('knows a schedule from a wish', () => {
  expect(isSchedule('30 2 * * *')).toBe(true)
  expect(isSchedule('every night')).toBe(false)
})
