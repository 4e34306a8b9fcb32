import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock } from '#shared/clock.ts'
import { type FolderVm, listHosts, listVms, vmsDir } from '#shared/folder/layout.ts'
import { isRunning, signalVm, startProgram, waitUntilOff } from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import { readRun, writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { makeDisks } from '../workload/make-disks.ts'
import { allSites, type LabLayout, sites } from './layout.ts'

/** The VM everything is about, at first on the host of site A. */
export const guestName = 'app-1'

const program = fileURLToPath(new URL('../workload/order-writer.ts', import.meta.url))
const firstHost = 'host-a1'

/** Two disks with real content and a program that keeps an order across them. */
export function createGuest(layout: LabLayout, diskMiB: number): void {
  const dir = join(vmsDir(layout.fabricRoot('site-a'), firstHost), guestName)
  mkdirSync(dir, { recursive: true })
  const sizeBytes = diskMiB * 1024 * 1024
  const [disk0, disk1] = makeDisks({ dir, count: 2, sizeBytes, dataBytes: sizeBytes / 4, seed: 1 }).map(
    (path) => basename(path),
  )
  if (disk0 === undefined || disk1 === undefined) throw new Error('two disks were to be made')
  writeVm(dir, {
    id: fabricVmId.parse(randomUUID()),
    name: guestName,
    generation: 2,
    operatingSystem: 'order-writer',
    memoryBytes: 64 * 1024 * 1024,
    cpuCount: 1,
    disks: [
      { id: diskId.parse('disk0'), name: 'system', file: disk0, boot: true },
      { id: diskId.parse('disk1'), name: 'data', file: disk1, boot: false },
    ],
    nics: [{ name: 'eth0', network: sites['site-a'].network }],
    classification: 'standard',
    command: [process.execPath, program],
  })
}

/** Every VM of both sites as its folder says, replicas and test VMs among them. */
export function guestDirs(layout: LabLayout): readonly FolderVm[] {
  return allSites.flatMap((site) => {
    const root = layout.fabricRoot(site.name)
    return existsSync(root) ? listHosts(root).flatMap((host) => listVms(root, host, () => {})) : []
  })
}

export function findGuest(layout: LabLayout, host: string, name: string): FolderVm {
  const vm = guestDirs(layout).find((candidate) => candidate.host === host && candidate.file.name === name)
  if (!vm) throw new Error(`there is no VM ${name} on ${host}`)
  return vm
}

export function isGuestRunning(vm: FolderVm): boolean {
  return isRunning(readRun(vm.dir), openProcessTable())
}

export async function startGuest(layout: LabLayout): Promise<void> {
  const vm = findGuest(layout, firstHost, guestName)
  const table = openProcessTable()
  if (!isRunning(readRun(vm.dir), table)) await startProgram(vm, table, systemClock)
}

/** The VMs of these folders, which ran when the lab was taken down. */
export async function startGuestsAgain(layout: LabLayout, dirs: readonly string[]): Promise<void> {
  const table = openProcessTable()
  for (const vm of guestDirs(layout)) {
    if (dirs.includes(vm.dir) && !isRunning(readRun(vm.dir), table))
      await startProgram(vm, table, systemClock)
  }
}

/** Powers it off, the way a power cut does. */
export async function killGuest(vm: FolderVm): Promise<void> {
  const table = openProcessTable()
  signalVm(readRun(vm.dir), table, 'SIGKILL')
  await waitUntilOff({ vm, table, clock: systemClock, timeoutMs: 5_000 })
}

export async function stopGuest(vm: FolderVm): Promise<void> {
  const table = openProcessTable()
  signalVm(readRun(vm.dir), table, 'SIGTERM')
  if (!(await waitUntilOff({ vm, table, clock: systemClock, timeoutMs: 5_000 }))) await killGuest(vm)
}
