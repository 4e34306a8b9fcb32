/** The inventory of all hosts together, and whether it changed. */
import type { Clock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import type { FabricInventory } from '../port.ts'
import type { LibvirtFabricConfig } from './config.ts'
import type { LibvirtHost } from './hosts.ts'
import { type HostInventory, takeHostInventory } from './inventory.ts'
import type { SignsOfLife } from './signs-of-life.ts'

/** A look at one host starts a program, 80 ms; a change is reported within seconds (I8 waits on it). */
const POLL_MS = 2_000

interface Options {
  readonly config: LibvirtFabricConfig
  readonly hosts: ReadonlyMap<string, LibvirtHost>
  readonly signs: SignsOfLife
  readonly clock: Clock
  readonly log: Logger
}

export class FabricInventoryTaker {
  readonly #options: Options
  /** What each host said last: it stands while a host cannot be reached, as its VMs do. */
  readonly #last = new Map<string, HostInventory>()
  readonly #told = new Set<string>()
  #seen: string | undefined

  constructor(options: Options) {
    this.#options = options
  }

  /** Throws `libvirt-unreachable` when no host answers. */
  async take(): Promise<FabricInventory> {
    const { config, hosts } = this.#options
    // Before the look, so that a change during it is seen as one by `changed`.
    this.#seen = await this.#signature()
    const failures: unknown[] = []
    await Promise.all(
      [...hosts].map(async ([name, host]) => {
        try {
          this.#last.set(name, await this.#takeHost(host))
          this.#told.delete(name)
        } catch (error) {
          failures.push(error)
          const last = this.#last.get(name)
          if (last) this.#last.set(name, unobserved(last))
          this.#warnOnce(name, `host ${name} cannot be read; what it said last stands`, error)
        }
      }),
    )
    if (failures.length === hosts.size) throw failures[0]
    return this.#join(config)
  }

  async changed(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const from = this.#seen ?? (await this.#signature())
    while ((await this.#signature()) === from) await this.#options.clock.sleep(POLL_MS, signal)
  }

  #takeHost(host: LibvirtHost): Promise<HostInventory> {
    const { config, signs } = this.#options
    return takeHostInventory(host, {
      classifications: config.classifications,
      signs,
      onLeftOut: (error) =>
        this.#warnOnce(errorDocument(error).message, 'VM left out of the inventory', error),
    })
  }

  #warnOnce(key: string, message: string, error: unknown): void {
    if (this.#told.has(key)) return
    this.#told.add(key)
    this.#options.log.warn(message, { error })
  }

  #join({ vmmServer, clouds }: LibvirtFabricConfig): FabricInventory {
    const all = [...this.#last.values()]
    const networks = new Map(all.flatMap((each) => each.networks.map((network) => [network.name, network])))
    const classifications = new Set(all.flatMap((each) => each.classifications))
    return {
      vmmServer,
      vmmVersion: `libvirt ${[...new Set(all.map(({ version }) => version))].join(', ')}`,
      clouds: clouds.map(({ name, hosts }) => ({
        name,
        hosts: hosts.flatMap((host) => (this.#last.has(host.name) ? [host.name] : [])),
      })),
      hosts: all.map(({ host }) => host),
      networks: [...networks.values()],
      classifications: [...classifications].map((name) => ({ name })),
      quiescesGuests: true,
      vms: all.flatMap(({ vms }) => vms),
    }
  }

  /** A text that differs when VMs, networks or pools come, go, start or stop. */
  async #signature(): Promise<string> {
    const looks = await Promise.all(
      [...this.#options.hosts].map(async ([name, { virsh }]) => {
        const said = await virsh
          .batch([
            ['list', '--all'],
            ['net-list', '--all'],
            ['pool-list', '--all'],
          ])
          .catch((error: unknown) => [errorDocument(error).code])
        return [name, ...said].join('\n')
      }),
    )
    return looks.join('\n')
  }
}

/** Nothing was seen of its VMs just now. */
function unobserved(last: HostInventory): HostInventory {
  const vms = last.vms.map((vm) => ({ ...vm, observation: { ...vm.observation, heartbeatAgeMs: null } }))
  return { ...last, vms }
}
