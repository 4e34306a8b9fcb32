import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { HASH_BYTES, leafOf } from '#shared/blocks/hash-tree.ts'
import type { DiskId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import type { BlockBatch } from '../port.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { losingFiles } from '../testing/losing-files.ts'
import { batchesOf, ModelVm, prepareReplica, replicate, send, testVm } from '../testing/model-vm.ts'

const disk0 = 'disk-0' as DiskId
const everything = { retentionPoints: 15, retentionIntervalSeconds: 0 }

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(1), { 'disk-0': 20 * 65_536, 'disk-1': 5 * 65_536 })
  prepareReplica(fixture.store, vm, everything)
  vm.scribble(10)
})

afterEach(() => fixture[Symbol.dispose]())

function flippedBit(batch: BlockBatch): BlockBatch {
  const at = batch.blocks.findIndex((block) => block !== null)
  const damaged = Buffer.from(defined(batch.blocks[at], 'data block'))
  damaged[100] = (damaged[100] ?? 0) ^ 1
  return { ...batch, blocks: batch.blocks.map((block, i) => (i === at ? damaged : block)) }
}

function filesOf(diskId: string): string[] {
  return readdirSync(join(fixture.dir, 'replicas', testVm, diskId))
}

describe.skipIf(!hasTool('qemu-img'))('receiving deltas', () => {
  it('lets no point appear from a delta with one flipped bit, and takes it when it comes whole (I3)', () => {
    fixture.deliver(vm.capture())
    vm.scribble(6)
    const delta = vm.capture()
    const damaged = delta.batches.map((batch, i) => (i === 0 ? flippedBit(batch) : batch))
    expect(replicate(fixture.store, { ...delta, batches: damaged })).toEqual({
      kind: 'diverged',
      diskIds: [disk0],
    })
    expect(fixture.verified()).toEqual([1])
    expect(filesOf('disk-0')).toEqual(['1-000000000001.qcow2'])
    fixture.deliver(delta)
    expect(fixture.verified()).toEqual([1, 2])
  })

  it.each([
    ['another size', (root: { sizeBytes: number }) => ({ ...root, sizeBytes: root.sizeBytes + 512 })],
    ['another disk', (root: object) => ({ ...root, diskId: 'disk-9' as DiskId })],
  ])('lets no point appear when the manifest speaks of %s', (_, change) => {
    const delta = vm.capture()
    const [first, ...others] = delta.manifest.roots
    const roots = [change(defined(first, 'root')) as typeof first & object, ...others]
    const outcome = replicate(fixture.store, { ...delta, manifest: { ...delta.manifest, roots } })
    expect(outcome.kind).toBe('diverged')
    expect(fixture.store.points(testVm)).toEqual([])
  })

  it('resumes where it was durable, in this life and the next, and ignores batches it has', () => {
    const delta = vm.capture()
    fixture.history.set(1, delta)
    const first = fixture.store.begin(delta.header)
    const own = delta.batches.filter(({ diskId }) => diskId === disk0)
    first.write(defined(own[0], 'batch'))
    expect(first.sync()).toContainEqual({ diskId: disk0, nextBatch: 1 })
    first.write(defined(own[1], 'batch'))
    first.close()
    fixture.reopen()
    const second = fixture.store.begin(delta.header)
    expect(second.resume).toEqual([
      { diskId: disk0, nextBatch: 1 },
      { diskId: 'disk-1', nextBatch: 0 },
    ])
    second.write(flippedBit(defined(own[0], 'batch')))
    expect(send(second, delta)).toEqual({ kind: 'sealed' })
    expect(fixture.verified()).toEqual([1])
    expect(filesOf('disk-0')).toEqual(['1-000000000001.qcow2'])
  })

  it.each([
    ['cut', 1],
    ['torn', 1],
    ['garbage', 2],
  ])('believes a journal with a %s tail only as far as its checksums hold', (damage, nextBatch) => {
    const delta = vm.capture()
    fixture.history.set(1, delta)
    const writer = fixture.store.begin(delta.header)
    const own = delta.batches.filter(({ diskId }) => diskId === disk0)
    for (const batch of own.slice(0, 2)) {
      writer.write(batch)
      writer.sync()
    }
    writer.close()
    const journal = join(fixture.dir, 'replicas', testVm, 'disk-0', '1-000000000001.qcow2.journal')
    if (damage === 'cut') truncateSync(journal, statSync(journal).size - 7)
    else if (damage === 'garbage') appendFileSync(journal, Buffer.alloc(500, 3))
    else {
      const bytes = readFileSync(journal)
      for (let at = bytes.length - 20; at < bytes.length; at++) bytes[at] = (bytes[at] ?? 0) ^ 0xff
      writeFileSync(journal, bytes)
    }
    fixture.reopen()
    const again = fixture.store.begin(delta.header)
    expect(again.resume[0]).toEqual({ diskId: disk0, nextBatch })
    expect(send(again, delta)).toEqual({ kind: 'sealed' })
    expect(fixture.verified()).toEqual([1])
  })

  it('needs nothing but the seal when it died between the files and the point', () => {
    const delta = vm.capture()
    fixture.history.set(1, delta)
    fixture.reopen((passed) => {
      if (passed === 'replica.seal-files-durable') throw new Error('died')
    })
    expect(() => replicate(fixture.store, delta)).toThrow('died')
    fixture.reopen()
    expect(fixture.store.points(testVm)).toEqual([])
    const again = fixture.store.begin(delta.header)
    expect(again.resume).toEqual(
      delta.disks.map(({ diskId }) => ({
        diskId,
        nextBatch: delta.batches.filter((batch) => batch.diskId === diskId).length,
      })),
    )
    expect(again.seal(delta.manifest)).toEqual({ kind: 'sealed' })
    expect(fixture.verified()).toEqual([1])
  })

  it('answers a delta that arrives again with success and one point (I4)', () => {
    const delta = vm.capture()
    fixture.deliver(delta)
    expect(replicate(fixture.store, delta)).toEqual({ kind: 'sealed' })
    expect(fixture.verified()).toEqual([1])
  })

  it('refuses a delta on another base, and one of an epoch it does not know yet', () => {
    fixture.deliver(vm.capture())
    const { header } = vm.capture()
    expect(() => fixture.store.begin({ ...header, baseSeq: 0 })).toThrow(
      expect.objectContaining({ code: 'base-unknown', details: expect.objectContaining({ newestSeq: 1 }) }),
    )
    expect(() => fixture.store.begin({ ...header, epoch: 2 })).toThrow(
      expect.objectContaining({ code: 'replica-not-prepared' }),
    )
  })

  it('refuses an older epoch everywhere once it was raised, and drops what was half received (I5)', () => {
    fixture.deliver(vm.capture())
    vm.scribble(3)
    const delta = vm.capture()
    const writer = fixture.store.begin(delta.header)
    writer.write(defined(delta.batches[0], 'batch'))
    writer.sync()
    expect(fixture.store.raiseEpoch(testVm, 3).epoch).toBe(3)
    const stale = expect.objectContaining({
      code: 'epoch-stale',
      details: expect.objectContaining({ epoch: 3 }),
    })
    expect(() => writer.write(defined(delta.batches[1], 'batch'))).toThrow(stale)
    expect(() => writer.seal(delta.manifest)).toThrow(stale)
    expect(() => fixture.store.begin(delta.header)).toThrow(stale)
    expect(() => fixture.store.raiseEpoch(testVm, 2)).toThrow(stale)
    expect(() => prepareReplica(fixture.store, vm, everything)).toThrow(stale)
    expect(filesOf('disk-0')).toEqual(['1-000000000001.qcow2'])
    expect(fixture.verified()).toEqual([1])
  })

  it('ends a writer when another attempt begins', () => {
    const delta = vm.capture()
    fixture.history.set(1, delta)
    const first = fixture.store.begin(delta.header)
    const second = fixture.store.begin(delta.header)
    expect(() => first.write(defined(delta.batches[0], 'batch'))).toThrow(
      expect.objectContaining({ code: 'writer-closed' }),
    )
    expect(send(second, delta)).toEqual({ kind: 'sealed' })
    expect(fixture.verified()).toEqual([1])
  })

  it('shows the tree of an unsealed synchronization, before and after a restart, and blocks may come twice', () => {
    const sync = vm.capture({ kind: 'sync' })
    fixture.history.set(1, sync)
    const disk = defined(sync.disks[0], 'disk')
    const indexes = [...disk.blocks.keys()].sort((a, b) => a - b)
    const wrong = { ...disk, blocks: new Map(indexes.map((index) => [index, vm.block()])) }
    const leaves = () =>
      fixture.store.treeNodes({ vmId: testVm, diskId: disk0, level: 0, first: 0, count: 20 })
    const expected = (blocks: ReadonlyMap<number, Buffer>) => {
      const all = Buffer.alloc(20 * HASH_BYTES)
      for (const [index, block] of blocks) leafOf(block).copy(all, index * HASH_BYTES)
      return all
    }
    const writer = fixture.store.begin(sync.header)
    const right = batchesOf(disk, indexes)
    for (const batch of right) writer.write(batch)
    expect(leaves()).toEqual(expected(disk.blocks))
    writer.sync()
    for (const batch of batchesOf(wrong, indexes))
      writer.write({ ...batch, batch: batch.batch + right.length })
    expect(leaves()).toEqual(expected(wrong.blocks))
    // Written, but never durable: the next life finds what was, in the tree and in the file.
    fixture.reopen()
    expect(leaves()).toEqual(expected(disk.blocks))
    const later = { ...sync.header, capturedAtMs: sync.header.capturedAtMs + 5000 }
    const again = fixture.store.begin(later)
    expect(again.resume.every(({ nextBatch }) => nextBatch === 0)).toBe(true)
    for (const batch of sync.batches) if (batch.diskId !== disk0) again.write(batch)
    expect(again.seal(sync.manifest)).toEqual({ kind: 'sealed' })
    expect(leaves()).toEqual(expected(disk.blocks))
    expect(fixture.store.points(testVm)[0]?.capturedAtMs).toBe(later.capturedAtMs)
    expect(fixture.verified()).toEqual([1])
  })

  it('reports a full disk as such, loses nothing, and resumes when there is room', () => {
    const files = losingFiles()
    using full = new StoreFixture(files)
    prepareReplica(full.store, vm, everything)
    full.deliver(vm.capture())
    vm.scribble(15)
    const delta = vm.capture()
    full.history.set(2, delta)
    let refusals = 0
    for (let room = 100_000; ; room += 200_000) {
      files.limitWrites(room)
      try {
        expect(replicate(full.store, delta)).toEqual({ kind: 'sealed' })
        break
      } catch (error) {
        refusals++
        expect(error).toMatchObject({ code: 'disk-full' })
        files.limitWrites(undefined)
        expect(full.verified()).toEqual([1])
      }
    }
    expect(refusals).toBeGreaterThan(2)
    expect(full.verified()).toEqual([1, 2])
  })

  it('forgets a delta the source gives up', () => {
    const delta = vm.capture()
    const folder = join(fixture.dir, 'replicas', testVm, 'disk-0')
    const writer = fixture.store.begin(delta.header)
    writer.write(defined(delta.batches[0], 'batch'))
    writer.sync()
    const kept = filesOf('disk-0').map((name) => [name, readFileSync(join(folder, name))] as const)
    fixture.store.discardPartial(testVm)
    expect(filesOf('disk-0')).toEqual([])
    // Even files that come back from somewhere are not believed without their row.
    for (const [name, content] of kept) writeFileSync(join(folder, name), content)
    expect(fixture.store.begin(delta.header).resume).toContainEqual({ diskId: disk0, nextBatch: 0 })
  })

  it('removes what an earlier life left, and nothing of a replica it does not know', () => {
    fixture.deliver(vm.capture())
    const folder = join(fixture.dir, 'replicas', testVm, 'disk-0')
    const stray = join(folder, '1-000000000009.qcow2.part')
    appendFileSync(stray, 'x')
    const foreign = join(fixture.dir, 'replicas', 'not-mine')
    appendFileSync(foreign, 'x')
    fixture.reopen()
    expect(existsSync(stray)).toBe(false)
    expect(existsSync(foreign)).toBe(true)
    expect(fixture.verified()).toEqual([1])
  })
})
