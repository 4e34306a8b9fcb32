/** Random lives of a VM against a target that hashes its own bytes: every point equals the disks at its capture. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { defaultCaptureLimits } from './limits.ts'
import { captureKit, sourceVm, vm } from './test-kit/kit.ts'
import { applyDelta, type Replication, synchronize } from './test-kit/model-target.ts'

const MIB = 2 ** 20
const limits = { ...defaultCaptureLimits, bufferMaxBytes: 6 * MIB, collectBytes: MIB, transactionBytes: MIB }

const disk = fc.nat({ max: 2 })
// Up to 17 MiB: beyond one group of the tree, and ends that are no multiple of a block.
const sizeBytes = fc.oneof(
  fc.integer({ min: 1, max: 4 * MIB }),
  fc.integer({ min: 16 * MIB - 1, max: 17 * MIB }),
)
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      disk,
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      lengthBytes: fc.integer({ min: 1, max: 3 * BLOCK_BYTES }),
      fill: fc.integer({ min: 0, max: 255 }),
      random: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('discard' as const),
      disk,
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      blocks: fc.integer({ min: 1, max: 300 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('resize' as const), disk, sizeBytes }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('add-disk' as const), sizeBytes }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove-disk' as const), disk }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('capture' as const), compress: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('deliver' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('sync' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

it('every point equals the disks at its capture, whatever happened before', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('scan' as const, 'tracked' as const),
      fc.array(step, { minLength: 5, maxLength: 30 }),
      live,
    ),
    { numRuns: 12, endOnFailure: true },
  )
})

async function live(mode: 'scan' | 'tracked', steps: readonly Step[]): Promise<void> {
  await using kit = captureKit()
  const { hypervisor } = kit
  hypervisor.mode = mode
  let replication: Replication = await kit.start([3 * MIB, 17 * MIB + 1], { limits })
  const truth = new Map<number, Map<string, Buffer>>()
  const remember = (seq: number) =>
    truth.set(seq, new Map(hypervisor.disksOfVm.map((d) => [d.diskId as string, hypervisor.content(d)])))
  const compare = () => {
    const { seq, disks } = replication.target
    const expected = truth.get(seq)
    expect([...disks.keys()]).toEqual([...(expected?.keys() ?? [])])
    for (const [id, { bytes, sizeBytes: size }] of disks)
      expect(expected?.get(id)?.equals(bytes.subarray(0, size)), `${id} at ${seq}`).toBe(true)
  }
  const sync = async () => {
    await synchronize(replication, async () => {
      remember(replication.target.seq)
    })
    compare()
  }
  const deliverOne = async () => {
    const delta = await replication.engine.nextDelta(vm, replication.target.seq)
    if (!delta) return false
    await applyDelta(replication, delta)
    compare()
    await replication.engine.acknowledge(vm, delta.seq)
    return true
  }
  const capture = async (compress: boolean) => {
    const outcome = await replication.engine.capture(vm, { compress })
    if (outcome.kind === 'sealed') remember(outcome.delta.seq)
    if (outcome.kind === 'needs-sync') await sync()
    return outcome.kind
  }
  await sync()
  let disks = 2
  for (const current of steps) {
    const chosen = hypervisor.disksOfVm['disk' in current ? current.disk : 0]
    switch (current.kind) {
      case 'write': {
        if (!chosen) break
        const at = Math.floor(current.at * (chosen.sizeBytes - 1))
        const bytes = Buffer.alloc(Math.min(current.lengthBytes, chosen.sizeBytes - at), current.fill)
        if (current.random)
          for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 2654435761 + current.fill) >>> 13
        hypervisor.write(chosen, at, bytes)
        break
      }
      case 'discard':
        if (chosen)
          hypervisor.discard(
            chosen,
            Math.floor((current.at * chosen.sizeBytes) / BLOCK_BYTES),
            current.blocks,
          )
        break
      case 'resize':
        if (chosen) hypervisor.resize(chosen, current.sizeBytes)
        break
      case 'add-disk':
        if (hypervisor.disksOfVm.length < 3) hypervisor.addDisk(`disk-${disks++}`, current.sizeBytes)
        break
      case 'remove-disk':
        if (chosen && hypervisor.disksOfVm.length > 1) hypervisor.removeDisk(current.disk)
        break
      case 'capture':
        await capture(current.compress)
        break
      case 'deliver':
        await deliverOne()
        break
      case 'restart':
        await replication.engine[Symbol.asyncDispose]()
        replication = { ...replication, engine: await kit.open({ limits }) }
        await replication.engine.add(sourceVm, 'initial')
        break
      case 'sync':
        await replication.engine.requireSync(vm, 'requested')
        await sync()
        break
    }
  }
  while (await deliverOne());
  expect(await capture(true)).not.toBe('buffer-full')
  while (await deliverOne());
  remember(replication.target.seq)
  compare()
  expect((await replication.engine.usage()).bufferedBytes).toBe(0)
}
