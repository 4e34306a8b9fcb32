import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { PayloadSlots, payloadMemory } from '#shared/blocks/payload-slots.ts'
import { makeTestFabric } from '#shared/folder/testing/test-fabric.ts'
import { silentLog } from '#shared/log.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { connectCaptureWorker, startCaptureWorker } from './client.ts'
import { defaultCaptureLimits } from './limits.ts'
import { vm as vmId } from './test-kit/kit.ts'
import { drainAll, ModelTarget, synchronize } from './test-kit/model-target.ts'

function workerConfig(root: string) {
  const keys = generateKeys()
  const hypervisor = { driver: 'folder' as const, root, host: 'host1', freezeLimitMs: 2000 }
  const ids = { vaultId: 'vault-1', serverId: 'server-1' }
  const config = { dataDir: join(root, 'data'), hypervisor, ...ids, ...keys, limits: defaultCaptureLimits }
  return { keys, config }
}

it('replicates a VM of the folder driver through the worker, and goes on after a restart', async () => {
  await using fabric = makeTestFabric()
  const source = fabric.addVm({ name: 'orders', diskBytes: [3 * 2 ** 20, 2 ** 20 + 512] })
  const images = [0, 1].map((i) => join(source.dir, `disk${i}.img`))
  const { keys, config } = workerConfig(fabric.root)
  const target = new ModelTarget()
  const expectEqual = () => {
    const copies = [...target.disks.values()].map(({ bytes, sizeBytes }) => bytes.subarray(0, sizeBytes))
    expect(images.map((path, i) => copies[i]?.equals(readFileSync(path)))).toEqual([true, true])
  }
  writeFileSync(images[0] ?? '', randomBytes(3 * 2 ** 20))
  {
    await using engine = await startCaptureWorker(config, { log: silentLog })
    await engine.add({ vmId, fabricVmId: source.file.id, epoch: 1 }, 'initial')
    expect(await synchronize({ engine, target, vmId, publicKey: keys.publicKey })).toBe(48)
    expectEqual()
    writeFileSync(
      images[1] ?? '',
      Buffer.concat([randomBytes(BLOCK_BYTES), Buffer.alloc(2 ** 20 + 512 - BLOCK_BYTES, 7)]),
    )
    expect(await engine.capture(vmId, { compress: true })).toMatchObject({
      kind: 'sealed',
      delta: { seq: 2 },
    })
    await expect(
      engine.readBatch({ vmId, seq: 9, diskId: [...target.disks.keys()][0] ?? never(), batch: 0 }),
    ).rejects.toMatchObject({
      name: 'HotsiteError',
      code: 'delta-unknown',
      details: { seq: 9 },
    })
  }
  await using engine = await startCaptureWorker(config, { log: silentLog })
  expect(await drainAll({ engine, target, vmId, publicKey: keys.publicKey })).toBe(1)
  expectEqual()
})

function never(): never {
  throw new Error('no disk')
}

it('that cannot open its buffer says why', async () => {
  await using fabric = makeTestFabric()
  const { config } = workerConfig(fabric.root)
  const dataDir = join(fabric.root, 'fabric.yaml')
  const failed = startCaptureWorker({ ...config, dataDir }, { log: silentLog })
  await expect(failed).rejects.toMatchObject({ name: 'HotsiteError' })
})

it('whose worker ends by itself fails what waits, what comes later, and says so', async () => {
  const ready = `require('node:worker_threads').parentPort.postMessage({ kind: 'ready' })`
  const worker = new Worker(
    `${ready}; require('node:worker_threads').parentPort.once('message', () => { throw new Error('boom') })`,
    { eval: true },
  )
  const engine = await connectCaptureWorker(worker, silentLog, new PayloadSlots(payloadMemory(1)))
  await expect(engine.usage()).rejects.toMatchObject({ code: 'capture-stopped' })
  await expect(engine.states()).rejects.toMatchObject({ code: 'capture-stopped' })
  expect((await engine.failed).message).toContain('boom')
  await engine[Symbol.asyncDispose]()
})
