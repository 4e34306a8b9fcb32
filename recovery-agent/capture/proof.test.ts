/** Re-reading what a tracker called unchanged, and what a cycle costs. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { HASH_BYTES } from '#shared/blocks/hash-tree.ts'
import { vmId } from '#shared/ids.ts'
import { openBuffer } from '../buffer/buffer.ts'
import { createCaptureEngine } from './engine.ts'
import { defaultCaptureLimits } from './limits.ts'
import type { CaptureEngine } from './port.ts'
import { captureKit, sourceVm, vm } from './test-kit/kit.ts'
import { drainAll, ModelTarget, type Replication, synchronize } from './test-kit/model-target.ts'

const MIB = 2 ** 20

type Kit = ReturnType<typeof captureKit>

function firstDisk(kit: Kit) {
  const [disk] = kit.hypervisor.disksOfVm
  if (!disk) throw new Error('no disk')
  return disk
}

/** A tracked disk of 32 MiB, full, synchronized. */
async function tracked(kit: Kit): Promise<Replication> {
  const limits = { ...defaultCaptureLimits, proveBytes: 4 * MIB, paceMs: 1 }
  const replication = await kit.start([32 * MIB], { limits })
  kit.hypervisor.write(firstDisk(kit), 0, randomBytes(32 * MIB))
  await synchronize(replication)
  kit.hypervisor.mode = 'tracked'
  kit.hypervisor.clearTracked()
  return replication
}

async function sealed(engine: CaptureEngine, proofHours: number) {
  const outcome = await engine.capture(vm, { compress: true, proofHours })
  if (outcome.kind !== 'sealed') throw new Error(`not sealed but ${outcome.kind}`)
  return outcome
}

function expectEqual(kit: Kit, { target }: Replication): void {
  const disk = firstDisk(kit)
  expect(target.disks.get(disk.diskId)?.bytes.equals(kit.hypervisor.content(disk))).toBe(true)
}

/** So short a time for the whole disk that every cycle re-reads what it may. */
const AT_ONCE = 1e-9

describe('a tracker that lies', () => {
  it('is found within one walk, and all its lies are in that same delta', async () => {
    await using kit = captureKit()
    const replication = await tracked(kit)
    const disk = firstDisk(kit)
    kit.hypervisor.writeUnseen(disk, 20 * MIB, randomBytes(10))
    kit.hypervisor.writeUnseen(disk, 12 * MIB, Buffer.alloc(BLOCK_BYTES))
    kit.hypervisor.writeUnseen(disk, 30 * MIB, randomBytes(10))
    // Where the walk comes by last, and a change the tracker knows of.
    kit.hypervisor.write(disk, 25 * MIB, randomBytes(10))
    await sealed(replication.engine, 0)
    const outcome = await sealed(replication.engine, AT_ONCE)
    expect(outcome.findings).toEqual([])
    for (let cycle = 0; cycle < 8; cycle++) {
      const { findings, delta } = await sealed(replication.engine, AT_ONCE)
      if (findings.length === 0) continue
      expect(findings).toEqual([{ kind: 'tracker-wrong', diskId: disk.diskId, blocks: 3 }])
      expect(delta.stats.changedBlocks).toBe(3)
      break
    }
    await drainAll(replication)
    expectEqual(kit, replication)
    expect((await sealed(replication.engine, AT_ONCE)).findings).toEqual([])
  })

  it('costs nothing but the walk when it does not lie, and the walk goes on in the next life', async () => {
    await using kit = captureKit()
    const replication = await tracked(kit)
    await sealed(replication.engine, AT_ONCE)
    const before = (await replication.engine.state(vm))?.proof
    await replication.engine[Symbol.asyncDispose]()
    const engine = await kit.open({ limits: { ...defaultCaptureLimits, proveBytes: 4 * MIB } })
    expect((await engine.state(vm))?.proof).toEqual(before)
    const provedBefore = before?.[0]?.provedAtMs ?? 0
    const percents: number[] = []
    for (let cycle = 0; cycle < 40; cycle++) {
      const { delta, findings } = await sealed(engine, AT_ONCE)
      expect(delta.stats.scannedBytes).toBeLessThanOrEqual(4 * MIB)
      expect(findings).toEqual([])
      const [proof] = (await engine.state(vm))?.proof ?? []
      percents.push(proof?.percent ?? 0)
      if ((proof?.provedAtMs ?? 0) > provedBefore) break
    }
    expect(percents.at(-1)).toBe(100)
    expect(percents.length).toBeGreaterThan(1)
    await drainAll({ ...replication, engine })
  })
})

describe('a verification', () => {
  it('compares as much as was asked for, whatever the tracker says, on a snapshot that may stay open', async () => {
    await using kit = captureKit()
    const replication = await tracked(kit)
    const disk = firstDisk(kit)
    kit.hypervisor.holds.length = 0
    expect(await replication.engine.verify(vm, { percent: 50 })).toMatchObject({
      kind: 'verified',
      disks: [{ diskId: disk.diskId, checkedBlocks: 256, totalBlocks: 512, untrackedBlocks: 0 }],
    })
    kit.hypervisor.writeUnseen(disk, 9 * MIB, randomBytes(3 * BLOCK_BYTES))
    expect(await replication.engine.verify(vm, { percent: 100 })).toMatchObject({
      disks: [{ checkedBlocks: 512, totalBlocks: 512, untrackedBlocks: 3 }],
    })
    expect(kit.hypervisor.holds).toEqual(['long', 'long'])
    expect((await replication.engine.state(vm))?.proof).toMatchObject([
      { diskId: disk.diskId, percent: 100, provedAtMs: kit.hypervisor.nowMs, badBlocks: 0 },
    ])
    await drainAll(replication)
    expectEqual(kit, replication)
  })

  it('keeps no other VM of the host from its copy cycles, and its own until it has ended', async () => {
    await using kit = captureKit()
    const replication = await tracked(kit)
    const { engine } = replication
    const other = vmId.parse('vm-2')
    await engine.add({ ...sourceVm, vmId: other }, 'initial')
    await synchronize({ ...replication, vmId: other, target: new ModelTarget() })
    const ended: string[] = []
    const noted = (name: string, work: Promise<{ kind: string }>) =>
      work.then(({ kind }) => ended.push(`${name} ${kind}`))
    await Promise.all([
      noted('verification', engine.verify(vm, { percent: 100 })),
      noted('its next cycle', engine.capture(vm, { compress: true })),
      noted('the other VM', engine.capture(other, { compress: true })),
    ])
    expect(ended).toEqual(['the other VM sealed', 'verification verified', 'its next cycle sealed'])
    await drainAll(replication)
    expectEqual(kit, replication)
  })

  it('of a disk without a tracker is an ordinary cycle', async () => {
    await using kit = captureKit()
    const replication = await tracked(kit)
    kit.hypervisor.mode = 'scan'
    kit.hypervisor.write(firstDisk(kit), 0, randomBytes(10))
    expect(await replication.engine.verify(vm, { percent: 1 })).toMatchObject({
      kind: 'verified',
      disks: [{ checkedBlocks: 512, totalBlocks: 512, untrackedBlocks: 0 }],
    })
    await replication.engine.requireSync(vm, 'requested')
    expect(await replication.engine.verify(vm, { percent: 1 })).toEqual({
      kind: 'needs-sync',
      cause: 'requested',
    })
  })
})

describe('the cost of a cycle with 100 changed blocks', () => {
  /** Compared with an empty target, so that the disk need not be held in memory. */
  async function synchronizeEmpty(engine: CaptureEngine): Promise<void> {
    await using session = await engine.openSync(vm, { newestSeq: 0 })
    for (const { diskId, groupCount } of session.disks) {
      const targetNodes = Buffer.alloc(groupCount * HASH_BYTES)
      for (const group of await session.differingGroups({ diskId, first: 0, targetNodes })) {
        const targetLeaves = Buffer.alloc(256 * HASH_BYTES)
        await session.differingBlocks({ diskId, group, targetLeaves, firstBatch: 0, compress: false })
      }
    }
    await session.manifest()
    await session.commit()
  }

  async function costOf(sizeBytes: number) {
    await using kit = captureKit()
    const { hypervisor } = kit
    const disk = hypervisor.addDisk('disk-0', sizeBytes)
    const step = Math.floor(blockCountOf(sizeBytes) / 100) * BLOCK_BYTES
    for (let i = 0; i < 100; i++) hypervisor.write(disk, i * step, randomBytes(2 * BLOCK_BYTES))
    const buffer = openBuffer(`${kit.dir}/buffer.db`)
    await using engine = await createCaptureEngine({ ...kit.deps, buffer })
    await engine.add(sourceVm, 'initial')
    await synchronizeEmpty(engine)
    hypervisor.mode = 'tracked'
    hypervisor.clearTracked()
    for (let i = 0; i < 100; i++) hypervisor.write(disk, i * step, randomBytes(10))
    const { pagesRead, pagesWritten } = buffer.leaves.counters
    Object.assign(hypervisor, { readBytes: 0, allocationLists: 0, allocationSteps: 0 })
    expect((await sealed(engine, 0)).delta.stats.changedBlocks).toBe(100)
    return {
      pagesRead: buffer.leaves.counters.pagesRead - pagesRead,
      pagesWritten: buffer.leaves.counters.pagesWritten - pagesWritten,
      readBytes: hypervisor.readBytes,
      allocationLists: hypervisor.allocationLists,
      allocationSteps: hypervisor.allocationSteps,
    }
  }

  it.each([
    ['1 GiB', 2 ** 30],
    ['64 GiB', 2 ** 36],
    ['1 TiB', 2 ** 40],
  ])('is that of the changed paths: %s', async (_name, sizeBytes) => {
    const cost = await costOf(sizeBytes)
    // At most 100 groups: read to compare, once more to be stored, and written; with at most 100 pages above them and
    // two over those, read once and written once.
    expect(cost.pagesRead).toBeLessThanOrEqual(2 * 100 + 102)
    expect(cost.pagesWritten).toBeLessThanOrEqual(100 + 102)
    expect(cost).toMatchObject({ readBytes: 100 * BLOCK_BYTES, allocationLists: 0 })
    expect(cost.allocationSteps).toBeLessThanOrEqual(200)
  })
})
