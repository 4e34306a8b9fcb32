/**
 * The world of the chaos runs: a lab whose guest is the predictable one, whose agents run fast, and whose link between
 * the sites is a relay that misbehaves on command. Set up once, then put back to the same beginning for every seed.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, stringify } from 'yaml'
import { z } from 'zod'
import type { PointView, VmView } from '#coordinator/admin/views.ts'
import { pathsIn } from '#recovery-agent/replica/names.ts'
import { vmsDir } from '#shared/folder/layout.ts'
import { writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId, vmId } from '#shared/ids.ts'
import { freePort } from '../lab-kit/configs.ts'
import { findGuest } from '../lab-kit/guest.ts'
import { type Lab, labDown, labUp } from '../lab-kit/lab.ts'
import { type LabLayout, labLayout } from '../lab-kit/layout.ts'
import { modelDisks } from './model.ts'

export const guestName = 'model'

const guestProgram = fileURLToPath(new URL('./model-guest.ts', import.meta.url))
const guestPeriodMs = 10
export const agentEntry = fileURLToPath(new URL('./fast-agent.ts', import.meta.url))

export interface World {
  readonly lab: Lab
  readonly relayPort: number
  readonly targetPort: number
  points(): Promise<readonly PointView[]>
  vm(): Promise<VmView>
  /** Layer of each disk at a point, as files for stock tools. */
  layers(point: PointView, protectedVmId: string): readonly string[]
  sourceDisks(): readonly string[]
}

/** Daemons, vault and registrations; stopped again, so that its folder can be copied. Answers the template's folder. */
export async function makeTemplate(dir: string): Promise<void> {
  const layout = labLayout(dir)
  await labUp(dir, {
    progress: () => {},
    agentEntry,
    makeGuest: () => makeModelGuest(layout),
    startGuest: async () => {},
  })
  const target = configOf(layout, 'host-b1')
  const relayPort = await freePort()
  writeFileSync(
    target.path,
    stringify({ ...target.config, advertise: { host: '127.0.0.1', port: relayPort } }),
  )
  await labDown(dir)
  copyFolder(dir, `${dir}.template`)
}

/** Modes, owners and holes kept. */
function copyFolder(from: string, to: string): void {
  execFileSync('cp', ['-a', '--sparse=always', from, to])
}

/** The same beginning for every seed: the template's files, a guest of this seed, nothing running. */
export function restoreTemplate(dir: string, seed: number): void {
  rmSync(dir, { recursive: true, force: true })
  copyFolder(`${dir}.template`, dir)
  const guest = findGuest(labLayout(dir), 'host-a1', guestName)
  writeVm(guest.dir, {
    ...guest.file,
    command: [process.execPath, guestProgram, String(seed), String(guestPeriodMs)],
  })
}

export async function startWorld(dir: string): Promise<World> {
  const lab = await labUp(dir, {
    progress: () => {},
    agentEntry,
    makeGuest: () => {},
    startGuest: async () => {},
  })
  return openWorld(lab)
}

export function openWorld(lab: Lab): World {
  const target = configOf(lab.layout, 'host-b1').config
  const paths = pathsIn(join(lab.layout.agentDir('host-b1'), 'data'))
  return {
    lab,
    relayPort: target.advertise?.port ?? target.listen.port,
    targetPort: target.listen.port,
    points: () => lab.admin.call('listPoints', { params: { vm: guestName } }),
    vm: () => lab.admin.call('showVm', { params: { vm: guestName } }),
    layers: (point, protectedVmId) =>
      modelDisks
        .map(({ name }) => paths.layer(vmId.parse(protectedVmId), diskId.parse(name), point))
        .filter((path) => existsSync(path)),
    sourceDisks: () =>
      modelDisks.map(({ name }) => join(findGuest(lab.layout, 'host-a1', guestName).dir, `${name}.img`)),
  }
}

const targetConfig = z.looseObject({
  listen: z.object({ host: z.string(), port: z.int() }),
  advertise: z.object({ host: z.string(), port: z.int() }).optional(),
})

function configOf(layout: LabLayout, host: string) {
  const path = join(layout.agentDir(host), 'config.yaml')
  return { path, config: targetConfig.parse(parse(readFileSync(path, 'utf8'))) }
}

function makeModelGuest(layout: LabLayout): void {
  const dir = join(vmsDir(layout.fabricRoot('site-a'), 'host-a1'), guestName)
  mkdirSync(dir, { recursive: true })
  for (const { name, sizeBytes } of modelDisks) {
    writeFileSync(join(dir, `${name}.img`), '')
    truncateSync(join(dir, `${name}.img`), sizeBytes)
  }
  writeVm(dir, {
    id: fabricVmId.parse('model-guest'),
    name: guestName,
    generation: 1,
    operatingSystem: 'model',
    memoryBytes: 0,
    cpuCount: 1,
    disks: modelDisks.map(({ name }, index) => ({
      id: diskId.parse(name),
      name,
      file: `${name}.img`,
      boot: index === 0,
    })),
    nics: [],
    classification: null,
    command: [process.execPath, guestProgram, '0', String(guestPeriodMs)],
  })
}
