/** A host that is switched on, killed at any instruction, and switched on again from what was durable then. */
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type AgentConfig, resolveAgentConfig } from '#recovery-agent/config.ts'
import type { Peer } from '#shared/channel/port.ts'
import { type FabricVmId, type ServerId, serverId, vaultId } from '#shared/ids.ts'
import type { Rng } from '#shared/rng.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import type { ServerKeys } from '#shared/trust/keys.ts'
import { Life, type LifeOptions } from './life.ts'
import { keysFromNumber } from './native-signatures.ts'
import { CLUSTER_BYTES, SimDisk, SimFile } from './sim-disk.ts'
import { SimHypervisor } from './sim-hypervisor.ts'
import type { LinkEnd, SimLink } from './sim-link.ts'

export const simVault = vaultId.parse('vault')
export const vaultKeys: ServerKeys = keysFromNumber(7)

/** What stops the code that runs when a process is killed at a named instant. */
export class Killed extends Error {}

export interface HostOptions
  extends Omit<
    LifeOptions,
    'dir' | 'config' | 'identity' | 'skewMs' | 'disk' | 'hypervisor' | 'stoppedDisks' | 'dial'
  > {
  readonly name: string
  /** Names the key of this host. */
  readonly number: number
  readonly baseDir: string
  readonly link: SimLink
  readonly endOf: (server: ServerId) => LinkEnd
}

export class Host {
  readonly name: string
  readonly peer: Peer
  readonly disk = new SimDisk()
  readonly hypervisor: SimHypervisor
  skewMs = 0
  /** Of the next so many batches that come, memory flips a bit. */
  spoiledBatches = 0
  /** Lives that were ended by a kill. */
  kills = 0
  readonly #options: HostOptions
  readonly #config: AgentConfig
  readonly #identity: ServerIdentity
  #lives = 0
  #life: Life | undefined

  constructor(options: HostOptions) {
    this.#options = options
    this.name = options.name
    const id = serverId.parse(`agent-${options.name}`)
    const keys = keysFromNumber(options.number)
    this.peer = {
      vaultId: simVault,
      serverId: id,
      kind: 'agent',
      name: options.name,
      publicKey: keys.publicKey,
    }
    this.hypervisor = new SimHypervisor(options.scheduler)
    this.#config = configOf(options.name, options.baseDir)
    this.#identity = identityOf(options.name, id, keys)
    mkdirSync(this.#dirOf(0), { recursive: true })
  }

  get serverId(): ServerId {
    return this.peer.serverId
  }

  /** Undefined while it is off, or is starting. */
  get parts() {
    return this.#life?.parts
  }

  get life(): Life | undefined {
    return this.#life
  }

  get end(): LinkEnd {
    const life = this.#life
    return { peer: this.peer, accept: life?.parts ? (channel) => life.accept(channel) : undefined }
  }

  async start(): Promise<void> {
    if (this.#life) return
    const { link, endOf } = this.#options
    const life = new Life({
      ...this.#options,
      dir: this.#dirOf(this.#lives),
      config: this.#config,
      identity: this.#identity,
      skewMs: () => this.skewMs,
      disk: this.disk,
      hypervisor: this.hypervisor,
      stoppedDisks: (vm) => this.#stoppedDisks(vm),
      dial: ({ expectPeer }) => {
        const to = expectPeer?.serverId
        if (!to) throw new Error('nobody is called')
        return link.dial(
          this.peer,
          () => endOf(to),
          () => life.isAlive,
        )
      },
    })
    this.#life = life
    try {
      await life.open()
    } catch (error) {
      if (life.isAlive) throw error
    }
  }

  /** What is in memory is gone. Without power, also what was not synced. */
  kill(how: { power: boolean; losesBuffer: boolean; rng: Rng }): { sectors: number; names: number } {
    const { power, losesBuffer, rng } = how
    const life = this.#life
    if (!life) return { sectors: 0, names: 0 }
    this.#life = undefined
    this.kills++
    life.kill()
    this.#keepDatabases(life.dir, losesBuffer)
    const lost = power ? this.disk.losePower(rng) : { sectors: 0, names: 0 }
    const { link, scheduler } = this.#options
    link.endOf(this.serverId, power)
    scheduler.after(0, () => {
      life.close()
      rmSync(life.dir, { recursive: true, force: true })
    })
    return lost
  }

  async stop(): Promise<void> {
    const life = this.#life
    if (!life) return
    await life.stop()
    life.close()
  }

  /** Databases and their journals as they are at this instant, for the next life; shared memory dies with the process. */
  #keepDatabases(dir: string, losesBuffer: boolean): void {
    this.#lives++
    const next = this.#dirOf(this.#lives)
    mkdirSync(next, { recursive: true })
    for (const name of readdirSync(dir))
      if (name.includes('.db') && !name.endsWith('-shm') && !(losesBuffer && name.startsWith('buffer.db')))
        copyFileSync(join(dir, name), join(next, name))
  }

  #dirOf(life: number): string {
    return join(this.#options.baseDir, this.name, `life-${life}`)
  }

  /** The guest's disks as files, for an adoption. */
  async #stoppedDisks(vm: FabricVmId) {
    const guest = this.hypervisor.guest(vm)
    const disks = (guest?.disks ?? []).map(({ diskId, sizeBytes, blocks }) => {
      const path = `/guests/${vm}/${diskId}`
      const file = new SimFile()
      for (const [index, block] of blocks) file.write(block, index * CLUSTER_BYTES)
      file.truncate(sizeBytes)
      this.disk.files.set(path, file)
      return { diskId, sizeBytes, path, kind: 'raw' as const }
    })
    return { disks, [Symbol.dispose]() {} }
  }
}

function configOf(name: string, baseDir: string): AgentConfig {
  return resolveAgentConfig(
    {
      name,
      dataDir: join(baseDir, name),
      hypervisor: { driver: 'folder', root: join(baseDir, 'no-fabric'), host: name },
      listen: { host: '127.0.0.1', port: 1 },
    },
    join(baseDir, 'agent.yaml'),
  )
}

function identityOf(name: string, id: ServerId, keys: ServerKeys): ServerIdentity {
  return {
    vaultId: simVault,
    vaultName: 'simulation',
    serverId: id,
    kind: 'agent',
    name,
    keys,
    membership: new Uint8Array(),
    vaultPublicKey: vaultKeys.publicKey,
    generation: 1,
    coordinatorCertificatePem: '',
    channelAddresses: [],
    registeredAtMs: 0,
  }
}
