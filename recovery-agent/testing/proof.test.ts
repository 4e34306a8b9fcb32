/** Rot at the target, with two real agents: found, named, healed from the source, and never served. */
import { closeSync, openSync, readSync, rmSync, truncateSync, writeSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { nodeFiles } from '../replica/files.ts'
import { type TwoHosts, twoHosts, until, VM } from './two-hosts.ts'

let hosts: TwoHosts
let diskId: DiskId

const signal = new AbortController().signal

async function open(options: Parameters<typeof twoHosts>[0] = {}): Promise<void> {
  hosts = await twoHosts(options)
  diskId = defined(hosts.vm.file.disks[0], 'disk').id as DiskId
  hosts.write(0, 0, 24, 1)
  hosts.write(1, 0, 4, 1)
  await hosts.protect({ policy: { proofHours: 0, retentionPoints: 15 } })
  await until('the first point', async () => (await hosts.west.agent.store.points(VM)).length === 1)
}

async function copy(): Promise<void> {
  await hosts.east.agent.handlers['replication.copyNow']({ vmId: VM }, signal)
}

async function verify() {
  return await hosts.west.agent.handlers['replica.verify']({ vmId: VM, percent: 100 }, signal)
}

async function newestLayer(): Promise<string> {
  const points = await hosts.west.agent.store.points(VM)
  return await hosts.west.agent.store.layerPath(VM, defined(points.at(-1), 'point'), diskId)
}

async function layerOf(index: number): Promise<string> {
  const points = await hosts.west.agent.store.points(VM)
  return await hosts.west.agent.store.layerPath(VM, defined(points[index], 'point'), diskId)
}

/** One bit of the cluster that holds a block. */
function rot(path: string, blockIndex: number): void {
  const file = nodeFiles.open(path, 'read')
  const cluster = readLayer(file, path).map.get(blockIndex)
  file.close()
  expect(cluster).toBeGreaterThan(0)
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, cluster * 65_536 + 100)
  byte[0] = (byte[0] ?? 0) ^ 4
  writeSync(fd, byte, 0, 1, cluster * 65_536 + 100)
  closeSync(fd)
}

const bad = (result: Awaited<ReturnType<typeof verify>>) =>
  result.disks.reduce((sum, disk) => sum + disk.badBlocks, 0)
const healed = (result: Awaited<ReturnType<typeof verify>>) =>
  result.disks.reduce((sum, disk) => sum + disk.healedBlocks, 0)

describe.skipIf(!hasTool('qemu-img'))('proof of a replica', () => {
  afterEach(async () => await hosts[Symbol.asyncDispose]())

  it('heals rotten blocks, a truncated layer and one that is gone from the running source', async () => {
    await open()
    hosts.write(0, 30, 6, 2)
    await copy()
    rot(await layerOf(0), 3)
    rot(await newestLayer(), 31)
    const first = await verify()
    expect([healed(first), bad(first), first.damagedPoints]).toEqual([2, 0, []])
    await hosts.compareNewest()

    truncateSync(await layerOf(0), 400_000)
    const second = await verify()
    expect(healed(second)).toBeGreaterThan(0)
    expect([bad(second), second.damagedPoints]).toEqual([0, []])
    await hosts.compareNewest()

    rmSync(await newestLayer())
    const third = await verify()
    expect([bad(third), third.damagedPoints]).toEqual([0, []])
    await hosts.compareNewest()
    expect(hosts.west.events().map(({ code }) => code)).toContain('layer-damaged')
  })

  it('heals on the way when a failover wants a point that rotted unseen', async () => {
    await open()
    rot(await newestLayer(), 5)
    const request = {
      vmId: VM,
      overlayId: 'ov-1' as OverlayId,
      point: null,
      purpose: 'test' as const,
      verify: true,
    }
    const { disks } = await hosts.west.agent.handlers['overlay.create'](request, signal)
    expect(disks).toHaveLength(2)
    await hosts.compareNewest()
  })

  it('refuses the points the source cannot help with, names them, and goes on with newer ones', async () => {
    await open()
    rot(await newestLayer(), 3)
    // The source has moved on: what point 1 showed is nowhere any more.
    hosts.write(0, 3, 1, 9)
    const found = await verify()
    expect(bad(found)).toBe(1)
    expect(found.damagedPoints).toHaveLength(1)
    const create = (point: { epoch: number; seq: number } | null, overlayId: string) =>
      hosts.west.agent.handlers['overlay.create'](
        { vmId: VM, overlayId: overlayId as OverlayId, point, purpose: 'test', verify: false },
        signal,
      )
    await expect(create(null, 'ov-latest')).rejects.toMatchObject({ code: 'point-damaged' })
    expect(hosts.west.events().filter(({ severity }) => severity === 'critical')[0]?.code).toBe(
      'replica-damaged',
    )
    await copy()
    await hosts.compareNewest()
    await create(null, 'ov-newest')
    await expect(create(defined(found.damagedPoints[0], 'point'), 'ov-old')).rejects.toMatchObject({
      code: 'point-damaged',
    })
    expect((await hosts.west.agent.store.points(VM)).map(({ damaged }) => damaged)).toEqual([true, false])
  })

  it('makes the source synchronize anew when the newest point stays damaged', async () => {
    await open({
      eastOverrides: {
        wrapEngine: (engine) => ({
          ...engine,
          readProved: async () => ({ batch: 0, blockIndexes: [], storedBytes: [], payload: Buffer.alloc(0) }),
        }),
      },
    })
    rot(await newestLayer(), 3)
    expect(bad(await verify())).toBe(1)
    hosts.write(0, 40, 1, 9)
    await copy().catch(() => {})
    const causes = new Set<string | null>()
    await until('a sound newest point', async () => {
      causes.add(hosts.east.report().cause)
      return !(await hosts.west.agent.store.points(VM)).at(-1)?.damaged
    })
    await hosts.compareNewest()
    const points = await hosts.west.agent.store.points(VM)
    expect(points.map(({ damaged }) => damaged)).toEqual([true, true, false])
    // Only what was damaged travelled.
    expect(points.at(-1)?.changedBytes).toBe(65_536)
  })
})
