import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { unpackBatch } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { defaultCaptureLimits } from './limits.ts'
import { captureKit, sourceVm, vm } from './test-kit/kit.ts'
import { applyDelta, batchesOf, drainAll, synchronize } from './test-kit/model-target.ts'

const MIB = 2 ** 20

async function captured(replication: Awaited<ReturnType<ReturnType<typeof captureKit>['start']>>) {
  const outcome = await replication.engine.capture(vm, { compress: true })
  if (outcome.kind !== 'sealed') throw new Error(`not sealed but ${outcome.kind}`)
  return outcome.delta
}

function expectEqualDisks(
  kit: ReturnType<typeof captureKit>,
  target: { disks: ReadonlyMap<string, { bytes: Buffer }> },
) {
  expect([...target.disks.keys()]).toEqual(kit.hypervisor.disksOfVm.map((disk) => disk.diskId))
  for (const disk of kit.hypervisor.disksOfVm) {
    const bytes = target.disks.get(disk.diskId)?.bytes.subarray(0, disk.sizeBytes)
    expect(bytes?.equals(kit.hypervisor.content(disk)), `${disk.diskId} differs`).toBe(true)
  }
}

describe('a copy cycle', () => {
  it('waits for the first synchronization', async () => {
    await using kit = captureKit()
    const { engine } = await kit.start([MIB])
    expect(await engine.capture(vm, { compress: true })).toEqual({ kind: 'needs-sync', cause: 'initial' })
    expect(kit.hypervisor.recoveries).toBe(1)
  })

  it('takes exactly the changed blocks of several disks and a point with matching roots', async () => {
    await using kit = captureKit()
    const replication = await kit.start([3 * MIB, MIB + 1000])
    const [system, data] = kit.hypervisor.disksOfVm
    if (!system || !data) throw new Error('no disks')
    kit.hypervisor.write(system, 0, randomBytes(MIB))
    expect(await synchronize(replication)).toBe(16)
    kit.hypervisor.write(system, 5, Buffer.from('x'))
    kit.hypervisor.write(system, 2 * MIB + BLOCK_BYTES - 1, Buffer.from('yz'))
    kit.hypervisor.write(data, MIB + 990, Buffer.from('end'))
    const delta = await captured(replication)
    expect(delta).toMatchObject({ epoch: 1, seq: 2, baseSeq: 1, stats: { changedBlocks: 4 } })
    expect(delta.disks.map((disk) => disk.batchCount)).toEqual([1, 1])
    expect(await drainAll(replication)).toBe(1)
    expectEqualDisks(kit, replication.target)
    expect(kit.hypervisor.released).toEqual([1, 2])
    expect((await replication.engine.usage()).bufferedBytes).toBe(0)
    expect(await replication.engine.state(vm)).toMatchObject({ sealedSeq: 2, ackedSeq: 2, bufferedBytes: 0 })
  })

  it('makes a point also when nothing changed, so that the data age stays young', async () => {
    await using kit = captureKit()
    const replication = await kit.start([MIB])
    await synchronize(replication)
    const delta = await captured(replication)
    expect(delta.disks).toMatchObject([{ batchCount: 0 }])
    expect(await drainAll(replication)).toBe(1)
    expect((await replication.engine.state(vm))?.ackedCapturedAtMs).toBe(delta.capturedAtMs)
  })

  it('finds what became a hole without reading it', async () => {
    await using kit = captureKit()
    const replication = await kit.start([32 * MIB])
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 17 * MIB, randomBytes(MIB))
    await synchronize(replication)
    kit.hypervisor.discard(disk, 17 * 16, 16)
    kit.hypervisor.readBytes = 0
    const delta = await captured(replication)
    expect(delta.stats).toMatchObject({ changedBlocks: 16, storedBytes: 0, scannedBytes: 0 })
    expect(kit.hypervisor.readBytes).toBe(0)
    await drainAll(replication)
    expectEqualDisks(kit, replication.target)
  })

  it('reads only tracked extents when there is a tracker', async () => {
    await using kit = captureKit()
    const replication = await kit.start([8 * MIB])
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(4 * MIB))
    await synchronize(replication)
    kit.hypervisor.mode = 'tracked'
    kit.hypervisor.clearTracked()
    kit.hypervisor.write(disk, MIB, randomBytes(10))
    const delta = await captured(replication)
    expect(delta.stats).toMatchObject({ changedBlocks: 1, scannedBytes: BLOCK_BYTES })
    await drainAll(replication)
    expectEqualDisks(kit, replication.target)
  })

  it('reads a sparse disk of 1 GiB with little data in it for what that data costs', async () => {
    await using kit = captureKit()
    const replication = await kit.start([1024 * MIB])
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    for (let i = 0; i < 8; i++) kit.hypervisor.write(disk, i * 128 * MIB, randomBytes(BLOCK_BYTES))
    await using session = await replication.engine.openSync(vm, { newestSeq: 0 })
    kit.hypervisor.readBytes = 0
    const [synced] = session.disks
    if (!synced) throw new Error('no disk')
    const { diskId, groupCount } = synced
    const targetNodes = Buffer.alloc(groupCount * 32)
    const groups = await session.differingGroups({ diskId, first: 0, targetNodes })
    expect(groups).toHaveLength(8)
    const targetLeaves = Buffer.alloc(256 * 32)
    for (const group of groups) {
      const request = { diskId, group, targetLeaves, firstBatch: 3, compress: false }
      const batches = await session.differingBlocks(request)
      expect(batches).toMatchObject([{ batch: 3, blockIndexes: [group * 256], storedBytes: [BLOCK_BYTES] }])
    }
    // Compared and stored in one reading.
    expect(kit.hypervisor.readBytes).toBe(8 * BLOCK_BYTES)
    await session.manifest()
    await session.commit()
    await session[Symbol.asyncDispose]()
    kit.hypervisor.readBytes = 0
    expect((await captured(replication)).stats).toMatchObject({
      changedBlocks: 0,
      scannedBytes: 8 * BLOCK_BYTES,
    })
    expect(kit.hypervisor.readBytes).toBe(8 * BLOCK_BYTES)
  })

  it('reads a fresh disk into batches that leave out what is zero, raw and compressed alike', async () => {
    await using kit = captureKit()
    const replication = await kit.start([8 * MIB])
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    const content = randomBytes(4 * MIB)
    content.fill(0, MIB + 3 * BLOCK_BYTES, MIB + 5 * BLOCK_BYTES)
    content.fill(7, 2 * MIB, 3 * MIB)
    kit.hypervisor.write(disk, 0, content)
    await using session = await replication.engine.openSync(vm, { newestSeq: 0 })
    const [synced] = session.disks
    if (!synced) throw new Error('no disk')
    const { diskId } = synced
    await session.differingGroups({ diskId, first: 0, targetNodes: Buffer.alloc(32) })
    for (const compress of [false, true]) {
      // The second time the group is hashed and is compared leaf by leaf: the same blocks.
      const request = { diskId, group: 0, targetLeaves: Buffer.alloc(256 * 32), firstBatch: 0, compress }
      const received = Buffer.alloc(4 * MIB)
      for (const batch of await session.differingBlocks(request)) {
        const blocks = unpackBatch(batch)
        expect(blocks).not.toContain(null)
        batch.blockIndexes.forEach((blockIndex, i) => {
          blocks[i]?.copy(received, blockIndex * BLOCK_BYTES)
        })
      }
      expect(received.equals(content)).toBe(true)
    }
    expect((await session.manifest()).stats).toMatchObject({
      changedBlocks: 62,
      scannedBytes: 4 * MIB + 62 * BLOCK_BYTES,
    })
  })

  it('throws a torn snapshot away and takes one that may stay open', async () => {
    await using kit = captureKit()
    const replication = await kit.start([2 * MIB], { limits: { ...defaultCaptureLimits, collectBytes: MIB } })
    await synchronize(replication)
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(2 * MIB))
    kit.hypervisor.tornSnapshots = 1
    kit.hypervisor.holds.length = 0
    const delta = await captured(replication)
    expect(kit.hypervisor.holds).toEqual(['brief', 'long'])
    expect(delta.stats.changedBlocks).toBe(32)
    await drainAll(replication)
    expectEqualDisks(kit, replication.target)
    kit.hypervisor.holds.length = 0
    await captured(replication)
    expect(kit.hypervisor.holds, 'the guest is spared a brief one now').toEqual(['long'])
    kit.hypervisor.tornSnapshots = 2
    await expect(captured(replication)).rejects.toMatchObject({ code: 'snapshot-torn' })
    expect(kit.hypervisor.openSnapshots).toBe(0)
    kit.hypervisor.tornSnapshots = 0
    expect((await captured(replication)).seq).toBe(4)
  })
})

describe('disks that come, go and change size (I6)', () => {
  it.each(['scan', 'tracked'] as const)('are ordinary deltas with the %s tracker', async (mode) => {
    await using kit = captureKit()
    const replication = await kit.start([17 * MIB + 5000, MIB])
    const [first] = kit.hypervisor.disksOfVm
    if (!first) throw new Error('no disk')
    kit.hypervisor.write(first, 0, randomBytes(first.sizeBytes))
    await synchronize(replication)
    kit.hypervisor.mode = mode
    const steps = [
      () => kit.hypervisor.resize(first, 17 * MIB + 300),
      () => kit.hypervisor.resize(first, 17 * MIB + 70_000),
      () => kit.hypervisor.resize(first, 3 * MIB + 1),
      () => kit.hypervisor.resize(first, 33 * MIB),
      () => kit.hypervisor.removeDisk(1),
      () => kit.hypervisor.write(kit.hypervisor.addDisk('disk-9', 2 * MIB), 70_000, randomBytes(70_000)),
    ]
    for (const step of steps) {
      kit.hypervisor.clearTracked()
      step()
      await captured(replication)
      expect(await drainAll(replication)).toBe(1)
      expectEqualDisks(kit, replication.target)
    }
  })
})

describe('the buffer', () => {
  const small = { ...defaultCaptureLimits, bufferMaxBytes: 8 * MIB, collectBytes: 2 * MIB }

  it('is bounded: when full nothing is taken and nothing is lost, and draining makes room (I13)', async () => {
    await using kit = captureKit()
    const replication = await kit.start([16 * MIB], { limits: small })
    await synchronize(replication)
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(5 * MIB))
    await captured(replication)
    const before = await replication.engine.usage()
    kit.hypervisor.write(disk, 6 * MIB, randomBytes(5 * MIB))
    expect(await replication.engine.capture(vm, { compress: true })).toMatchObject({ kind: 'buffer-full' })
    expect(await replication.engine.usage()).toEqual(before)
    await drainAll(replication)
    expect((await replication.engine.usage()).bufferedBytes).toBe(0)
    expect((await captured(replication)).stats.changedBlocks).toBe(80)
    await drainAll(replication)
    expectEqualDisks(kit, replication.target)
  })

  it('that one delta overflows asks for a synchronization instead of waiting for ever', async () => {
    await using kit = captureKit()
    const replication = await kit.start([16 * MIB], { limits: small })
    await synchronize(replication)
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(12 * MIB))
    const outcome = await replication.engine.capture(vm, { compress: true })
    expect(outcome).toEqual({ kind: 'needs-sync', cause: 'buffer-overflow' })
    expect((await replication.engine.usage()).bufferedBytes).toBe(0)
    expect(await synchronize(replication)).toBe(12 * 16)
    expectEqualDisks(kit, replication.target)
  })

  it('keeps deltas until they are acknowledged, gives the same bytes again, and takes repeats (I2, I4)', async () => {
    await using kit = captureKit()
    const replication = await kit.start([4 * MIB])
    await synchronize(replication)
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    const { engine } = replication
    for (let i = 0; i < 3; i++) {
      kit.hypervisor.write(disk, i * MIB, Buffer.concat([randomBytes(50_000), Buffer.alloc(100_000, i + 1)]))
      await captured(replication)
    }
    const first = await engine.nextDelta(vm, 1)
    const second = await engine.nextDelta(vm, 2)
    if (!first || !second) throw new Error('no delta')
    expect(await batchesOf(engine, first)).toEqual(await batchesOf(engine, first))
    await applyDelta(replication, first)
    await engine.acknowledge(vm, first.seq)
    await engine.acknowledge(vm, first.seq)
    await engine.acknowledge(vm, 1)
    await engine.acknowledge(vm, 99)
    expect(await engine.state(vm)).toMatchObject({ sealedSeq: 4, ackedSeq: 2 })
    await expect(batchesOf(engine, first)).rejects.toMatchObject({ code: 'delta-unknown' })
    expect((await engine.nextDelta(vm, 0))?.seq).toBe(3)
    await drainAll(replication)
    expectEqualDisks(kit, replication.target)
  })
})

describe('a synchronization', () => {
  it('sends only blocks that differ, keeps the trees until the commit, and replaces buffered deltas', async () => {
    await using kit = captureKit()
    const replication = await kit.start([33 * MIB])
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(20 * MIB))
    await synchronize(replication)
    kit.hypervisor.write(disk, 17 * MIB, randomBytes(3 * BLOCK_BYTES))
    await captured(replication)
    await replication.engine.requireSync(vm, 'requested')
    expect(await replication.engine.nextDelta(vm, 0)).toBeUndefined()
    kit.hypervisor.write(disk, 30 * MIB, randomBytes(10))
    const sent = await synchronize(replication, async () => {
      expect(await replication.engine.state(vm)).toMatchObject({
        sealedSeq: 2,
        ackedSeq: 1,
        needsSync: 'requested',
      })
      await expect(captured(replication)).rejects.toMatchObject({ code: 'synchronization-running' })
    })
    expect(sent).toBe(4)
    expect(await replication.engine.state(vm)).toMatchObject({ sealedSeq: 3, ackedSeq: 3, needsSync: null })
    expectEqualDisks(kit, replication.target)
    kit.hypervisor.write(disk, 5 * MIB, randomBytes(10))
    expect((await captured(replication)).stats.changedBlocks).toBe(1)
    await drainAll(replication)
    expectEqualDisks(kit, replication.target)
  })

  it('that is broken off changes nothing; the next one finds equal what arrived', async () => {
    await using kit = captureKit()
    const replication = await kit.start([4 * MIB])
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(2 * MIB))
    const broken = synchronize(replication, async () => {
      throw new Error('link lost')
    })
    await expect(broken).rejects.toThrow('link lost')
    expect(await replication.engine.state(vm)).toMatchObject({ sealedSeq: 0, needsSync: 'initial' })
    expect(await synchronize(replication)).toBe(0)
    expectEqualDisks(kit, replication.target)
  })

  it('does not describe a point before everything was compared, nor one from a torn snapshot', async () => {
    await using kit = captureKit()
    const { engine } = await kit.start([33 * MIB])
    {
      await using session = await engine.openSync(vm, { newestSeq: 7 })
      expect(session).toMatchObject({ seq: 8, baseSeq: 7 })
      const [disk] = session.disks
      if (!disk) throw new Error('no disk')
      await session.differingGroups({ diskId: disk.diskId, first: 0, targetNodes: Buffer.alloc(64) })
      await expect(session.manifest()).rejects.toMatchObject({ code: 'synchronization-incomplete' })
      await expect(session.commit()).rejects.toMatchObject({ code: 'synchronization-incomplete' })
      await session.differingGroups({ diskId: disk.diskId, first: 2, targetNodes: Buffer.alloc(32) })
      kit.hypervisor.tornSnapshots = 1
      await expect(session.manifest()).rejects.toMatchObject({ code: 'snapshot-torn' })
    }
    expect(kit.hypervisor.openSnapshots).toBe(0)
  })
})

describe('epochs', () => {
  it('only rise; a repeat is recognised; a raised one asks for a synchronization and drops what was buffered', async () => {
    await using kit = captureKit()
    const replication = await kit.start([MIB])
    const { engine } = replication
    await synchronize(replication)
    await captured(replication)
    await engine.add(sourceVm, 'requested')
    expect(await engine.state(vm)).toMatchObject({ needsSync: null, sealedSeq: 2 })
    await engine.add({ ...sourceVm, epoch: 3 }, 'reversed')
    expect(await engine.state(vm)).toMatchObject({
      epoch: 3,
      needsSync: 'reversed',
      sealedSeq: 2,
      bufferedBytes: 0,
    })
    const error = await engine.add({ ...sourceVm, epoch: 2 }, 'initial').catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(HotsiteError)
    expect(error).toMatchObject({ code: 'epoch-stale' })
    await engine.forget(vm)
    await expect(engine.capture(vm, { compress: true })).rejects.toMatchObject({ code: 'vm-not-replicated' })
    expect(await engine.states()).toEqual([])
  })

  it('raised while a capture reads: the capture seals nothing', async () => {
    await using kit = captureKit()
    const replication = await kit.start([MIB])
    const { engine } = replication
    const [disk] = kit.hypervisor.disksOfVm
    if (!disk) throw new Error('no disk')
    kit.hypervisor.write(disk, 0, randomBytes(MIB))
    await synchronize(replication)
    kit.hypervisor.onRead = () => void engine.requireSync(vm, 'diverged')
    expect(await engine.capture(vm, { compress: true })).toEqual({ kind: 'needs-sync', cause: 'diverged' })
    expect(await engine.state(vm)).toMatchObject({ sealedSeq: 1, bufferedBytes: 0 })
  })
})
