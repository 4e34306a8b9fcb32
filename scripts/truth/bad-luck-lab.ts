import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, vi } from 'vitest'
import { parse, stringify } from 'yaml'
import { z } from 'zod'
import { eventView, jobView, pointView, serverView, statusView, vmView } from '#coordinator/admin/views.ts'
import { pathsIn } from '#recovery-agent/replica/names.ts'
import { type ErrorCode, errorTable } from '#shared/errors/table.ts'
import { diskId, vmId } from '#shared/ids.ts'
import { agentEntry } from '../faults/world.ts'
import { createGuest, findGuest, guestName, startGuest } from '../lab-kit/guest.ts'
import { type Lab, labDown, labUp, removeLab } from '../lab-kit/lab.ts'
import { hotsiteEntry, isRunning, waitUntil } from '../lab-kit/processes.ts'
import { readLabState } from '../lab-kit/state.ts'

export type Vm = z.infer<typeof vmView>
export type Point = z.infer<typeof pointView>
export type Job = z.infer<typeof jobView>

/** What a person sees of one command. */
export interface Said {
  readonly exitCode: number
  readonly out: string
  readonly err: string
}

export interface BadLuckLab extends AsyncDisposable {
  readonly lab: Lab
  readonly dir: string
}

/** Real daemons on a machine that does other things as well; every wait below has its own, shorter bound. */
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 })
const stepTimeoutMs = 60_000
/** Copies every two seconds: the agents' clock runs fast. */
export const pairing = ['vmm-a/gold-a', 'vmm-b/gold-b', '--network', 'prod-a=prod-b'] as const
export const policy = [
  '--copy-frequency',
  '30s',
  '--retention-points',
  '6',
  '--retention-interval',
  '0',
] as const

/** Two sites with real daemons and a VM that writes. */
export async function badLuckLab(
  options: { agentEntry?: string; diskMiB?: number } = {},
): Promise<BadLuckLab> {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-luck-'))
  const lab = await labUp(dir, {
    progress: () => {},
    makeGuest: (layout) => createGuest(layout, options.diskMiB ?? 8),
    startGuest,
    agentEntry: options.agentEntry ?? agentEntry,
  })
  return {
    dir,
    lab,
    async [Symbol.asyncDispose]() {
      await labDown(dir)
      removeLab(dir)
    },
  }
}

/** Also protects the guest; answers its id. */
export async function protectGuest(lab: Lab): Promise<string> {
  await lab.cli('cloud', 'pair', ...pairing, ...policy)
  await lab.cli('vm', 'protect', guestName)
  return (await vmOf(lab)).vmId ?? ''
}

/** Asked on the admin socket directly: what is looked at many times a second should not cost a process each time. */
function admin(lab: Lab, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: lab.layout.socket, path: `/v1${path}`, agent: false }, (response) => {
      text(response).then((body) => resolve(JSON.parse(body)), reject)
    })
    asked.once('error', reject)
    asked.end()
  })
}

export const vmOf = async (lab: Lab): Promise<Vm> => vmView.parse(await admin(lab, `/vms/${guestName}`))
export const pointsOf = async (lab: Lab): Promise<readonly Point[]> =>
  pointView.array().parse(await admin(lab, `/vms/${guestName}/points`))
export const eventsOf = async (lab: Lab) => eventView.array().parse(await admin(lab, '/events?limit=200'))
export const serversOf = async (lab: Lab) => serverView.array().parse(await admin(lab, '/servers'))
export const jobsOf = async (lab: Lab) => jobView.array().parse(await admin(lab, '/jobs'))
export const statusOf = async (lab: Lab) => statusView.parse(await admin(lab, '/status'))

export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  expect(await waitUntil(condition, stepTimeoutMs, 100), what).toBe(true)
}

/** The command line as a person calls it, without --json. */
export function hotsite(lab: Lab, ...args: readonly string[]): Promise<Said> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [hotsiteEntry, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, HOTSITE_SOCKET: lab.layout.socket, NO_COLOR: '1' },
    })
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text
    })
    child.once('error', reject)
    child.once('close', (code) => resolve({ exitCode: code ?? 1, out, err }))
  })
}

/** Refused with that code, its cause and its action, and with this text in the message. */
export async function expectRefused(
  lab: Lab,
  args: readonly string[],
  refusal: { code: ErrorCode; exitCode: number; says: string | RegExp },
): Promise<void> {
  const said = await hotsite(lab, ...args)
  expectClear(said, refusal)
}

export function expectClear(
  said: Said,
  { code, exitCode, says }: { code: ErrorCode; exitCode: number; says: string | RegExp },
): void {
  expect(said.err).toContain(`[${code}]`)
  expect(said.err).toContain(errorTable[code].cause)
  expect(said.err).toContain(errorTable[code].action)
  expect(said.err.split('\n')[0]).toMatch(says)
  expect(said.exitCode).toBe(exitCode)
}

/** A point newer than every one that is there now. */
export async function expectReplicationGoesOn(lab: Lab): Promise<Point> {
  const before = (await pointsOf(lab))[0]
  let newest: Point | undefined
  await until('replication goes on', async () => {
    newest = newestOf(await pointsOf(lab))
    return newest !== undefined && isNewer(newest, before && newestOf([before]))
  })
  if (!newest) throw new Error('there is no point')
  return newest
}

export function newestOf(points: readonly Point[]): Point | undefined {
  return points.reduce<Point | undefined>((best, point) => (isNewer(point, best) ? point : best), undefined)
}

function isNewer(point: Point, than: Point | undefined): boolean {
  return !than || point.epoch > than.epoch || (point.epoch === than.epoch && point.seq > than.seq)
}

export function configPath(lab: Lab, daemon: string): string {
  return join(folderOf(lab, daemon), 'config.yaml')
}

export function folderOf(lab: Lab, daemon: string): string {
  const { layout } = lab
  if (daemon === 'coordinator') return layout.coordinatorDir
  if (daemon.startsWith('provider-'))
    return layout.providerDir(daemon === 'provider-site-a' ? 'site-a' : 'site-b')
  return layout.agentDir(daemon.slice('agent-'.length))
}

export function changeConfig(path: string, changes: Readonly<Record<string, unknown>>): void {
  const config = z.looseObject({}).parse(parse(readFileSync(path, 'utf8')))
  writeFileSync(path, stringify({ ...config, ...changes }))
}

/** SIGTERM, and waits for the end. */
export async function stopDaemon(lab: Lab, name: string): Promise<void> {
  const daemon = readLabState(lab.layout)?.processes.find((process) => process.name === name)
  if (!daemon) throw new Error(`no daemon ${name}`)
  process.kill(daemon.pid, 'SIGTERM')
  await until(`${name} stops`, () => !isRunning(daemon))
}

export async function connected(lab: Lab, name: string): Promise<boolean> {
  return (await serversOf(lab)).some((server) => server.name === name && server.connected)
}

/** The layer of each disk at a point, in the target's folder. */
export function layersOf(lab: Lab, vm: string, point: Point): readonly { disk: string; path: string }[] {
  const paths = pathsIn(join(lab.layout.agentDir('host-b1'), 'data'))
  return ['disk0', 'disk1']
    .map((disk) => ({ disk, path: paths.layer(vmId.parse(vm), diskId.parse(disk), point) }))
    .filter(({ path }) => existsSync(path))
}

export function sourceDisk(lab: Lab, disk: string): string {
  const guest = findGuest(lab.layout, 'host-a1', guestName)
  const file = guest.file.disks.find(({ id }) => id === disk)?.file
  return join(guest.dir, file ?? '')
}

export { guestName }
