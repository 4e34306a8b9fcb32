import { type Dirent, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { loadConfig } from '../config.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { FabricVmId } from '../ids.ts'
import { type FabricFile, fabricFile, type HostFile, hostFile, type VmFile, vmFile } from './schema.ts'

export const fabricPath = (root: string) => join(root, 'fabric.yaml')
export const hostsDir = (root: string) => join(root, 'hosts')
export const hostDir = (root: string, host: string) => join(root, 'hosts', host)
export const hostPath = (root: string, host: string) => join(hostDir(root, host), 'host.yaml')
export const vmsDir = (root: string, host: string) => join(hostDir(root, host), 'vms')
export const vmPath = (vmDir: string) => join(vmDir, 'vm.yaml')
export const runPath = (vmDir: string) => join(vmDir, 'run.json')
export const fencePath = (vmDir: string) => join(vmDir, 'fenced.json')
export const heartbeatPath = (vmDir: string) => join(vmDir, 'heartbeat')
export const guestLogPath = (vmDir: string) => join(vmDir, 'guest.log')

/** A VM where it was found. `dir` is absolute. */
export interface FolderVm {
  readonly host: string
  readonly dir: string
  readonly file: VmFile
}

export function readFabric(root: string): FabricFile {
  return loadConfig(fabricPath(root), fabricFile)
}

export function listHosts(root: string): string[] {
  return listFolders(hostsDir(root))
}

/** An absent host.yaml says nothing, which is allowed; the folder itself makes the host. */
export function readHost(root: string, host: string): HostFile {
  return entriesOf(hostDir(root, host)).some((entry) => entry.name === 'host.yaml')
    ? loadConfig(hostPath(root, host), hostFile)
    : {}
}

/** `onBroken` learns of a vm.yaml that cannot be read; the other VMs are listed all the same. */
export function listVms(root: string, host: string, onBroken: (error: unknown) => void): FolderVm[] {
  const vms: FolderVm[] = []
  for (const name of listFolders(vmsDir(root, host))) {
    const dir = resolve(vmsDir(root, host), name)
    try {
      if (!entriesOf(dir).some((entry) => entry.name === 'vm.yaml')) continue
      vms.push({ host, dir, file: loadConfig(vmPath(dir), vmFile) })
    } catch (error) {
      onBroken(error)
    }
  }
  return vms
}

/** Looks on the given hosts. Throws `vm-ambiguous` when two folders carry the id. */
export function findVm(request: {
  root: string
  hosts: readonly string[]
  id: FabricVmId
  /** Not found, and a vm.yaml is broken, which may be the one: an error by default. */
  despiteBroken?: boolean
}): FolderVm | undefined {
  const broken: unknown[] = []
  const found = request.hosts
    .flatMap((host) => listVms(request.root, host, (error) => broken.push(error)))
    .filter((vm) => vm.file.id === request.id)
  if (found.length > 1) {
    throw new HotsiteError(
      'vm-ambiguous',
      `the VM id ${request.id} is used by ${found.map((vm) => vmPath(vm.dir)).join(' and ')}`,
    )
  }
  if (found.length === 0 && broken.length > 0 && !request.despiteBroken) throw broken[0]
  return found[0]
}

function listFolders(dir: string): string[] {
  return entriesOf(dir)
    .filter((entry) => (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.startsWith('.'))
    .map((entry) => entry.name)
    .sort()
}

function entriesOf(dir: string): Dirent[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw error
  }
}
