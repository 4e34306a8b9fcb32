import type { Clock } from '#shared/clock.ts'
import { type FolderVm, readFabric, readHost } from '#shared/folder/layout.ts'
import { heartbeatAgeMs, isRunning } from '#shared/folder/process.ts'
import type { ProcessTable } from '#shared/folder/process-table.ts'
import { readFence, readRun } from '#shared/folder/vm-file.ts'
import type { VmObservation } from '#shared/messages/vm.ts'

export const nothingThere: VmObservation = {
  exists: false,
  power: 'off',
  heartbeatAgeMs: null,
  nics: [],
  fenced: false,
}

/** Networks of the fabric that the host reaches. */
export function networksOf(root: string, host: string): string[] {
  const known = readFabric(root).networks.map((network) => network.name)
  const reached = readHost(root, host).networks
  return reached ? known.filter((name) => reached.includes(name)) : known
}

export function observeVm(request: {
  root: string
  vm: FolderVm
  table: ProcessTable
  clock: Clock
}): VmObservation {
  const { root, vm, table, clock } = request
  const running = isRunning(readRun(vm.dir), table)
  const networks = networksOf(root, vm.host)
  return {
    exists: true,
    power: running ? 'running' : 'off',
    heartbeatAgeMs: running ? heartbeatAgeMs(vm, clock.now()) : null,
    // As connected: a network out of reach connects to nothing, whatever vm.yaml says.
    nics: vm.file.nics.map(({ name, network }) => ({
      name,
      network: network !== null && networks.includes(network) ? network : null,
    })),
    fenced: readFence(vm.dir) !== undefined,
  }
}
