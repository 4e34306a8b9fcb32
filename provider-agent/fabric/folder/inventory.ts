import { statSync } from 'node:fs'
import type { Clock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import {
  type FolderVm,
  fabricPath,
  fencePath,
  hostDir,
  hostPath,
  listHosts,
  listVms,
  readFabric,
  readHost,
  runPath,
  vmPath,
} from '#shared/folder/layout.ts'
import { heartbeatAgeMs, isRunning } from '#shared/folder/process.ts'
import type { ProcessTable } from '#shared/folder/process-table.ts'
import { disksOf, readRun } from '#shared/folder/vm-file.ts'
import type { FabricInventory } from '../port.ts'
import { freeDiskBytes, type HostCapacity } from './capacity.ts'
import { networksOf, observeVm } from './observe.ts'

export interface InventoryContext {
  readonly root: string
  readonly table: ProcessTable
  readonly clock: Clock
  readonly capacity: () => Promise<HostCapacity>
  /** A VM that cannot be read is left out; whoever runs us learns why. */
  readonly onLeftOut: (error: unknown) => void
}

export async function takeInventory(context: InventoryContext): Promise<FabricInventory> {
  const { root } = context
  const fabric = readFabric(root)
  const machine = await context.capacity()
  const hosts = listHosts(root)
  const vms = hosts.flatMap((host) => listVms(root, host, context.onLeftOut))
  return {
    vmmServer: fabric.vmmServer,
    vmmVersion: fabric.version,
    clouds: fabric.clouds.map(({ name, hosts: named }) => ({
      name,
      hosts: named.filter((host) => hosts.includes(host)),
    })),
    hosts: hosts.map((host) => {
      const file = readHost(root, host)
      return {
        name: host,
        memoryBytes: file.memoryBytes ?? machine.memoryBytes,
        cpuCount: file.cpuCount ?? machine.cpuCount,
        freeDiskBytes: freeDiskBytes(hostDir(root, host)),
        networks: networksOf(root, host),
        classifications: file.classifications ?? fabric.classifications.map(({ name }) => name),
      }
    }),
    networks: fabric.networks,
    classifications: fabric.classifications,
    // Its VMs are processes that are stopped for the instant; nothing in them is asked.
    quiescesGuests: false,
    vms: vms.flatMap((vm) => {
      try {
        const cloud = fabric.clouds.find(({ hosts: named }) => named.includes(vm.host))
        return [describeVm(context, vm, cloud?.name ?? null)]
      } catch (error) {
        context.onLeftOut(error)
        return []
      }
    }),
  }
}

function describeVm(
  { root, table, clock }: InventoryContext,
  vm: FolderVm,
  cloud: string | null,
): FabricInventory['vms'][number] {
  const { file } = vm
  return {
    fabricVmId: file.id,
    name: file.name,
    host: vm.host,
    generation: file.generation,
    operatingSystem: file.operatingSystem,
    memoryBytes: file.memoryBytes,
    cpuCount: file.cpuCount,
    disks: disksOf(vm).map(({ diskId, name, sizeBytes, boot }) => ({ diskId, name, sizeBytes, boot })),
    nics: file.nics,
    classification: file.classification,
    driverSettings: { command: file.command },
    cloud,
    observation: observeVm({ root, vm, table, clock }),
  }
}

/**
 * A text that differs when the inventory does. Polled rather than watched: a watch on the folder of a running VM
 * reports each write to its disks, thousands a second.
 */
export function inventorySignature({ root, table, clock }: InventoryContext): string {
  const parts = [stampOf(fabricPath(root))]
  for (const host of listHosts(root)) {
    parts.push(host, stampOf(hostPath(root, host)))
    const broken: string[] = []
    for (const vm of listVms(root, host, (error) => broken.push(errorDocument(error).message))) {
      const running = isRunning(readRun(vm.dir), table)
      parts.push(
        vm.dir,
        ...[vmPath(vm.dir), runPath(vm.dir), fencePath(vm.dir)].map(stampOf),
        String(running),
        String(running && heartbeatAgeMs(vm, clock.now()) !== null),
      )
    }
    parts.push(...broken)
  }
  return parts.join('\n')
}

function stampOf(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats ? `${stats.ino} ${stats.mtimeMs} ${stats.size}` : '-'
}
