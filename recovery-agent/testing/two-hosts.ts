/** Two real agents in one process: real TLS, real files, real SQLite; the coordinator is a listener nobody answers. */
import { execFileSync } from 'node:child_process'
import { closeSync, copyFileSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestServer, type TestVault, testVault } from '#shared/channel/testing.ts'
import { type Clock, systemClock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import type { FolderVm } from '#shared/folder/layout.ts'
import { makeTestFabric, type TestFabric } from '#shared/folder/testing/test-fabric.ts'
import { type DiskId, type ServerId, serverId, type VmId, vmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import { silentLog } from '#shared/log.ts'
import type { CommandRequest, PeerAddress, ResyncCause } from '#shared/messages/commands.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import type { EventReport, ReplicationReport } from '#shared/messages/reports.ts'
import { systemRng } from '#shared/rng.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import { issueTicket } from '#shared/trust/ticket.ts'
import { type Agent, type AgentOverrides, startAgent } from '../agent.ts'
import { resolveAgentConfig } from '../config.ts'

export const VM: VmId = vmId.parse('vm-1')
const MiB = 1 << 20

export interface TestHost {
  readonly name: 'east' | 'west'
  readonly serverId: ServerId
  /** Throws while it is stopped. */
  readonly agent: Agent
  start(options?: { overrides?: AgentOverrides; crashPoint?: CrashPoint }): Promise<void>
  stop(): Promise<void>
  /** Of this VM; left out: of the first. */
  report(of?: VmId): ReplicationReport
  /** All of this host so far, of earlier lives too. */
  events(): readonly EventReport[]
}

/** Where a host keeps what. */
export type HostConfig = Partial<
  Pick<Parameters<typeof resolveAgentConfig>[0], 'dataDir' | 'replicaDir' | 'bufferMaxBytes'>
>

export interface TwoHosts extends AsyncDisposable {
  readonly fabric: TestFabric
  readonly vault: TestVault
  readonly east: TestHost
  readonly west: TestHost
  readonly vm: FolderVm
  /** Orders replication from east to west, through `via` (a faulty link) if given. */
  protect(options?: {
    epoch?: number
    via?: number
    cause?: ResyncCause
    notBeforeMs?: number
    policy?: Partial<CommandRequest<'replication.start'>['policy']>
  }): Promise<void>
  ticket(scope: { epoch: number; source: ServerId; target: ServerId; expiresInMs?: number }): string
  addressOf(host: TestHost, port?: number): PeerAddress
  /** Fills `blocks` blocks of a disk with bytes made from `seed`. */
  write(diskIndex: number, firstBlock: number, blocks: number, seed: number): void
  /** Compares the newest point of west with the disks of the VM, which must be at rest, by qemu-img. */
  compareNewest(): Promise<{ seq: number }>
}

export async function twoHosts(
  options: {
    diskBytes?: readonly number[]
    command?: readonly string[]
    log?: Logger
    /** In force for every start of the eastern agent. */
    eastOverrides?: AgentOverrides
    eastClock?: Clock
    westClock?: Clock
    /** What is not as usual in the configuration of a host. */
    config?: Partial<Record<TestHost['name'], HostConfig>>
  } = {},
): Promise<TwoHosts> {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-agents-'))
  const fabric = makeTestFabric()
  const vault = testVault()
  const vm = fabric.addVm({
    host: 'east',
    name: 'vm',
    diskBytes: options.diskBytes ?? [20 * MiB, 4 * MiB + 4096],
    ...(options.command ? { command: options.command } : {}),
  })
  fabric.addHost('west')
  const log = options.log ?? silentLog
  const east = testHost({
    name: 'east',
    dir,
    fabric,
    vault,
    log,
    always: options.eastOverrides ?? {},
    clock: options.eastClock ?? systemClock,
    config: options.config?.east ?? {},
  })
  const west = testHost({
    name: 'west',
    dir,
    fabric,
    vault,
    log,
    always: {},
    clock: options.westClock ?? systemClock,
    config: options.config?.west ?? {},
  })
  await Promise.all([east.start(), west.start()])

  const kit: TwoHosts = {
    fabric,
    vault,
    east,
    west,
    vm,
    ticket: ({ epoch, source, target, expiresInMs = 3_600_000 }) => {
      const now = Date.now()
      const ticket = {
        vaultId: vault.vaultId,
        vmId: VM,
        epoch,
        sourceServerId: source,
        targetServerId: target,
        issuedAtMs: now,
        expiresAtMs: now + expiresInMs,
      }
      return Buffer.from(issueTicket(ticket, vault.keys.secretKey)).toString('base64')
    },
    addressOf: ({ agent, serverId: id }, port = agent.listen.port) => ({
      serverId: id,
      host: '127.0.0.1',
      port,
      certificatePem: agent.certificatePem,
    }),
    async protect({ epoch = 1, via, cause = 'initial', notBeforeMs, policy = {} } = {}) {
      const full = replicationPolicy.parse({
        copyFrequencySeconds: 900,
        retentionIntervalSeconds: 0,
        ...policy,
      })
      const disks = vm.file.disks.map(({ id, name }, index) => ({
        diskId: id,
        name,
        sizeBytes: (options.diskBytes ?? [20 * MiB, 4 * MiB + 4096])[index] ?? 0,
        boot: index === 0,
      }))
      const signal = new AbortController().signal
      await west.agent.handlers['replica.prepare'](
        { vmId: VM, epoch, disks, sourceServerId: east.serverId, policy: full },
        signal,
      )
      await east.agent.handlers['replication.start'](
        {
          vmId: VM,
          epoch,
          fabricVmId: vm.file.id,
          target: kit.addressOf(west, via),
          ticket: kit.ticket({ epoch, source: east.serverId, target: west.serverId }),
          policy: full,
          cause,
          notBeforeMs: notBeforeMs ?? null,
        },
        signal,
      )
    },
    write(diskIndex, firstBlock, blocks, seed) {
      const fd = openSync(diskPath(vm, diskIndex), 'r+')
      try {
        for (let i = 0; i < blocks; i++) {
          writeSync(fd, patternBlock(seed, firstBlock + i), 0, 65_536, (firstBlock + i) * 65_536)
        }
      } finally {
        closeSync(fd)
      }
    },
    async compareNewest() {
      const points = await west.agent.store.points(VM)
      const newest = points.toSorted((a, b) => b.seq - a.seq)[0]
      if (!newest) throw new Error('there is no point')
      for (const [index, { id }] of vm.file.disks.entries()) {
        const layer = await west.agent.store.layerPath(VM, newest, id as DiskId)
        compareImages(layer, diskPath(vm, index))
      }
      return { seq: newest.seq }
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([east.stop(), west.stop()])
      await fabric[Symbol.asyncDispose]()
      rmSync(dir, { recursive: true, force: true })
    },
  }
  return kit
}

export function diskPath(vm: FolderVm, index: number): string {
  return join(vm.dir, vm.file.disks[index]?.file ?? 'none')
}

/** Half of the blocks compress, half do not; the same (seed, block) gives the same bytes. */
function patternBlock(seed: number, block: number): Buffer {
  const bytes = Buffer.alloc(65_536)
  let state = (Math.imul(seed + 1, 2_654_435_761) ^ Math.imul(block + 1, 40_503)) >>> 0
  const random = block % 2 === 0 ? bytes.length : 256
  for (let i = 0; i + 4 <= random; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes.writeUInt32LE(state, i)
  }
  return bytes
}

/** qemu-img is the judge. A raw image need not end on a sector; it sees the missing bytes as zeros only when padded. */
export function compareImages(layer: string, raw: string): void {
  const padded = `${raw}.truth`
  copyFileSync(raw, padded)
  const fd = openSync(padded, 'r+')
  ftruncateSync(fd, sizeOf(layer))
  closeSync(fd)
  try {
    execFileSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', layer, padded], { stdio: 'pipe' })
  } finally {
    rmSync(padded)
  }
}

function sizeOf(layer: string): number {
  const info = execFileSync('qemu-img', ['info', '-U', '--output=json', layer], { encoding: 'utf8' })
  return JSON.parse(info)['virtual-size']
}

interface HostOptions {
  readonly name: 'east' | 'west'
  readonly dir: string
  readonly fabric: TestFabric
  readonly vault: TestVault
  readonly log: Logger
  readonly always: AgentOverrides
  readonly clock: Clock
  readonly config: HostConfig
}

function testHost({ name, dir, fabric, vault, log, always, clock, config }: HostOptions): TestHost {
  const id = serverId.parse(`agent-${name}`)
  const identity = identityOf(vault, vault.server(id, 'agent'), id)
  let agent: Agent | undefined
  let port = 0
  const events: EventReport[] = []
  const takeReport = () => {
    const report = host.agent.reports.take()
    if (report) host.agent.reports.acknowledge(report.reportSeq)
    if (report?.kind === 'event') events.push(JSON.parse(String(report.json)))
    return report
  }
  const host: TestHost = {
    name,
    serverId: id,
    get agent() {
      if (!agent) throw new Error(`${name} is stopped`)
      return agent
    },
    async start({ overrides, crashPoint = noCrash } = {}) {
      agent = await startAgent({
        config: resolveAgentConfig(
          {
            name,
            dataDir: join(dir, name),
            hypervisor: { driver: 'folder', root: fabric.root, host: name },
            listen: { host: '127.0.0.1', port },
            reconnect: { minMs: 10, maxMs: 100 },
            ...config,
          },
          join(dir, 'config.yaml'),
        ),
        identity,
        clock,
        rng: systemRng,
        log: log.with({ host: name }),
        crashPoint,
        overrides: { ...always, ...overrides },
      })
      // The same port after a restart, as a daemon with a configured one.
      port = agent.listen.port
    },
    async stop() {
      const stopping = agent
      agent = undefined
      await stopping?.[Symbol.asyncDispose]()
    },
    report(of) {
      host.agent.reports.restart()
      for (;;) {
        const report = takeReport()
        if (!report) throw new Error(`${name} does not replicate`)
        if (report.kind !== 'replication') continue
        const found: ReplicationReport = JSON.parse(String(report.json))
        if (of === undefined || found.vmId === of) return found
      }
    },
    events() {
      host.agent.reports.restart()
      while (takeReport());
      return events
    },
  }
  return host
}

function identityOf(vault: TestVault, server: TestServer, id: ServerId): ServerIdentity {
  return {
    vaultId: vault.vaultId,
    vaultName: 'test',
    serverId: id,
    kind: 'agent',
    name: id,
    ...server,
    vaultPublicKey: vault.keys.publicKey,
    generation: 1,
    coordinatorCertificatePem: '',
    channelAddresses: [{ host: '127.0.0.1', port: 1 }],
    registeredAtMs: 0,
  }
}

/** Waits for a condition, never for a time. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 20_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await systemClock.sleep(10)
  }
}
