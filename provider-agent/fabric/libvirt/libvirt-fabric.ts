/** VMs of hosts under libvirt. Everything is looked up there each time: nothing about a VM is kept beside its definition. */
import type { Clock } from '#shared/clock.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { FabricVmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import { domainUuid } from '#shared/libvirt/domain-uuid.ts'
import type { DomainMetadata } from '#shared/libvirt/metadata.ts'
import { openVirsh, type Virsh } from '#shared/libvirt/virsh.ts'
import { child, parseXml, textOf, xmlText } from '#shared/libvirt/xml.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { VmObservation } from '#shared/messages/vm.ts'
import type { Fabric } from '../port.ts'
import { FabricInventoryTaker } from './all-hosts.ts'
import type { LibvirtFabricConfig } from './config.ts'
import { type Definition, defineDomain, requestHash, setFence } from './define-domain.ts'
import { DomainFinder, domainOn, type FoundDomain, type LibvirtHost, networksOf, openHosts } from './hosts.ts'
import { reaches } from './networks.ts'
import { nothingThere, observeDomain } from './observe.ts'
import { takeScreenshot } from './screenshot.ts'
import { SignsOfLife } from './signs-of-life.ts'

/** libvirt itself waits 30 s for a domain that another job holds. */
const VIRSH_TIMEOUT_MS = 90_000
/** How often a starting or stopping VM is looked at; a look starts a program. */
const LOOK_MS = 250
/** A guest that is booting ignores the button; it is pressed again. */
const SHUTDOWN_AGAIN_MS = 10_000

export interface LibvirtFabricOptions {
  readonly config: LibvirtFabricConfig
  readonly clock: Clock
  readonly log: Logger
  readonly openVirsh?: (uri: string) => Virsh
}

/** Throws `config-invalid`. */
export function openLibvirtFabric(options: LibvirtFabricOptions): Fabric {
  return new LibvirtFabric(options)
}

class LibvirtFabric implements Fabric {
  readonly #clock: Clock
  readonly #hosts: ReadonlyMap<string, LibvirtHost>
  readonly #finder: DomainFinder
  readonly #signs: SignsOfLife
  readonly #inventory: FabricInventoryTaker
  /** One change of a VM at a time. Waiting for a guest happens outside, so that a fence never queues behind it. */
  readonly #changes = new KeyedLocks<FabricVmId>()

  constructor({ config, clock, log, openVirsh: open }: LibvirtFabricOptions) {
    this.#clock = clock
    this.#hosts = openHosts(config, open ?? ((uri) => openVirsh({ uri, timeoutMs: VIRSH_TIMEOUT_MS })))
    this.#finder = new DomainFinder(this.#hosts)
    this.#signs = new SignsOfLife(clock)
    this.#inventory = new FabricInventoryTaker({ config, hosts: this.#hosts, signs: this.#signs, clock, log })
  }

  inventory() {
    return this.#inventory.take()
  }

  changed(signal: AbortSignal) {
    return this.#inventory.changed(signal)
  }

  async observe(id: FabricVmId) {
    return await this.#observe(await this.#finder.find(id))
  }

  define(request: CommandRequest<'vm.define'>) {
    return this.#changes.run(request.fabricVmId, async () => {
      const { fabricVmId: id, name } = request
      const host = this.#hosts.get(request.host)
      if (!host)
        throw new HotsiteError(
          'host-unknown',
          `VM ${name} cannot be defined: there is no host ${request.host}`,
        )
      const existing = await this.#finder.find(id)
      if (existing && existing.host !== host)
        throw new HotsiteError(
          'vm-on-other-host',
          `VM ${name} (${id}) is defined on host ${existing.host.config.name}, not ${request.host}`,
        )
      if (existing?.metadata.requestHash === requestHash(request)) return await this.#observe(existing)
      if (existing) refuseRunning(existing, 'redefined')
      const before = existing && (await definitionOf(existing))
      const kept = existing && before !== undefined ? keptOf(existing, before) : {}
      const xml = defineDomain({ request, networks: await networksOf(host), ...kept })
      await this.#defineNamed(host, xml, existing)
      const defined = await domainOn(host, domainUuid(id))
      try {
        await this.#requireDisks(defined, request)
      } catch (error) {
        await putBack(host, domainUuid(id), before)
        throw error
      }
      return await this.#observe(defined)
    })
  }

  async start(id: FabricVmId, heartbeatTimeoutMs: number, signal: AbortSignal) {
    const deadlineMs = this.#clock.monotonicMs() + heartbeatTimeoutMs
    await this.#changes.run(id, async () => {
      const vm = await this.#findOrThrow(id)
      refuseFenced(vm)
      await refuseUnreachable(vm)
      if (!vm.live) await this.#powerOn(vm)
    })
    for (;;) {
      const vm = await this.#findOrThrow(id)
      const observed = await this.#observe(vm)
      if (observed.power === 'off') {
        refuseFenced(vm)
        throw await startFailure(vm)
      }
      if (observed.heartbeatAgeMs !== null) return observed
      if (this.#clock.monotonicMs() >= deadlineMs)
        throw new HotsiteError(
          'heartbeat-missing',
          `VM ${vm.name} runs on ${vm.host.config.name}, but within ${heartbeatTimeoutMs} ms neither its guest agent answered nor did it write to a disk`,
        )
      await this.#clock.sleep(LOOK_MS, signal)
    }
  }

  async shutDown(id: FabricVmId, timeoutMs: number, signal: AbortSignal) {
    const deadlineMs = this.#clock.monotonicMs() + timeoutMs
    let againAtMs = this.#clock.monotonicMs()
    let said = ''
    for (;;) {
      const vm = await this.#finder.find(id)
      if (!vm?.live) return await this.#observe(vm)
      const nowMs = this.#clock.monotonicMs()
      if (nowMs >= deadlineMs)
        throw new HotsiteError(
          'shutdown-timeout',
          `VM ${vm.name} is still running after ${timeoutMs} ms${said && `; ${said}`}`,
        )
      if (nowMs >= againAtMs) {
        againAtMs = nowMs + SHUTDOWN_AGAIN_MS
        // A guest that went off at this very moment, or an agent that hangs: what counts is what is seen afterwards.
        await vm.host.virsh.run(['shutdown', vm.uuid]).catch((error: unknown) => {
          said = errorDocument(error).message
        })
      }
      await this.#clock.sleep(LOOK_MS, signal)
    }
  }

  stop(id: FabricVmId) {
    return this.#changes.run(id, async () => {
      const vm = await this.#finder.find(id)
      if (vm?.live) await this.#powerOff(vm)
      return await this.#observe(vm && (await domainOn(vm.host, vm.uuid)))
    })
  }

  remove(id: FabricVmId) {
    return this.#changes.run(id, async () => {
      const vm = await this.#finder.find(id)
      if (!vm) return nothingThere
      refuseRunning(vm, 'removed')
      const everything = ['--managed-save', '--snapshots-metadata', '--checkpoints-metadata', '--nvram']
      await vm.host.virsh.run(['undefine', vm.uuid, ...everything])
      return await this.#observe(await domainOn(vm.host, vm.uuid))
    })
  }

  async screenshot(id: FabricVmId) {
    const vm = await this.#finder.find(id)
    return vm?.live ? await takeScreenshot(vm) : null
  }

  fence(id: FabricVmId, epoch: number, reason: string) {
    return this.#changes.run(id, async () => {
      const vm = await this.#finder.find(id)
      if (!vm) return nothingThere
      if ((vm.metadata.fence?.epoch ?? 0) < epoch)
        await this.#redefine(vm, { ...vm.metadata, fence: { epoch, reason } })
      if (vm.live) await this.#powerOff(vm)
      // A state of the guest's memory that was saved would bring it back as it was.
      await vm.host.virsh.batch([['managedsave-remove', vm.uuid]])
      return await this.#observe(await domainOn(vm.host, vm.uuid))
    })
  }

  unfence(id: FabricVmId) {
    return this.#changes.run(id, async () => {
      const vm = await this.#finder.find(id)
      if (!vm?.metadata.fence) return await this.#observe(vm)
      const { fence: _lifted, ...metadata } = vm.metadata
      await this.#redefine(vm, metadata)
      return await this.#observe(await domainOn(vm.host, vm.uuid))
    })
  }

  async #observe(vm: FoundDomain | undefined): Promise<VmObservation> {
    return vm ? await observeDomain(vm, await networksOf(vm.host), this.#signs) : nothingThere
  }

  async #findOrThrow(id: FabricVmId): Promise<FoundDomain> {
    const vm = await this.#finder.find(id)
    if (!vm) throw new HotsiteError('vm-unknown', `there is no VM with the id ${id}`)
    return vm
  }

  async #powerOn({ host, uuid, name }: FoundDomain): Promise<void> {
    this.#signs.expect(uuid)
    try {
      await host.virsh.run(['start', uuid])
    } catch (error) {
      const { code, message } = errorDocument(error)
      if (code !== 'libvirt-failed') throw error
      throw new HotsiteError(
        'vm-start-failed',
        `VM ${name} does not start on ${host.config.name}: ${message}`,
        {
          cause: error,
        },
      )
    }
  }

  async #powerOff(vm: FoundDomain): Promise<void> {
    const { host, uuid, name } = vm
    try {
      await host.virsh.run(['destroy', uuid])
    } catch (error) {
      if (!(await domainOn(host, uuid))?.live) return
      throw new HotsiteError(
        'vm-stop-failed',
        `VM ${name} on ${host.config.name}: ${errorDocument(error).message}`,
        {
          cause: error,
        },
      )
    }
  }

  /** Under its name, or with its id where another VM of the host has that. */
  async #defineNamed(host: LibvirtHost, xml: string, existing: FoundDomain | undefined): Promise<void> {
    const domain = parseXml(xml)
    const nameElement = child(domain, 'name')
    const wanted = textOf(nameElement)
    const uuid = textOf(child(domain, 'uuid'))
    const [taken] = await host.virsh.batch([['domuuid', wanted]])
    const name = taken === undefined || taken === uuid ? wanted : `${wanted}-${uuid.slice(0, 8)}`
    if (nameElement) nameElement.textContent = name
    if (existing && existing.name !== name) await host.virsh.run(['domrename', uuid, name])
    await host.virsh.runWithFile(['define'], xmlText(domain))
  }

  /** libvirt looks at them where they are, which may be another machine than this one. */
  async #requireDisks(
    vm: FoundDomain | undefined,
    { disks, name }: CommandRequest<'vm.define'>,
  ): Promise<void> {
    if (!vm) throw new HotsiteError('libvirt-failed', `VM ${name} was defined, but is not there`)
    const placed = vm.metadata.disks
    const sizes = await vm.host.virsh.batch(placed.map(({ target }) => ['domblkinfo', vm.uuid, target]))
    const missing = placed.find((_, i) => sizes[i] === undefined)
    if (!missing) return
    const path = disks.find(({ diskId }) => diskId === missing.diskId)?.path
    throw new HotsiteError(
      'disk-missing',
      `disk ${path} of VM ${name} is not there, or libvirt may not read it`,
    )
  }

  async #redefine({ host, uuid }: FoundDomain, metadata: DomainMetadata): Promise<void> {
    const xml = await definitionOf({ host, uuid })
    await host.virsh.runWithFile(['define'], setFence(xml, metadata))
  }
}

function refuseRunning({ live, name }: FoundDomain, what: string): void {
  if (live) throw new HotsiteError('vm-running', `VM ${name} is running and cannot be ${what}`)
}

function refuseFenced({ metadata: { fence }, name }: FoundDomain): void {
  if (!fence) return
  throw new HotsiteError('vm-fenced', `VM ${name} is fenced since epoch ${fence.epoch}: ${fence.reason}`)
}

/** What was asked for is in the metadata of a VM that we defined; of another, libvirt itself finds out. */
async function refuseUnreachable({ host, metadata, name }: FoundDomain): Promise<void> {
  const networks = await networksOf(host)
  for (const nic of metadata.nics) {
    if (nic.network === null || reaches(networks, nic.network)) continue
    throw new HotsiteError(
      'network-unreachable',
      `NIC ${nic.name} of VM ${name} is on the network ${nic.network}, which host ${host.config.name} does not reach`,
    )
  }
}

async function startFailure({ host, uuid, name }: FoundDomain): Promise<HotsiteError> {
  const [state = 'shut off'] = await host.virsh.batch([['domstate', '--reason', uuid]])
  return new HotsiteError(
    'vm-start-failed',
    `VM ${name} was started on ${host.config.name} and ended by itself: ${state}; its log there is /var/log/libvirt/qemu/${name}.log`,
  )
}

/** With what is left out of it elsewhere: the password of its console. */
function definitionOf({ host, uuid }: Pick<FoundDomain, 'host' | 'uuid'>): Promise<string> {
  return host.virsh.run(['dumpxml', '--inactive', '--security-info', uuid])
}

async function putBack(host: LibvirtHost, uuid: string, before: string | undefined): Promise<void> {
  if (before === undefined) await host.virsh.run(['undefine', uuid])
  else await host.virsh.runWithFile(['define'], before)
}

/** One that is not ours is kept whole. */
function keptOf({ metadata }: FoundDomain, before: string): Pick<Definition, 'home' | 'fence'> {
  const { fence, isHome, requestHash: known } = metadata
  return { ...(fence ? { fence } : {}), ...(known === undefined || isHome ? { home: parseXml(before) } : {}) }
}
