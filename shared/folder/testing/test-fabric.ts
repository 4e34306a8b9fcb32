/** Folder fabrics for tests: real folders, real processes. */
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { type Clock, systemClock } from '../../clock.ts'
import { writeFileDurably } from '../../durable-file.ts'
import { diskId, type FabricVmId, fabricVmId } from '../../ids.ts'
import { type FolderVm, fabricPath, hostDir, hostPath, listHosts, listVms, vmsDir } from '../layout.ts'
import { isRunning, signalVm, startProgram, waitUntilOff } from '../process.ts'
import { openProcessTable, type ProcessTable } from '../process-table.ts'
import type { FabricFile, HostFile, VmFile } from '../schema.ts'
import { readRun, writeVm } from '../vm-file.ts'

/** Offset of the counter that the guest writes, 8 bytes little-endian: n on disk 0, then n on disk 1. */
export const COUNTER_OFFSET_BYTES = 65_536

/** As fast as it can, and without a handler, so that SIGTERM ends it at once. */
const COUNTING_GUEST = `
const fs = require('node:fs')
const disks = JSON.parse(process.env.HOTSITE_VM_DISKS).map((disk) => fs.openSync(disk.path, 'r+'))
const cell = Buffer.alloc(8)
fs.readSync(disks.at(-1), cell, 0, 8, ${COUNTER_OFFSET_BYTES})
let n = cell.readBigUInt64LE(), beatAtMs = 0
for (;;) {
  cell.writeBigUInt64LE(++n)
  for (const fd of disks) fs.writeSync(fd, cell, 0, 8, ${COUNTER_OFFSET_BYTES})
  if (Date.now() - beatAtMs > 50) fs.writeFileSync(process.env.HOTSITE_VM_HEARTBEAT, String((beatAtMs = Date.now())))
}
`
export const countingGuest = [process.execPath, '-e', COUNTING_GUEST]

export interface TestVm {
  readonly host?: string
  readonly name: string
  readonly diskBytes?: readonly number[]
  readonly command?: readonly string[]
  readonly file?: Partial<VmFile>
}

export interface TestFabric extends AsyncDisposable {
  readonly root: string
  readonly clock: Clock
  readonly table: ProcessTable
  addHost(host: string, file?: HostFile): void
  addVm(vm: TestVm): FolderVm
  /** As it is now. */
  vm(id: FabricVmId): FolderVm
  start(vm: FolderVm): Promise<void>
  kill(vm: FolderVm): Promise<void>
}

export function makeTestFabric(fabric: Partial<FabricFile> = {}): TestFabric {
  const root = mkdtempSync(join(tmpdir(), 'hotsite-fabric-'))
  const table = openProcessTable()
  const clock = systemClock
  writeFileDurably(fabricPath(root), stringify({ vmmServer: 'vmm1', ...fabric }))
  const addHost = (host: string, file?: HostFile) => {
    mkdirSync(vmsDir(root, host), { recursive: true })
    if (file) writeFileDurably(hostPath(root, host), stringify(file))
  }
  const all = () => listHosts(root).flatMap((host) => listVms(root, host, () => {}))
  const kill = async (vm: FolderVm) => {
    signalVm(readRun(vm.dir), table, 'SIGKILL')
    if (!(await waitUntilOff({ vm, table, clock, timeoutMs: 10_000 })))
      throw new Error(`${vm.dir} does not end`)
  }
  return {
    root,
    clock,
    table,
    addHost,
    addVm(spec) {
      const host = spec.host ?? 'host1'
      addHost(host)
      const dir = join(hostDir(root, host), 'vms', spec.name)
      mkdirSync(dir)
      const disks = (spec.diskBytes ?? [1024 * 1024, 1024 * 1024]).map((sizeBytes, index) => {
        const fd = openSync(join(dir, `disk${index}.img`), 'wx')
        ftruncateSync(fd, sizeBytes)
        closeSync(fd)
        return {
          id: diskId.parse(`d${index}`),
          name: `disk ${index}`,
          file: `disk${index}.img`,
          boot: index === 0,
        }
      })
      const file: VmFile = {
        id: fabricVmId.parse(`id-${spec.name}`),
        name: spec.name,
        generation: 1,
        operatingSystem: 'test',
        memoryBytes: 0,
        cpuCount: 1,
        disks,
        nics: [],
        classification: null,
        command: [...(spec.command ?? countingGuest)],
        ...spec.file,
      }
      writeVm(dir, file)
      return { host, dir, file }
    },
    vm(id) {
      const found = all().find((vm) => vm.file.id === id)
      if (!found) throw new Error(`no VM ${id}`)
      return found
    },
    async start(vm) {
      await startProgram(vm, table, clock)
    },
    kill,
    async [Symbol.asyncDispose]() {
      for (const vm of all()) if (isRunning(readRun(vm.dir), table)) await kill(vm)
      rmSync(root, { recursive: true, force: true })
    },
  }
}

export function counterOf(vm: FolderVm, diskIndex: number): number {
  const disk = vm.file.disks[diskIndex]
  if (!disk) throw new Error(`no disk ${diskIndex}`)
  return Number(readFileSync(join(vm.dir, disk.file)).readBigUInt64LE(COUNTER_OFFSET_BYTES))
}

/** Waits for a condition, never for a time; throws after 10 s. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = systemClock.monotonicMs() + 10_000
  while (!(await holds())) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`still not: ${what}`)
    await systemClock.sleep(5)
  }
}
