import { createCipheriv } from 'node:crypto'
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { unpackBatch } from '#shared/blocks/batch.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { systemClock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import { SEED_MANIFEST, type SeedManifest } from '#shared/formats/seed/manifest.ts'
import { fabricVmId, serverId, vaultId, vmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { FileHypervisor } from '../capture/test-kit/file-hypervisor.ts'
import { exportSeed, MIN_PART_BYTES, type SeedExportRequest } from './export-seed.ts'
import { openSeed } from './read-seed.ts'

const MiB = 1 << 20
const vault = vaultId.parse('vault-a')
const vm = vmId.parse('vm-1')
const seedKey = Buffer.alloc(32, 7)

let dir: string
let folder: string
let hypervisor: FileHypervisor

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-seed-'))
  folder = join(dir, 'seed')
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  hypervisor = new FileHypervisor(dir)
})

function write(options: { request?: Partial<SeedExportRequest>; crashPoint?: CrashPoint } = {}) {
  const { request = {}, crashPoint = noCrash } = options
  return exportSeed(
    {
      hypervisor,
      vaultId: vault,
      serverId: serverId.parse('source'),
      clock: systemClock,
      log: silentLog,
      crashPoint,
      paceMs: 20,
    },
    { vmId: vm, fabricVmId: fabricVmId.parse('f-1'), folder, partBytes: MIN_PART_BYTES, seedKey, ...request },
  )
}

/** The disks a seed holds, and what its reader complained about. */
async function read(options: { key?: Buffer; vm?: string; vault?: string } = {}) {
  const seed = await openSeed({
    folder,
    vaultId: vaultId.parse(options.vault ?? 'vault-a'),
    vmId: vmId.parse(options.vm ?? 'vm-1'),
    seedKey: options.key ?? seedKey,
  })
  const disks = new Map(seed.manifest.disks.map(({ diskId, sizeBytes }) => [diskId, Buffer.alloc(sizeBytes)]))
  for await (const { diskId, batch } of seed.batches()) {
    const blocks = unpackBatch(batch)
    for (const [i, blockIndex] of batch.blockIndexes.entries())
      blocks[i]?.copy(disks.get(diskId) ?? Buffer.alloc(0), blockIndex * BLOCK_BYTES)
  }
  return { disks, problems: seed.problems, manifest: seed.manifest }
}

/** Incompressible, so that parts fill. */
function noise(bytes: number, seed: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(bytes))
}

const parts = () => readdirSync(folder).filter((name) => name.endsWith('.seed'))

function manifestNow(): SeedManifest {
  return JSON.parse(readFileSync(join(folder, SEED_MANIFEST), 'utf8')) as SeedManifest
}

test('two disks, one of an odd size, come back as they were; holes cost nothing', async () => {
  const first = hypervisor.addDisk('d1', 200 * MiB)
  const second = hypervisor.addDisk('d2', 5 * MiB + 512)
  hypervisor.write(first, 3 * MiB, noise(40 * MiB, 1))
  hypervisor.write(first, 150 * MiB + 512, Buffer.alloc(MiB, 'text'))
  hypervisor.write(second, 5 * MiB, Buffer.alloc(512, 1))
  const written = await write()
  expect(written.bytes).toBeLessThan(41 * MiB)
  expect(written.files).toBe(parts().length)
  expect(written.files).toBeGreaterThan(2)
  for (const part of manifestNow().parts) expect(part.bytes).toBeLessThanOrEqual(MIN_PART_BYTES)
  const { disks, problems } = await read()
  expect(problems).toEqual([])
  expect(disks.get(first.diskId)?.equals(hypervisor.content(first))).toBe(true)
  expect(disks.get(second.diskId)?.equals(hypervisor.content(second))).toBe(true)
})

test('nothing of the disks can be read without the key, not even where they repeat', async () => {
  const disk = hypervisor.addDisk('d1', 2 * MiB)
  hypervisor.write(disk, 0, Buffer.from('a secret that must not be carried in the open'))
  await write()
  for (const part of parts()) expect(readFileSync(join(folder, part)).includes('secret')).toBe(false)
})

test('an export that was interrupted goes on: parts that still hold are kept, changed ones are written again', async () => {
  const disk = hypervisor.addDisk('d1', 64 * MiB)
  hypervisor.write(disk, 0, noise(64 * MiB, 2))
  let finished = 0
  const dies = (name: string) => {
    if (name === 'seed.part-written' && ++finished === 3) throw new Error('killed')
  }
  await expect(write({ crashPoint: dies })).rejects.toThrow('killed')
  const before = manifestNow()
  expect(before.complete).toBe(false)
  expect(before.parts).toHaveLength(2)
  // In the second part.
  hypervisor.write(disk, (before.parts[1]?.firstGroup ?? 0) * 16 * MiB + 5, Buffer.from('changed'))
  await write()
  const after = manifestNow()
  expect(after.complete).toBe(true)
  expect(after.parts.map(({ file }) => file)).toContain(before.parts[0]?.file)
  expect(after.parts.map(({ file }) => file)).not.toContain(before.parts[1]?.file)
  expect(parts().sort()).toEqual(after.parts.map(({ file }) => file).sort())
  expect((await read()).disks.get(disk.diskId)?.equals(hypervisor.content(disk))).toBe(true)
})

test('its snapshot is none that could be released as the base of a delta (I2)', async () => {
  hypervisor.addDisk('disk-a', MiB)
  const numbers: unknown[] = []
  const openSnapshot = hypervisor.openSnapshot.bind(hypervisor)
  hypervisor.openSnapshot = (request) => {
    numbers.push(request.seq)
    return openSnapshot(request)
  }
  await write()
  expect(numbers).toEqual([undefined])
})

test('a second export into the same folder writes nothing that is there already', async () => {
  const disk = hypervisor.addDisk('d1', 8 * MiB)
  hypervisor.write(disk, 0, noise(8 * MiB, 3))
  await write()
  const before = manifestNow().parts
  await write()
  expect(manifestNow().parts).toEqual(before)
})

describe('what was harmed on the way is named and left out, the rest is used', () => {
  const harm: readonly [string, (paths: readonly string[]) => void][] = [
    ['a flipped bit', ([, path]) => flip(path, 100_000)],
    ['a flipped bit in the header', ([, path]) => flip(path, 9)],
    ['a cut part', ([, path]) => truncateSync(path ?? '', 3 * MiB)],
    ['an empty part', ([, path]) => truncateSync(path ?? '', 0)],
    ['a missing part', ([, path]) => rmSync(path ?? '')],
    ['a part in the place of another', ([other, path]) => copyFileSync(other ?? '', path ?? '')],
  ]
  test.each(harm)('%s', async (_name, change) => {
    const disk = hypervisor.addDisk('d1', 64 * MiB)
    hypervisor.write(disk, 0, noise(64 * MiB, 4))
    await write()
    const listed = manifestNow().parts
    change(listed.map(({ file }) => join(folder, file)))
    const { disks, problems } = await read()
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(listed[1]?.file)
    const got = disks.get(disk.diskId) ?? Buffer.alloc(0)
    const want = hypervisor.content(disk)
    for (let at = 0; at < want.length; at += BLOCK_BYTES) {
      const block = got.subarray(at, at + BLOCK_BYTES)
      const isInHarmed = Math.floor(at / (16 * MiB)) === listed[1]?.firstGroup
      // Never a wrong block: the right one, or none.
      if (!block.equals(want.subarray(at, at + BLOCK_BYTES)))
        expect(isInHarmed && block.equals(Buffer.alloc(BLOCK_BYTES))).toBe(true)
    }
  })

  test('records that were cut out, repeated or put in another order', async () => {
    const disk = hypervisor.addDisk('d1', 16 * MiB)
    hypervisor.write(disk, 0, noise(16 * MiB, 5))
    await write()
    const path = join(folder, parts()[0] ?? '')
    const whole = readFileSync(path)
    const records: Buffer[] = []
    for (let at = 24; at < whole.length; ) {
      const bytes = 4 + whole.readUInt32LE(at) + 16
      records.push(whole.subarray(at, at + bytes))
      at += bytes
    }
    const [content, one, two, ...rest] = records
    const orders = [
      [content, two, ...rest],
      [content, one, one, two, ...rest],
      [content, two, one, ...rest],
      [one, content, two, ...rest],
    ]
    for (const order of orders) {
      writeFileSync(
        path,
        Buffer.concat([whole.subarray(0, 24), ...order.map((record) => record ?? Buffer.alloc(0))]),
      )
      expect((await read()).problems).toHaveLength(1)
    }
    writeFileSync(path, whole)
    expect((await read()).problems).toEqual([])
  })
})

describe('a seed that is not this one is refused', () => {
  beforeEach(async () => {
    hypervisor.write(hypervisor.addDisk('d1', MiB), 0, Buffer.from('x'))
    await write()
  })

  test.each([
    ['another key', { key: Buffer.alloc(32, 8) }, 'seed-key-wrong'],
    ['another VM', { vm: 'vm-2' }, 'seed-foreign'],
    ['another vault', { vault: 'vault-b' }, 'seed-foreign'],
  ])('%s', async (_name, options, code) => {
    await expect(read(options)).rejects.toMatchObject({ code })
  })

  test('a changed manifest', async () => {
    const path = join(folder, SEED_MANIFEST)
    writeFileSync(path, readFileSync(path, 'utf8').replace('"complete": true', '"complete": false'))
    await expect(read()).rejects.toMatchObject({ code: 'seed-key-wrong' })
    writeFileSync(path, '{')
    await expect(read()).rejects.toMatchObject({ code: 'seed-damaged' })
    rmSync(path)
    await expect(read()).rejects.toMatchObject({ code: 'seed-missing' })
  })

  test('an export for another VM does not overwrite it', async () => {
    await expect(write({ request: { vmId: vmId.parse('vm-2') } })).rejects.toMatchObject({
      code: 'seed-foreign',
    })
    await expect(write({ request: { seedKey: Buffer.alloc(32, 8) } })).rejects.toMatchObject({
      code: 'seed-key-wrong',
    })
    expect((await read()).problems).toEqual([])
  })
})

test('a folder that cannot be written is named', async () => {
  hypervisor.addDisk('d1', MiB)
  writeFileSync(join(dir, 'file'), '')
  await expect(write({ request: { folder: join(dir, 'file', 'seed') } })).rejects.toMatchObject({
    code: 'permission-denied',
  })
})

function flip(path: string | undefined, at: number): void {
  const bytes = readFileSync(path ?? '')
  bytes.writeUInt8(bytes.readUInt8(at) ^ 4, at)
  writeFileSync(path ?? '', bytes)
}
