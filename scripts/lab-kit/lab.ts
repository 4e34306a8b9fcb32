import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensurePathFits } from '#coordinator/admin/socket-place.ts'
import { type Client, createClient } from '#coordinator/cli/client.ts'
import { choosePorts, type LabPorts, writeConfigs } from './configs.ts'
import { guestDirs, isGuestRunning, startGuestsAgain, stopGuest } from './guest.ts'
import { type HotsiteCli, hotsiteCli } from './hotsite-cli.ts'
import { allSites, type LabLayout, labLayout, type SiteName } from './layout.ts'
import { hotsiteEntry, isRunning, signalProcess, startDaemon, stopProcesses, waitUntil } from './processes.ts'
import { type LabState, readLabState, withProcess, writeLabState } from './state.ts'

/** Told to whoever watches a lab come up. */
export type Progress = (text: string) => void

export interface Lab {
  readonly layout: LabLayout
  readonly cli: HotsiteCli
  /** The admin socket without a process for each call. */
  readonly admin: Client
  /** Starts a daemon of the lab again, by its name in lab.json. */
  restart(name: string, env?: Readonly<Record<string, string>>): void
  /** SIGKILL, as a power cut would: nothing gets to say goodbye. */
  kill(name: string): Promise<void>
  isAlive(name: string): boolean
  pidOf(name: string): number
}

export const vaultName = 'lab'
export const daemonNames: readonly string[] = [
  'coordinator',
  ...allSites.flatMap((site) => [`provider-${site.name}`, ...site.hosts.map((host) => `agent-${host}`)]),
]

const readyTimeoutMs = 60_000

/** What `hotsite` is called with for each daemon, and the folder it lives in. */
function daemonSpec(layout: LabLayout, name: string): { args: readonly string[]; dir: string; kind: string } {
  const [kind, rest] = [name.split('-')[0], name.slice(name.indexOf('-') + 1)]
  const dir =
    kind === 'coordinator'
      ? layout.coordinatorDir
      : kind === 'provider'
        ? layout.providerDir(rest as SiteName)
        : layout.agentDir(rest)
  return { args: [kind ?? '', '--config', join(dir, 'config.yaml')], dir, kind: kind ?? '' }
}

function openLab(layout: LabLayout, agentEntry?: string): Lab {
  const stateOf = (): LabState => {
    const state = readLabState(layout)
    if (!state)
      throw new Error(
        `there is no lab in ${layout.dir}; bring one up with: ./scripts/lab up --dir ${layout.dir}`,
      )
    return state
  }
  const processOf = (name: string) => {
    const found = stateOf().processes.find((process) => process.name === name)
    if (!found) throw new Error(`the lab has no daemon ${name}`)
    return found
  }
  return {
    layout,
    cli: hotsiteCli(layout.socket),
    admin: createClient(layout.socket),
    restart(name, env = {}) {
      const { kind, args, dir } = daemonSpec(layout, name)
      const program =
        kind === 'agent' && agentEntry
          ? { entry: agentEntry, args: args.slice(2) }
          : { entry: hotsiteEntry, args }
      writeLabState(layout, withProcess(stateOf(), startDaemon({ name, ...program, dir, env })))
    },
    async kill(name) {
      const target = processOf(name)
      signalProcess(target, 'SIGKILL')
      await waitUntil(() => !isRunning(target), 5_000)
    },
    isAlive: (name) => isRunning(processOf(name)),
    pidOf: (name) => processOf(name).pid,
  }
}

/** The lab that stands in `dir`, whether its daemons run or not. */
export function existingLab(dir: string): Lab {
  const lab = openLab(labLayout(dir))
  if (!readLabState(lab.layout))
    throw new Error(`there is no lab in ${dir}; bring one up with: ./scripts/lab up --dir ${dir}`)
  return lab
}

export interface LabOptions {
  readonly progress: Progress
  /** Called once, for a new lab: writes the VM's folder. */
  readonly makeGuest: (layout: LabLayout) => void
  readonly startGuest: (layout: LabLayout) => Promise<void>
  /** In place of those of two sites of folders. */
  readonly writeConfigs?: (layout: LabLayout, ports: LabPorts) => void
  /** Another program in place of `hotsite agent`, given the configuration file: the chaos runs have one. */
  readonly agentEntry?: string
}

/** Brings up two sites, a coordinator, a vault and a running VM. A lab that stands there already has its dead daemons started again. */
export async function labUp(dir: string, options: LabOptions): Promise<Lab> {
  const layout = labLayout(dir)
  const before = readLabState(layout)
  if (!before) {
    refuseForeignFolder(dir)
    ensurePathFits(layout.socket)
    mkdirSync(dir, { recursive: true })
    const ports = await choosePorts()
    writeLabState(layout, { ports, processes: [], resume: [] })
    const write = options.writeConfigs ?? writeConfigs
    write(layout, ports)
    options.progress(
      options.writeConfigs ? 'two sites' : 'two sites: folders, networks and a VM with two disks',
    )
    options.makeGuest(layout)
  }
  makeBinDir(layout)
  if (before) await resumeGuests(layout, before)
  const lab = openLab(layout, options.agentEntry)
  await ensureRunning(lab, 'coordinator')
  const answers = async () => !lab.isAlive('coordinator') || (await socketAnswers(layout.socket))
  if (!(await waitUntil(answers, readyTimeoutMs)) || !lab.isAlive('coordinator')) {
    throw new Error(
      `the coordinator does not answer; see ${layout.coordinatorDir}/start.log and ${layout.coordinatorDir}/log`,
    )
  }
  if (!existsSync(layout.credentialsFile)) {
    options.progress('a vault with its certificate, and the registration file')
    await makeVault(lab)
  }
  options.progress('two provider agents and two recovery agents, registered and connected')
  for (const site of allSites) {
    await ensureRegistered(lab, `provider-${site.name}`, site.vmmServer, site.vmmServer)
    for (const host of site.hosts) await ensureRegistered(lab, `agent-${host}`, host, host)
  }
  for (const name of daemonNames.slice(1)) await ensureRunning(lab, name)
  await waitConnected(lab)
  if (!before) await options.startGuest(layout)
  return lab
}

export async function labDown(dir: string): Promise<void> {
  const { layout } = existingLab(dir)
  const state = readLabState(layout)
  await stopProcesses(state?.processes ?? [], 15_000)
  const running = guestDirs(layout).filter(isGuestRunning)
  // Taken down twice, the second time finds nothing running and must not forget what the first one stopped.
  if (state && running.length > 0) writeLabState(layout, { ...state, resume: running.map(({ dir }) => dir) })
  for (const guest of running) await stopGuest(guest)
}

function refuseForeignFolder(dir: string): void {
  if (existsSync(dir) && readdirSync(dir).length > 0) {
    throw new Error(`${dir} is not empty and holds no lab: give a new folder, nothing there was touched`)
  }
}

/** Once, and before any daemon runs: afterwards Hotsite alone decides which VM runs where. */
async function resumeGuests(layout: LabLayout, state: LabState): Promise<void> {
  if (state.resume.length === 0) return
  await startGuestsAgain(layout, state.resume)
  writeLabState(layout, { ...state, resume: [] })
}

const hotsiteCommand = fileURLToPath(new URL('../hotsite', import.meta.url))

function makeBinDir({ binDir }: LabLayout): void {
  mkdirSync(binDir, { recursive: true })
  const link = join(binDir, 'hotsite')
  rmSync(link, { force: true })
  symlinkSync(hotsiteCommand, link)
}

async function ensureRunning(lab: Lab, name: string): Promise<void> {
  const known = readLabState(lab.layout)?.processes.find((process) => process.name === name)
  if (!known || !isRunning(known)) lab.restart(name)
}

async function makeVault(lab: Lab): Promise<void> {
  const { layout, cli } = lab
  mkdirSync(layout.vaultDir, { recursive: true, mode: 0o700 })
  await cli(
    'vault',
    'create',
    '--name',
    vaultName,
    '--region',
    'local',
    '--subscription',
    'lab',
    '--generate-certificate',
    layout.vaultDir,
  )
  await cli('vault', 'credentials', vaultName, '--out', layout.credentialsFile)
}

async function ensureRegistered(lab: Lab, daemon: string, name: string, host: string): Promise<void> {
  const { dir, args } = daemonSpec(lab.layout, daemon)
  if (existsSync(join(dir, 'data', 'identity.json'))) return
  const certificate = readdirSync(lab.layout.vaultDir).find((file) => file.endsWith('.pem'))
  await lab.cli(
    'register',
    '--credentials',
    lab.layout.credentialsFile,
    '--certificate',
    join(lab.layout.vaultDir, certificate ?? ''),
    '--kind',
    daemon.startsWith('provider') ? 'provider' : 'agent',
    '--config',
    args[2] ?? '',
    '--name',
    name,
    '--host',
    host,
  )
}

async function waitConnected(lab: Lab): Promise<void> {
  const wanted = daemonNames.length - 1
  const connected = await waitUntil(
    async () => {
      const servers = await lab.admin.call('listServers')
      return servers.filter((server) => server.connected).length === wanted
    },
    readyTimeoutMs,
    100,
  )
  if (!connected)
    throw new Error(
      `not all agents connected within ${readyTimeoutMs / 1000} s; see start.log and log/ of each under ${lab.layout.dir}`,
    )
}

/** True when something accepts connections there: a socket file alone may be left over. */
export function socketAnswers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/** Everything of the lab, for good. Only of one that is down. */
export function removeLab(dir: string): void {
  rmSync(dir, { recursive: true, force: true })
}
