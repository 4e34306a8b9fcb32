import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { PayloadSlots, payloadMemory } from '#shared/blocks/payload-slots.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { DiskId, VmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { seededRng } from '#shared/rng.ts'
import { connectReplicaWorker, openRemoteReplicaStore } from './client.ts'
import type { RemoteReplicaStore } from './remote.ts'
import {
  batchesOf,
  ModelVm,
  manifestOf,
  rootOfDisk,
  storedBatch,
  testServer,
  testVm,
} from './testing/model-vm.ts'
import { testFolder } from './testing/test-folder.ts'

let dir: ReturnType<typeof testFolder>
let store: RemoteReplicaStore

beforeAll(async () => {
  dir = testFolder('remote')
  store = openRemoteReplicaStore({ dir: dir.path, log: silentLog })
  await store.recover()
})

afterEach(async () => {
  await store.remove(testVm)
})

afterAll(async () => {
  await store[Symbol.asyncDispose]()
  dir[Symbol.dispose]()
})

async function prepare(vm: ModelVm, epoch = 1): Promise<void> {
  await store.prepare({
    vmId: testVm,
    epoch,
    sourceServerId: testServer,
    policy: replicationPolicy.parse({}),
    disks: vm.disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
  })
}

describe('the replica store in a worker', () => {
  it('serves other replicas while the disks of one are adopted', async () => {
    const sizeBytes = 1 << 30
    const path = join(dir.path, 'old.raw')
    writeFileSync(path, '')
    truncateSync(path, sizeBytes)
    const order: string[] = []
    const adopted = store
      .adopt({
        vmId: testVm,
        epoch: 1,
        sourceServerId: testServer,
        policy: replicationPolicy.parse({}),
        disks: [{ diskId: 'disk-0' as DiskId, sizeBytes, path, kind: 'raw' }],
      })
      .then(() => order.push('adopted'))
    await store.list().then(() => order.push('listed'))
    await adopted
    expect(order).toEqual(['listed', 'adopted'])
  })

  it('takes a delta in pipelined batches', async () => {
    const vm = new ModelVm(seededRng(1), { 'disk-0': 600 * 65_536 })
    await prepare(vm)
    vm.scribble(900)
    const delta = vm.capture()
    const writer = await store.begin(delta.header)
    expect(writer.resume).toEqual([{ diskId: 'disk-0', nextBatch: 0 }])
    for (const batch of delta.batches) await writer.write(storedBatch(batch))
    expect(await writer.sync()).toEqual([{ diskId: 'disk-0', nextBatch: delta.batches.length }])
    expect(await writer.seal(delta.manifest)).toEqual({ kind: 'sealed' })
    const [point] = await store.points(testVm)
    expect(point?.roots).toEqual([
      { diskId: 'disk-0', rootHex: delta.disks.map(rootOfDisk)[0]?.toString('hex') },
    ])
    const nodes = await store.treeNodes({
      vmId: testVm,
      diskId: 'disk-0' as DiskId,
      level: 1,
      first: 0,
      count: 3,
    })
    expect(Buffer.isBuffer(nodes)).toBe(true)
    expect(nodes).toHaveLength(96)
  })

  it('hands errors over with code and details', async () => {
    const refusal: unknown = await store.raiseEpoch('vm-unknown' as VmId, 2).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(HotsiteError)
    expect(refusal).toMatchObject({ code: 'replica-unknown', details: { vmId: 'vm-unknown' } })
  })

  it('shows a failed write at the next call, and again until the writer is closed', async () => {
    const vm = new ModelVm(seededRng(2), { 'disk-0': 10 * 65_536 })
    await prepare(vm)
    vm.scribble(8)
    const delta = vm.capture()
    const writer = await store.begin(delta.header)
    const gap = { ...delta.batches[0], batch: 5 }
    await writer.write(storedBatch(gap as (typeof delta.batches)[number]))
    await expect(writer.sync()).rejects.toMatchObject({ code: 'stream-out-of-order' })
    await expect(writer.seal(delta.manifest)).rejects.toMatchObject({ code: 'stream-out-of-order' })
    await writer.close()
  })

  it('refuses an open writer once the epoch was raised (I5)', async () => {
    const vm = new ModelVm(seededRng(3), { 'disk-0': 10 * 65_536 })
    await prepare(vm)
    vm.scribble(8)
    const delta = vm.capture()
    const writer = await store.begin(delta.header)
    await store.raiseEpoch(testVm, 2)
    for (const batch of delta.batches.slice(0, 1)) await writer.write(storedBatch(batch))
    await expect(writer.sync()).rejects.toMatchObject({ code: 'epoch-stale', details: { epoch: 2 } })
    await expect(store.begin(delta.header)).rejects.toMatchObject({ code: 'epoch-stale' })
  })

  it('keeps bounded memory when batches are written faster than the disk takes them', async () => {
    const vm = new ModelVm(seededRng(4), { 'disk-0': 2000 * 65_536 })
    await prepare(vm)
    const disk = { ...vm.disks[0], blocks: new Map([[0, vm.block()]]) } as (typeof vm.disks)[number]
    const content = disk.blocks.get(0) ?? null
    const full = { ...disk, blocks: new Map(Array.from({ length: 1600 }, (_, i) => [i, content as Buffer])) }
    const batches = batchesOf(full, [...full.blocks.keys()], 16)
    const writer = await store.begin({ ...vm.capture().header })
    let unresolved = 0
    let most = 0
    await Promise.all(
      batches.map(async (batch) => {
        unresolved++
        await writer.write(storedBatch(batch))
        unresolved--
        most = Math.max(most, unresolved)
      }),
    )
    // 100 MiB were offered at once; writes beyond the queue of 16 MiB had to wait.
    expect(most).toBeGreaterThan(50)
    expect(await writer.seal(manifestOf([full]))).toEqual({ kind: 'sealed' })
  })

  it('answers with the reason when the store cannot be opened', async () => {
    await using broken = openRemoteReplicaStore({ dir: '/dev/null/replicas', log: silentLog })
    await expect(broken.list()).rejects.toBeInstanceOf(HotsiteError)
  })

  it('whose worker ends by itself says so at once, and fails what waits and what comes later', async () => {
    const crashing = `require('node:worker_threads').parentPort.once('message', () => { throw new Error('boom') })`
    await using broken = connectReplicaWorker(
      new Worker(crashing, { eval: true }),
      silentLog,
      new PayloadSlots(payloadMemory(1)),
    )
    const waiting = broken.list()
    await expect(waiting).rejects.toMatchObject({ code: 'replica-store-stopped' })
    expect((await broken.failed).message).toContain('boom')
    await expect(broken.list()).rejects.toMatchObject({ code: 'replica-store-stopped' })
  })

  it('rejects what is asked after its end', async () => {
    const ended = openRemoteReplicaStore({ dir: `${dir.path}/other`, log: silentLog })
    await ended.recover()
    await ended[Symbol.asyncDispose]()
    await expect(ended.list()).rejects.toMatchObject({ code: 'replica-store-stopped' })
    expect(await Promise.race([ended.failed, 'an end that was asked for is no failure'])).toBeTypeOf('string')
  })
})
