import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { type ModelDelta, ModelVm, prepareReplica, send, testVm } from '../testing/model-vm.ts'
import { newestFirst } from '../testing/newest-first.ts'

const disk0 = 'disk-0' as DiskId
let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(5), { 'disk-0': 600 * 65_536 + 512, 'disk-1': 6 * 65_536 })
})
afterEach(() => fixture[Symbol.dispose]())

const keepAll = { retentionPoints: 15, retentionIntervalSeconds: 0 }

function captured(scribbles: number, kind: 'delta' | 'sync' = 'delta'): ModelDelta {
  vm.scribble(scribbles)
  const delta = vm.capture({ kind })
  fixture.history.set(delta.header.seq, delta)
  return delta
}

/** Points 1 and 2; then 3 to 8 waited, in three runs. */
function afterAnOutage(retention = keepAll) {
  prepareReplica(fixture.store, vm, retention)
  fixture.deliver(captured(40, 'sync'))
  fixture.deliver(captured(10))
  return newestFirst([[captured(9), captured(9)], [captured(9)], [captured(9), captured(9), captured(9)]])
}

const pruneAll = () => {
  while (fixture.store.prune(testVm, 0));
}

const codeOf = (work: () => unknown): unknown => {
  try {
    work()
    return 'none'
  } catch (error) {
    return (error as { code: unknown }).code
  }
}

describe.skipIf(!hasTool('qemu-img'))('older points below a newer one', () => {
  it('the newest comes first, the others take their places, and each is what it was', () => {
    const { union, backfills } = afterAnOutage()
    fixture.deliver(union)
    expect(fixture.verified()).toEqual([1, 2, 8])
    fixture.deliver(captured(6))
    fixture.deliver(backfills[0] ?? union)
    expect(fixture.verified()).toEqual([1, 2, 4, 8, 9])
    fixture.deliver(captured(6))
    fixture.deliver(backfills[1] ?? union)
    expect(fixture.verified()).toEqual([1, 2, 4, 5, 8, 9, 10])
    fixture.store.keepBackfills(testVm, [])
    pruneAll()
    expect(fixture.verified()).toEqual([1, 2, 4, 5, 8, 9, 10])
    const { damagedPoints, disks } = fixture.store.verify({ vmId: testVm, percent: 100, seed: 1 })
    expect([damagedPoints, disks.map(({ badBlocks }) => badBlocks)]).toEqual([[], [0, 0]])
  })

  it('what it stands on and the newer point are not pruned before the last has come; everything else is', () => {
    const { union, backfills } = afterAnOutage({ retentionPoints: 0, retentionIntervalSeconds: 0 })
    fixture.deliver(union)
    fixture.deliver(captured(5))
    fixture.deliver(captured(5))
    pruneAll()
    expect(fixture.verified()).toEqual([2, 8, 10])
    fixture.deliver(backfills[0] ?? union)
    pruneAll()
    expect(fixture.verified()).toEqual([4, 8, 10])
    fixture.deliver(backfills[1] ?? union)
    fixture.store.keepBackfills(testVm, [])
    pruneAll()
    expect(fixture.verified()).toEqual([10])
  })

  it('disks that grew, shrank, came and went above it do not matter', () => {
    const { union, backfills } = afterAnOutage()
    fixture.deliver(union)
    vm.resize(disk0, 9000 * 65_536)
    fixture.deliver(captured(6))
    vm.removeDisk('disk-1' as DiskId)
    vm.resize(disk0, 20 * 65_536)
    fixture.deliver(captured(6))
    for (const backfill of backfills) fixture.deliver(backfill)
    expect(fixture.verified()).toEqual([1, 2, 4, 5, 8, 9, 10])
  })

  it('it is received beside newer deltas, and goes on where it was', () => {
    const { union, backfills } = afterAnOutage()
    fixture.deliver(union)
    const [older = union] = backfills
    const writer = fixture.store.begin(older.header)
    for (const batch of older.batches.slice(0, 2)) writer.write(batch)
    writer.sync()
    fixture.deliver(captured(5))
    expect(codeOf(() => writer.sync())).toBe('writer-closed')
    fixture.reopen()
    const again = fixture.store.begin(older.header)
    expect(again.resume.map(({ nextBatch }) => nextBatch)).toEqual([2, 0])
    expect(send(again, older)).toEqual({ kind: 'sealed' })
    // Once more, as after a lost acknowledgement.
    expect(send(fixture.store.begin(older.header), older)).toEqual({ kind: 'sealed' })
    expect(fixture.verified()).toEqual([1, 2, 4, 8, 9])
  })

  it('bytes that are not those that were signed become no point, and nothing else changes', () => {
    const { union, backfills } = afterAnOutage()
    fixture.deliver(union)
    const [older = union] = backfills
    const spoiled = older.batches.map((batch) => ({
      ...batch,
      blocks: batch.blocks.map((block) => (block === 'held' ? block : Buffer.alloc(65_536, 9))),
    }))
    expect(send(fixture.store.begin(older.header), { ...older, batches: spoiled }).kind).toBe('diverged')
    expect(fixture.verified()).toEqual([1, 2, 8])
    expect(fixture.store.begin(older.header).resume.map(({ nextBatch }) => nextBatch)).toEqual([0, 0])
    fixture.deliver(older)
    expect(fixture.verified()).toEqual([1, 2, 4, 8])
  })

  it('is refused where nothing is expected: no union, another base, a hold that is over, an epoch that is', () => {
    const { union, backfills } = afterAnOutage()
    const [older = union, second = union] = backfills
    const begin = ({ header }: ModelDelta) => codeOf(() => fixture.store.begin(header))
    expect(begin(older)).toBe('backfill-unknown')
    fixture.deliver(union)
    expect(begin(second)).toBe('backfill-unknown')
    fixture.deliver(older)
    fixture.store.keepBackfills(testVm, [77])
    expect(begin(second)).toBe('backfill-unknown')
    fixture.deliver(captured(3, 'sync'))
    fixture.store.raiseEpoch(testVm, 2)
    expect(begin(second)).toBe('epoch-stale')
    expect(fixture.verified()).toEqual([1, 2, 4, 8, 9])
  })

  it('a synchronization and a raised epoch end it', () => {
    for (const end of [
      () => fixture.store.begin(captured(3, 'sync').header).close(),
      () => fixture.store.raiseEpoch(testVm, 2),
    ]) {
      fixture[Symbol.dispose]()
      fixture = new StoreFixture()
      vm = new ModelVm(seededRng(5), { 'disk-0': 30 * 65_536 })
      const { union, backfills } = afterAnOutage({ retentionPoints: 0, retentionIntervalSeconds: 0 })
      fixture.deliver(union)
      const writer = fixture.store.begin((backfills[0] ?? union).header)
      writer.write((backfills[0] ?? union).batches[0] ?? union.batches[0] ?? never())
      writer.sync()
      end()
      pruneAll()
      expect(fixture.verified()).toEqual([8])
      expect(codeOf(() => writer.sync())).not.toBe('none')
    }
  })

  it('an overlay that was made on the newer point before reads on through whatever comes below it', () => {
    const { union, backfills } = afterAnOutage()
    fixture.deliver(union)
    fixture.store.createOverlay({
      vmId: testVm,
      overlayId: 'ov' as OverlayId,
      point: { epoch: 1, seq: 8 },
      purpose: 'test',
      format: 'qcow2',
    })
    for (const backfill of backfills) fixture.deliver(backfill)
    fixture.store.keepBackfills(testVm, [])
    prepareReplica(fixture.store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
    pruneAll()
    expect(fixture.verified()).toEqual([8])
  })
})

function never(): never {
  throw new Error('there is a batch')
}
