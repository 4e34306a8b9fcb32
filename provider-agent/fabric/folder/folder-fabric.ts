import { mkdirSync, rmdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Clock } from '#shared/clock.ts'
import { fsyncFolder } from '#shared/durable-file.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import {
  type FolderVm,
  fencePath,
  findVm,
  guestLogPath,
  heartbeatPath,
  listHosts,
  runPath,
  vmPath,
  vmsDir,
} from '#shared/folder/layout.ts'
import {
  isRunning,
  refuseFenced,
  signalVm,
  startFailure,
  startProgram,
  waitUntilOff,
} from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import type { VmFile } from '#shared/folder/schema.ts'
import {
  disksOf,
  exists,
  readFence,
  readRun,
  removeDurably,
  writeFence,
  writeVm,
} from '#shared/folder/vm-file.ts'
import type { FabricVmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { VmObservation } from '#shared/messages/vm.ts'
import type { Fabric } from '../port.ts'
import { openMachineCapacity } from './capacity.ts'
import { folderNameFor, vmFileOf } from './definition.ts'
import { type InventoryContext, inventorySignature, takeInventory } from './inventory.ts'
import { networksOf, nothingThere, observeVm } from './observe.ts'

/** A change is reported within a second (I8 waits on it); a look costs a few stat calls for each VM. */
const POLL_MS = 500
/** How often a starting or stopping VM is looked at. */
const LOOK_MS = 50
/** A killed process that lives on longer hangs in the kernel. */
const KILL_TIMEOUT_MS = 10_000

export interface FolderFabricOptions {
  readonly root: string
  readonly clock: Clock
  readonly log: Logger
}

export function openFolderFabric(options: FolderFabricOptions): Fabric {
  return new FolderFabric(options)
}

class FolderFabric implements Fabric {
  readonly #root: string
  readonly #clock: Clock
  readonly #table = openProcessTable()
  /** One change of a VM at a time. Waiting for a guest happens outside, so that a fence never queues behind it. */
  readonly #changes = new KeyedLocks<FabricVmId>()
  readonly #context: InventoryContext
  #seen: string | undefined

  constructor({ root, clock, log }: FolderFabricOptions) {
    this.#root = resolve(root)
    this.#clock = clock
    const told = new Set<string>()
    this.#context = {
      root: this.#root,
      table: this.#table,
      clock,
      capacity: openMachineCapacity(),
      onLeftOut: (error) => {
        const { message } = errorDocument(error)
        if (told.has(message)) return
        told.add(message)
        log.warn('VM left out of the inventory', { error })
      },
    }
  }

  async inventory() {
    // Before the look, so that a change during it is seen as one by `changed`.
    this.#seen = inventorySignature(this.#context)
    return takeInventory(this.#context)
  }

  async changed(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const from = this.#seen ?? inventorySignature(this.#context)
    while (inventorySignature(this.#context) === from) await this.#clock.sleep(POLL_MS, signal)
  }

  async observe(id: FabricVmId) {
    return this.#observe(id)
  }

  define(request: CommandRequest<'vm.define'>) {
    return this.#changes.run(request.fabricVmId, async () => {
      const { fabricVmId: id, host, name } = request
      if (!listHosts(this.#root).includes(host)) {
        throw new HotsiteError('host-unknown', `VM ${name} cannot be defined: there is no host ${host}`)
      }
      // Somebody else's broken vm.yaml must not stand in the way of a failover.
      const existing = this.#find(id, true)
      if (existing && existing.host !== host) {
        throw new HotsiteError(
          'vm-on-other-host',
          `VM ${name} (${id}) is defined on host ${existing.host}, not ${host}`,
        )
      }
      const dir = existing?.dir ?? this.#newFolder(host, name, id)
      const file = vmFileOf(request, dir)
      disksOf({ host, dir, file })
      if (existing && sameFile(existing.file, file)) return this.#observe(id)
      if (existing) this.#refuseRunning(existing, 'redefined')
      mkdirSync(dir, { recursive: true })
      // What a removal that was cut short left there belongs to another VM.
      if (!existing) this.#removeTraces(dir)
      fsyncFolder(vmsDir(this.#root, host))
      writeVm(dir, file)
      return this.#observe(id)
    })
  }

  async start(id: FabricVmId, heartbeatTimeoutMs: number, signal: AbortSignal) {
    const deadline = this.#clock.monotonicMs() + heartbeatTimeoutMs
    await this.#changes.run(id, async () => {
      const vm = this.#findOrThrow(id)
      refuseFenced(vm)
      this.#refuseUnreachable(vm)
      if (!isRunning(readRun(vm.dir), this.#table)) await startProgram(vm, this.#table, this.#clock)
    })
    for (;;) {
      const vm = this.#findOrThrow(id)
      const observed = this.#observeFound(vm)
      if (observed.power === 'off') {
        refuseFenced(vm)
        throw startFailure(vm)
      }
      if (observed.heartbeatAgeMs !== null) return observed
      if (this.#clock.monotonicMs() >= deadline) {
        throw new HotsiteError(
          'heartbeat-missing',
          `VM ${vm.file.name} runs on ${vm.host}, but gave no heartbeat within ${heartbeatTimeoutMs} ms`,
          { details: { guestLog: guestLogPath(vm.dir) } },
        )
      }
      await this.#clock.sleep(LOOK_MS, signal)
    }
  }

  async shutDown(id: FabricVmId, timeoutMs: number, signal: AbortSignal) {
    const vm = await this.#changes.run(id, async () => {
      const found = this.#find(id)
      if (found) signalVm(readRun(found.dir), this.#table, 'SIGTERM')
      return found
    })
    if (!vm) return nothingThere
    const { name } = vm.file
    if (!(await waitUntilOff({ vm, table: this.#table, clock: this.#clock, timeoutMs, signal }))) {
      throw new HotsiteError('shutdown-timeout', `VM ${name} is still running after ${timeoutMs} ms`)
    }
    return this.#observe(id)
  }

  stop(id: FabricVmId) {
    return this.#changes.run(id, async () => {
      const vm = this.#find(id)
      if (vm) await this.#powerOff(vm)
      return this.#observe(id)
    })
  }

  remove(id: FabricVmId) {
    return this.#changes.run(id, async () => {
      const vm = this.#find(id)
      if (!vm) return nothingThere
      this.#refuseRunning(vm, 'removed')
      // The definition first: with the fence gone before it, a crash would leave a VM that can be started.
      removeDurably(vmPath(vm.dir))
      this.#removeTraces(vm.dir)
      removeIfEmpty(vm.dir)
      return this.#observe(id)
    })
  }

  /** A process has no display. */
  async screenshot() {
    return null
  }

  fence(id: FabricVmId, epoch: number, reason: string) {
    return this.#changes.run(id, async () => {
      const vm = this.#find(id)
      if (!vm) return nothingThere
      const present = readFence(vm.dir)
      if (!present || present.epoch < epoch) writeFence(vm.dir, { epoch, reason })
      await this.#powerOff(vm)
      return this.#observe(id)
    })
  }

  unfence(id: FabricVmId) {
    return this.#changes.run(id, async () => {
      const vm = this.#find(id)
      if (vm) removeDurably(fencePath(vm.dir))
      return this.#observe(id)
    })
  }

  #find(id: FabricVmId, despiteBroken = false): FolderVm | undefined {
    return findVm({ root: this.#root, hosts: listHosts(this.#root), id, despiteBroken })
  }

  #findOrThrow(id: FabricVmId): FolderVm {
    const vm = this.#find(id)
    if (!vm) throw new HotsiteError('vm-unknown', `there is no VM with the id ${id}`)
    return vm
  }

  #observe(id: FabricVmId): VmObservation {
    const vm = this.#find(id)
    return vm ? this.#observeFound(vm) : nothingThere
  }

  #observeFound(vm: FolderVm): VmObservation {
    return observeVm({ root: this.#root, vm, table: this.#table, clock: this.#clock })
  }

  async #powerOff(vm: FolderVm): Promise<void> {
    signalVm(readRun(vm.dir), this.#table, 'SIGKILL')
    const off = await waitUntilOff({
      vm,
      table: this.#table,
      clock: this.#clock,
      timeoutMs: KILL_TIMEOUT_MS,
    })
    if (!off) {
      throw new HotsiteError(
        'vm-stop-failed',
        `VM ${vm.file.name} (process group ${readRun(vm.dir)?.pid}) still lives ${KILL_TIMEOUT_MS} ms after it was killed`,
      )
    }
  }

  #refuseRunning(vm: FolderVm, what: string): void {
    if (!isRunning(readRun(vm.dir), this.#table)) return
    throw new HotsiteError('vm-running', `VM ${vm.file.name} is running and cannot be ${what}`)
  }

  #refuseUnreachable(vm: FolderVm): void {
    const networks = networksOf(this.#root, vm.host)
    for (const { name, network } of vm.file.nics) {
      if (network === null || networks.includes(network)) continue
      throw new HotsiteError(
        'network-unreachable',
        `NIC ${name} of VM ${vm.file.name} is on the network ${network}, which host ${vm.host} does not reach`,
      )
    }
  }

  /** Named after the VM; with its id where that folder belongs to another one, or to what still runs of one. */
  #newFolder(host: string, name: string, id: FabricVmId): string {
    const plain = join(vmsDir(this.#root, host), folderNameFor(name))
    return exists(vmPath(plain)) || isRunning(readRun(plain), this.#table)
      ? join(vmsDir(this.#root, host), folderNameFor(`${name.slice(0, 20)}-${id}`))
      : plain
  }

  #removeTraces(dir: string): void {
    for (const path of [runPath(dir), heartbeatPath(dir), guestLogPath(dir), fencePath(dir)]) {
      removeDurably(path)
    }
  }
}

const sameFile = (a: VmFile, b: VmFile) => JSON.stringify(a) === JSON.stringify(b)

/** Disks in the folder stay with whoever made them. */
function removeIfEmpty(dir: string): void {
  try {
    rmdirSync(dir)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error
  }
}
