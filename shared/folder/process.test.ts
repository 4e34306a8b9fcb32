import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { defined } from '../assert.ts'
import { type FolderVm, heartbeatPath, runPath } from './layout.ts'
import { heartbeatAgeMs, isRunning, membersOf, signalVm, startProgram, waitUntilOff } from './process.ts'
import { openProcessTable, parseStat } from './process-table.ts'
import { makeTestFabric, type TestFabric, until } from './testing/test-fabric.ts'
import { readRun, writeFence, writeRun } from './vm-file.ts'

describe('processes of a VM', () => {
  let fabric: TestFabric
  let vm: FolderVm
  beforeEach(() => {
    fabric = makeTestFabric()
    vm = fabric.addVm({ name: 'vm' })
  })
  afterEach(() => fabric[Symbol.asyncDispose]())
  const run = () => defined(readRun(vm.dir), 'run.json')

  test('the starter killed before run.json is there: the program never runs', async () => {
    const marker = join(vm.dir, 'ran')
    const held = fabric.addVm({ name: 'held', command: ['touch', marker] })
    const starter = spawn(process.execPath, [
      '--input-type=module',
      '-e',
      `
      import { writeSync } from 'node:fs'
      import { systemClock } from '#shared/clock.ts'
      import { startProgram } from '#shared/folder/process.ts'
      import { openProcessTable } from '#shared/folder/process-table.ts'
      const find = (pid) => {
        writeSync(1, String(pid))
        process.kill(process.pid, 'SIGKILL')
      }
      await startProgram(${JSON.stringify(held)}, { ...openProcessTable(), find }, systemClock)
      `,
    ])
    const [pid] = await once(starter.stdout, 'data')
    await until('the held child is gone', () => (fabric.table.find(Number(pid))?.state ?? 'dead') === 'dead')
    expect(existsSync(marker)).toBe(false)
    expect(existsSync(runPath(held.dir))).toBe(false)
    await startProgram(held, fabric.table, fabric.clock)
    await until('released, it runs', () => existsSync(marker))
  })

  test('a pid of another start time, or of another boot, is another process', async () => {
    await startProgram(vm, fabric.table, fabric.clock)
    const own = run()
    expect(isRunning(own, fabric.table)).toBe(true)
    for (const other of [
      { ...own, startTicks: own.startTicks + 1 },
      { ...own, startTicks: own.startTicks - 1 },
      { ...own, bootId: 'another boot' },
    ]) {
      expect(isRunning(other, fabric.table)).toBe(false)
      expect(membersOf(other, fabric.table)).toEqual([])
      signalVm(other, fabric.table, 'SIGKILL')
    }
    expect(isRunning(own, fabric.table)).toBe(true)
  })

  test('a fence stops the start, and a stale heartbeat is not taken for one of this run', async () => {
    writeFileSync(heartbeatPath(vm.dir), 'old')
    writeFence(vm.dir, { epoch: 3, reason: 'elsewhere' })
    await expect(startProgram(vm, fabric.table, fabric.clock)).rejects.toMatchObject({ code: 'vm-fenced' })
    expect(existsSync(runPath(vm.dir))).toBe(false)
    rmSync(join(vm.dir, 'fenced.json'))
    const silent = fabric.addVm({ name: 'silent', command: ['sleep', '60'] })
    writeFileSync(heartbeatPath(silent.dir), 'old')
    await startProgram(silent, fabric.table, fabric.clock)
    expect(heartbeatAgeMs(silent, fabric.clock.now())).toBeNull()
  })

  test('a clock that was set back does not make a heartbeat younger than now', async () => {
    writeFileSync(heartbeatPath(vm.dir), 'x')
    expect(heartbeatAgeMs(vm, 0)).toBe(0)
    expect(heartbeatAgeMs(vm, fabric.clock.now() + 5_000)).toBeGreaterThanOrEqual(5_000)
  })

  test('a VM suspended by a snapshot can be killed', async () => {
    await startProgram(vm, fabric.table, fabric.clock)
    signalVm(run(), fabric.table, 'SIGSTOP')
    await until('stopped', () => membersOf(run(), fabric.table).every(({ state }) => state === 'stopped'))
    signalVm(run(), fabric.table, 'SIGKILL')
    const request = { vm, table: fabric.table, clock: fabric.clock, timeoutMs: 5_000 }
    expect(await waitUntilOff(request)).toBe(true)
  })

  test('stillness: none while it runs, the same while it stands, another once it ran in between', async () => {
    await startProgram(vm, fabric.table, fabric.clock)
    const { pid } = run()
    expect(fabric.table.stillness(pid)).toBeUndefined()
    signalVm(run(), fabric.table, 'SIGSTOP')
    await until('at rest', () => fabric.table.stillness(pid) !== undefined)
    const before = fabric.table.stillness(pid)
    expect(fabric.table.stillness(pid)).toBe(before)
    signalVm(run(), fabric.table, 'SIGCONT')
    signalVm(run(), fabric.table, 'SIGSTOP')
    await until('at rest again', () => fabric.table.stillness(pid) !== undefined)
    expect(fabric.table.stillness(pid)).not.toBe(before)
  })

  test('the table by ps, for systems without /proc, sees the same', async () => {
    await startProgram(vm, fabric.table, fabric.clock)
    const table = openProcessTable('darwin')
    const { pid } = run()
    expect(table.find(pid)).toMatchObject({ pid, groupId: pid, state: 'active' })
    expect(table.members(pid).map((entry) => entry.pid)).toEqual([pid])
    expect(defined(table.find(pid), 'entry').startTicks).toBeGreaterThan(1_600_000_000)
    signalVm(run(), fabric.table, 'SIGSTOP')
    await until('stopped', () => table.stillness(pid) !== undefined)
    expect(table.find(1_999_999_999)).toBeUndefined()
  })

  test('a damaged run.json is named, not taken for "off"', () => {
    writeRun(vm.dir, { pid: 1, startTicks: 1, bootId: 'x', startedAtMs: 1 })
    for (const text of ['{"pid": 1', '{"pid": -4}']) {
      writeFileSync(runPath(vm.dir), text)
      expect(() => readRun(vm.dir)).toThrowError(
        expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining('run.json') }),
      )
    }
    rmSync(runPath(vm.dir))
  })
})

test('a process name with spaces and parentheses does not shift the fields', () => {
  const own = readFileSync('/proc/self/stat', 'utf8')
  const odd = own.replace(/\(.*\)/, '(a) b) S 1 (c)')
  expect(parseStat(7, odd)).toEqual(parseStat(7, own))
})
