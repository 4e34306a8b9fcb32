/** What is done to hosts, disks, clocks and the line. */

import { background } from './background.ts'
import { damageRow, databaseNames, fillDatabase, makeRoom } from './databases.ts'
import type { Host } from './host.ts'
import { prove } from './operate.ts'
import { downMs, type FaultKind, pick } from './plan.ts'
import { expectCause } from './protected-vm.ts'
import type { World } from './world.ts'

export function inject(world: World, kind: FaultKind): void {
  const { link, scheduler, rng } = world
  world.fault(kind)
  switch (kind) {
    case 'link-cut':
      link.cut()
      return
    case 'link-cut-unnoticed':
      link.cutUnnoticed()
      return
    case 'link-cut-at-frame':
      link.cutAfter(1 + world.below(12))
      return
    case 'link-altered':
      link.alterNextFrame()
      return
    case 'link-silent': {
      if (link.isSilent) return
      link.setSilent(true)
      const untilMs = pick(rng, [5_000, 60_000, 600_000, 3_600_000]) * (0.5 + rng.next())
      scheduler.after(untilMs, () => link.setSilent(false))
      return
    }
    case 'outage': {
      if (link.isSilent) return
      link.setSilent(true)
      const frequencyMs = Math.min(...world.vms.map(({ policy }) => policy.copyFrequencySeconds)) * 1000
      scheduler.after(frequencyMs * (2.5 + 3 * rng.next()), () => link.setSilent(false))
      return
    }
    case 'link-slow': {
      const { bytesPerMs, latencyMs } = link
      link.bytesPerMs = pick(rng, [20, 100, 500])
      link.latencyMs = pick(rng, [2, 80, 600])
      scheduler.after(200_000 + world.below(600_000), () => {
        if (world.isPeaceful) return
        link.bytesPerMs = bytesPerMs
        link.latencyMs = latencyMs
      })
      return
    }
    case 'kill':
    case 'power-loss':
      world.kill(pick(rng, world.hosts), { power: kind === 'power-loss', downMs: downMs(rng) })
      return
    case 'disk-full':
      fill(world, pick(rng, world.hosts))
      return
    case 'database-full':
      fillOneDatabase(world, pick(rng, world.hosts))
      return
    case 'rows-rot':
      rotRow(world, pick(rng, world.hosts))
      return
    case 'buffer-lost':
      loseBuffer(world, pick(rng, world.hosts))
      return
    case 'clock-jump':
      pick(rng, world.hosts).skewMs += pick(rng, [-7_200_000, -45_000, 45_000, 7_200_000])
      return
    case 'snapshot-torn':
      for (const { hypervisor } of world.hosts) hypervisor.tornSnapshots += 1 + world.below(3)
      return
    case 'memory-spoils':
      pick(rng, world.hosts).spoiledBatches += 1
      return
    case 'rot':
      rot(world)
      return
    case 'tracker-lost':
      for (const { hypervisor } of world.hosts) hypervisor.loseTrackers()
      return
  }
}

function fill(world: World, { disk }: Host): void {
  disk.roomBytes = world.below(20) * 65_536
  world.isTroubled = true
  world.scheduler.after(60_000 + world.below(900_000), () => {
    disk.roomBytes = undefined
    world.judgeTrouble()
  })
}

/** A few pages more, and then SQLite says that there is no room; after a while there is. */
function fillOneDatabase(world: World, host: Host): void {
  const { life } = host
  if (!life) return
  const name = pick(world.rng, databaseNames)
  if (!fillDatabase(life.dir, name, world.below(4))) return
  world.note(`${name} of ${host.name} is full`)
  world.isTroubled = true
  world.scheduler.after(60_000 + world.below(900_000), () => {
    makeRoom(life.dir)
    world.judgeTrouble()
  })
}

/** What is found damaged is not used: rows of a replica come back from what lies beside it, those of a buffer from the disks. */
function rotRow(world: World, host: Host): void {
  const { life } = host
  if (!life?.parts) return
  const name = pick(world.rng, databaseNames)
  const what = damageRow(life.dir, name, [world.below(1000), world.below(1000), world.below(1000)])
  world.note(`rot in ${name} of ${host.name}: ${what}`)
  world.hasRottenRows = true
  world.isTroubled = true
  for (const vm of world.vms) {
    const side = name === 'buffer.db' ? vm.source : vm.target
    if (side !== host) continue
    for (const cause of explainedByRows[name]) for (let n = 0; n < 2; n++) expectCause(vm, cause)
  }
}

const explainedByRows = {
  // Of a VM whose rows are all gone nothing says that there were any.
  'buffer.db': ['buffer-damaged', 'tree-damaged', 'buffer-lost'],
  'replica.db': ['diverged', 'replica-damaged'],
} as const

function loseBuffer(world: World, host: Host): void {
  if (!host.life) return
  for (const vm of world.vms) if (vm.source === host) expectCause(vm, 'buffer-lost')
  world.kill(host, { power: false, downMs: downMs(world.rng), losesBuffer: true })
}

/** One bit of a layer turns, data or table. Somebody has the replica proved a while later, if the scrub did not find it. */
function rot(world: World): void {
  const vm = pick(world.rng, world.vms)
  if (world.turning.has(vm)) return
  const layers = [...vm.target.disk.files].filter(
    ([path]) => path.includes(`/replicas/${vm.vmId}/`) && path.endsWith('.qcow2'),
  )
  if (layers.length === 0) return
  const [path, file] = pick(world.rng, layers)
  const cluster = pick(world.rng, [...file.clusters.keys()])
  file.rot(cluster, world.below(65_536 * 8))
  world.note(`rot in cluster ${cluster} of ${path.slice(path.indexOf('/replicas/'))}`)
  vm.rot = 'unproved'
  // Merges and the catalog may find it first and say so.
  world.isTroubled = true
  for (let n = 0; n < 3; n++) expectCause(vm, 'replica-damaged')
  world.scheduler.after(60_000 + world.below(600_000), () => background(world, prove(world, vm)))
}
