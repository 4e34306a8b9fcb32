/** The folder fabric of a benchmark: one host with VMs that are off, and a pair of agents for it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { vmsDir } from '#shared/folder/layout.ts'
import { writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { type AgentPair, startAgentPair } from '../agent-kit/agent-pair.ts'

const host = 'source-host'

const vmFolder = (dir: string, vm: string) => join(vmsDir(join(dir, 'fabric'), host), vm)

export const diskPath = (dir: string, vm: string, disk: string): string =>
  join(vmFolder(dir, vm), `${disk}.img`)

/** `vms`: the names of their folders. */
export function makeFabric(dir: string, vms: readonly string[]): void {
  for (const vm of vms) mkdirSync(vmFolder(dir, vm), { recursive: true })
  writeFileSync(join(dir, 'fabric', 'fabric.yaml'), 'vmmServer: bench\n')
}

/** The images are the caller's. */
export function describeVm(
  dir: string,
  { folder, id, disks }: { folder: string; id: string; disks: readonly string[] },
): void {
  writeVm(vmFolder(dir, folder), {
    id: fabricVmId.parse(id),
    name: folder,
    generation: 1,
    operatingSystem: '',
    memoryBytes: 0,
    cpuCount: 1,
    disks: disks.map((disk, index) => ({
      id: diskId.parse(disk),
      name: disk,
      file: `${disk}.img`,
      boot: index === 0,
    })),
    nics: [],
    classification: null,
    command: ['true'],
  })
}

export function startBenchPair(dir: string): Promise<AgentPair> {
  return startAgentPair({
    dir: join(dir, 'agents'),
    fabricRoot: join(dir, 'fabric'),
    sourceHost: host,
    targetHost: 'target-host',
  })
}
