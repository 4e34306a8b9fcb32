import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { noHistory, withSample } from '#shared/policy/anomaly.ts'
import { type KnownPoint, keptPoints, type PendingDelta, planCatchUp } from '#shared/policy/catch-up.ts'
import { openManifest } from '#shared/trust/point-manifest.ts'
import type { SealedDelta } from './port.ts'
import { captureKit, vm } from './test-kit/kit.ts'
import type { Replication } from './test-kit/model-target.ts'
import { synchronize } from './test-kit/model-target.ts'

const MiB = 1 << 20
const policy = { retentionPoints: 15, retentionIntervalSeconds: 1200, appConsistentHours: 0 }

const asPending = ({ epoch, seq, capturedAtMs, consistency, disks, stats }: SealedDelta): PendingDelta => ({
  epoch,
  seq,
  capturedAtMs,
  consistency,
  suspect: false,
  changedBlocks: stats.changedBlocks,
  layout: disks.map(({ diskId, sizeBytes }) => `${diskId}/${sizeBytes}`).join(' '),
})

/** What a source does after an outage: runs, each attested by the target; answers what arrived and what travelled. */
async function catchUp({ engine, target, vmId, publicKey }: Replication, held: readonly KnownPoint[]) {
  const arrived: SealedDelta[] = []
  let blocks = 0
  for (;;) {
    const pending = (await engine.pendingDeltas(vmId)).map(asPending)
    const [run] = planCatchUp({ held: [...held, ...arrived.map(asPending)], pending, policy, maxBlocks: 1e6 })
    const delta = await engine.nextDelta(vmId, target.seq, run?.lastSeq)
    if (!delta) return { arrived, blocks }
    expect([delta.baseSeq, delta.firstSeq, delta.seq]).toEqual([target.seq, run?.firstSeq, run?.lastSeq])
    target.resize(delta.disks)
    for (const { diskId, batchCount } of delta.disks)
      for (let batch = 0; batch < batchCount; batch++) {
        const { firstSeq, seq } = delta
        const stored = await engine.readBatch({ vmId, seq, firstSeq, diskId, batch })
        expect(stored.batch).toBe(batch)
        blocks += stored.blockIndexes.length
        target.apply(diskId, stored)
      }
    // Throws unless the bytes that came are those the source signed.
    target.attest(delta.manifest, publicKey)
    expect(delta.stats.changedBlocks).toBeLessThanOrEqual(
      pending.reduce((sum, one) => sum + one.changedBlocks, 0),
    )
    await engine.acknowledge(vmId, delta.seq)
    arrived.push(delta)
  }
}

test('an hour without the target, a copy every 30 s: no synchronization, every point that stays, the union of the blocks', async () => {
  await using kit = captureKit()
  const replication = await kit.start([8 * MiB, 2 * MiB])
  const { engine, target } = replication
  const [first, second] = kit.hypervisor.disksOfVm
  if (!first || !second) throw new Error('two disks')
  await synchronize(replication)
  const held = [
    { epoch: 1, seq: 1, capturedAtMs: kit.hypervisor.nowMs, consistency: 'crash' as const, suspect: false },
  ]
  for (let cycle = 0; cycle < 120; cycle++) {
    kit.hypervisor.nowMs += 30_000
    // Mostly the same blocks, as a database does it, one block of its own, and now and then a discard.
    const hot = Buffer.alloc(4 * BLOCK_BYTES, `hot ${cycle}`)
    kit.hypervisor.write(first, 0, hot)
    kit.hypervisor.write(first, ((8 + cycle) % 128) * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, `own ${cycle}`))
    if (cycle % 7 === 3) kit.hypervisor.discard(second, cycle % 32, 2)
    else kit.hypervisor.write(second, (cycle % 32) * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, cycle))
    expect(await engine.capture(vm, { compress: true })).toMatchObject({ kind: 'sealed' })
  }
  const pending = (await engine.pendingDeltas(vm)).map(asPending)
  expect(pending.length).toBe(120)
  const { arrived, blocks } = await catchUp(replication, held)
  const staying = keptPoints([...held, ...pending], policy).map(({ seq }) => seq)
  expect(arrived.map(({ seq }) => seq)).toEqual(staying.filter((seq) => seq > 1))
  expect(arrived.length).toBe(3)
  expect(target.seq).toBe(121)
  const sum = pending.reduce((total, { changedBlocks }) => total + changedBlocks, 0)
  expect(blocks).toBeLessThan(sum / 2)
  expect((await engine.state(vm))?.needsSync).toBeNull()
  for (const disk of [first, second])
    expect(target.disks.get(disk.diskId)?.bytes.equals(kit.hypervisor.content(disk))).toBe(true)
}, 60_000)

test('whatever was written in between, a run makes the target what the last of its deltas would have made it', async () => {
  const write = fc.record({ block: fc.nat(40), blocks: fc.integer({ min: 1, max: 20 }), fill: fc.nat(3) })
  const cycles = fc.array(fc.array(write, { maxLength: 4 }), { minLength: 2, maxLength: 8 })
  await fc.assert(
    fc.asyncProperty(cycles, async (histories) => {
      await using kit = captureKit()
      const replication = await kit.start([61 * BLOCK_BYTES - 1000])
      const [disk] = kit.hypervisor.disksOfVm
      if (!disk) throw new Error('a disk')
      await synchronize(replication)
      for (const writes of histories) {
        for (const { block, blocks, fill } of writes) {
          const lengthBytes = Math.min(blocks * BLOCK_BYTES, disk.sizeBytes - block * BLOCK_BYTES)
          // 0 is a zero block again; the others hold something of their own.
          kit.hypervisor.write(disk, block * BLOCK_BYTES, Buffer.alloc(lengthBytes, fill))
        }
        await replication.engine.capture(vm, { compress: true })
      }
      const last = histories.length + 1
      const delta = await replication.engine.nextDelta(vm, 1, last)
      expect([delta?.firstSeq, delta?.seq, delta?.baseSeq]).toEqual([2, last, 1])
      await catchUp(replication, [])
      const { bytes } = replication.target.disks.get(disk.diskId) ?? {}
      expect(bytes?.subarray(0, disk.sizeBytes).equals(kit.hypervisor.content(disk))).toBe(true)
    }),
    { numRuns: 15 },
  )
}, 60_000)

test('a run can be resumed at any batch, also by an engine that never saw it', async () => {
  await using kit = captureKit()
  const { engine, target } = await kit.start([8 * MiB])
  const [disk] = kit.hypervisor.disksOfVm
  if (!disk) throw new Error('a disk')
  await synchronize({ engine, target, vmId: vm, publicKey: kit.publicKey })
  for (let cycle = 0; cycle < 4; cycle++) {
    kit.hypervisor.write(disk, cycle * 10 * BLOCK_BYTES, Buffer.alloc(30 * BLOCK_BYTES, cycle + 1))
    await engine.capture(vm, { compress: false })
  }
  const delta = await engine.nextDelta(vm, 1, 5)
  if (!delta) throw new Error('a run')
  const batchCount = delta.disks[0]?.batchCount ?? 0
  expect(batchCount).toBe(Math.ceil(60 / 16))
  const request = (batch: number) => ({ vmId: vm, seq: 5, firstSeq: 2, diskId: disk.diskId, batch })
  const before = await Promise.all(
    Array.from({ length: batchCount }, (_, batch) => engine.readBatch(request(batch))),
  )
  await expect(engine.readBatch(request(batchCount))).rejects.toMatchObject({ code: 'delta-unknown' })
  await engine[Symbol.asyncDispose]()
  const again = await kit.open()
  expect(await again.readBatch(request(2))).toEqual(before[2])
  expect(await again.nextDelta(vm, 1, 5)).toEqual(delta)
})

test('writes unlike the ordinary ones are marked in the signed description of their point', async () => {
  await using kit = captureKit()
  const { engine, target } = await kit.start([128 * MiB])
  const [disk] = kit.hypervisor.disksOfVm
  if (!disk) throw new Error('a disk')
  await synchronize({ engine, target, vmId: vm, publicKey: kit.publicKey })
  let history = noHistory
  for (let i = 0; i < 40; i++)
    history = withSample(
      history,
      { changedBlocks: 20 + (i % 5), storedShare: 0.4, seconds: 30, suspect: false },
      i,
    )
  const suspectOf = async (elapsedMs: number) => {
    const outcome = await engine.capture(vm, { compress: false, writes: { history, elapsedMs } })
    if (outcome.kind !== 'sealed') throw new Error(outcome.kind)
    const { manifest, stats } = outcome.delta
    expect(openManifest(manifest, kit.publicKey).suspect).toBe(stats.suspect)
    return stats
  }
  kit.hypervisor.write(disk, 0, Buffer.alloc(20 * BLOCK_BYTES, 'a line of an ordinary log file\n'))
  const ordinary = await suspectOf(30_000)
  expect(ordinary.suspect).toBe('')
  expect(ordinary.storedShare).toBeLessThan(0.1)
  const encrypted = Buffer.alloc(96 * MiB)
  crypto.getRandomValues(new Uint8Array(encrypted.buffer, encrypted.byteOffset, 65_536))
  for (let at = 65_536; at < encrypted.length; at += 65_536)
    crypto.getRandomValues(new Uint8Array(encrypted.buffer, encrypted.byteOffset + at, 65_536))
  kit.hypervisor.write(disk, 0, encrypted)
  const attacked = await suspectOf(30_000)
  expect(attacked.storedShare).toBe(1)
  expect(attacked.suspect).toMatch(/1536 blocks changed.*keeps 100 % of its size/)
}, 30_000)
