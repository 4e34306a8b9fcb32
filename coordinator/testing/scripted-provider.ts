/** Power states of the VMs of one site in memory, answered over a real channel. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { InventoryReport } from '#shared/messages/reports.ts'
import type { NicSpec, VmDescription, VmObservation } from '#shared/messages/vm.ts'
import { type Enrolled, ScriptedServer } from './scripted-server.ts'
import type { SiteNames } from './scripted-site.ts'

interface FabricVm {
  description: VmDescription
  cloud: string | null
  running: boolean
  fenced: boolean
  nics: NicSpec[]
  disks: number
}

/** VMs as the fabric of one site has them, behind a scripted provider. */
export class ScriptedProvider {
  readonly vms = new Map<string, FabricVm>()
  readonly server: ScriptedServer
  readonly #names: SiteNames
  /** Kinds that fail with this error, until it is taken out. */
  readonly failures = new Map<string, HotsiteError>()

  constructor(names: SiteNames, enrolled: Enrolled) {
    this.#names = names
    const guard =
      <Request, Result>(kind: string, handle: (request: Request) => Result) =>
      async (request: Request): Promise<Result> => {
        const failure = this.failures.get(kind)
        if (failure) throw failure
        const result = handle(request)
        this.reportInventory()
        return result
      }
    this.server = new ScriptedServer(enrolled, {
      'trust.update': async () => ({}),
      'vm.define': guard('vm.define', (request: CommandRequest<'vm.define'>) => this.#define(request)),
      'vm.start': guard('vm.start', ({ fabricVmId: id }) => this.#start(id)),
      'vm.shutDown': guard('vm.shutDown', ({ fabricVmId: id }) => this.#power(id, false)),
      'vm.stop': guard('vm.stop', ({ fabricVmId: id }) => this.#power(id, false)),
      'vm.observe': guard('vm.observe', ({ fabricVmId: id }) => this.#observe(id)),
      'vm.screenshot': guard('vm.screenshot', () => ({
        pngBase64: Buffer.from('a picture').toString('base64'),
      })),
      'vm.remove': guard('vm.remove', ({ fabricVmId: id }) => {
        this.vms.delete(id)
        return this.#observe(id)
      }),
      'vm.fence': guard('vm.fence', ({ fabricVmId: id }) => {
        Object.assign(this.#vm(id), { fenced: true, running: false })
        return this.#observe(id)
      }),
      'vm.unfence': guard('vm.unfence', ({ fabricVmId: id }) => {
        this.#vm(id).fenced = false
        return this.#observe(id)
      }),
    })
  }

  addVm(name: string): void {
    const { host, network, cloud } = this.#names
    const nics = [{ name: 'eth0', network }]
    const description: VmDescription = {
      fabricVmId: fabricVmId.parse(`${name}-id`),
      name,
      host,
      generation: 1,
      operatingSystem: 'linux',
      memoryBytes: 2 ** 30,
      cpuCount: 1,
      disks: [{ diskId: diskId.parse('disk0'), name: 'disk0', sizeBytes: 2 ** 20, boot: true }],
      nics,
      classification: null,
      driverSettings: {},
    }
    this.vms.set(description.fabricVmId, { description, cloud, running: true, fenced: false, nics, disks: 1 })
  }

  running(): string[] {
    return [...this.vms.entries()].flatMap(([id, { running }]) => (running ? [id] : []))
  }

  reportInventory(): void {
    const { vmmServer, cloud, host, network } = this.#names
    const report: InventoryReport = {
      vmmServer,
      vmmVersion: '1',
      version: '0',
      clouds: [{ name: cloud, hosts: [host] }],
      hosts: [
        {
          name: host,
          memoryBytes: 2 ** 33,
          cpuCount: 4,
          freeDiskBytes: 2 ** 40,
          networks: [network, 'lab'],
          classifications: [],
        },
      ],
      networks: [network, 'lab'].map((name) => ({ name, logicalNetwork: name, subnets: [] })),
      classifications: [],
      quiescesGuests: false,
      vms: [...this.vms.entries()].map(([id, vm]) => ({
        ...vm.description,
        cloud: vm.cloud,
        observation: this.#observe(id),
      })),
      nowMs: Date.now(),
    }
    this.server.report('inventory', '', report)
  }

  #vm(id: string): FabricVm {
    const vm = this.vms.get(id)
    if (!vm) throw new HotsiteError('vm-unknown', `no VM ${id}`)
    return vm
  }

  #observe(id: string): VmObservation {
    const vm = this.vms.get(id)
    return {
      exists: vm !== undefined,
      power: vm?.running ? 'running' : 'off',
      heartbeatAgeMs: vm?.running ? 10 : null,
      nics: vm?.nics ?? [],
      fenced: vm?.fenced ?? false,
    }
  }

  #define({ fabricVmId: id, description, disks, nics }: CommandRequest<'vm.define'>): VmObservation {
    const fenced = this.vms.get(id)?.fenced ?? false
    this.vms.set(id, { description, cloud: null, running: false, fenced, nics, disks: disks.length })
    return this.#observe(id)
  }

  #start(id: string): VmObservation {
    const vm = this.#vm(id)
    if (vm.fenced) throw new HotsiteError('vm-fenced', `${id} runs elsewhere`)
    if (vm.disks === 0) throw new HotsiteError('disk-missing', `${id} has no disks`)
    vm.running = true
    return this.#observe(id)
  }

  #power(id: string, running: boolean): VmObservation {
    const vm = this.vms.get(id)
    if (vm) vm.running = running
    return this.#observe(id)
  }
}
