import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { intBelow, seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { NbdClient } from './client.ts'
import { allocation, DIRTY } from './protocol.ts'
import { serveImage } from './testing/serve-image.ts'
import { type ByteStream, connectUnixStream } from './unix-stream.ts'

const MiB = 2 ** 20
const SIZE_BYTES = 9 * MiB + 512

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-nbd-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

/** Data in [1 MiB, 3 MiB) and in the last 700 bytes, holes elsewhere. */
function sparseImage(): { path: string; bytes: Buffer } {
  const path = join(dir, 'disk.raw')
  const rng = seededRng(9)
  const bytes = Buffer.alloc(SIZE_BYTES)
  for (let at = MiB; at < 3 * MiB; at++) bytes[at] = intBelow(rng, 256)
  bytes.fill('end', SIZE_BYTES - 700)
  writeFileSync(path, '')
  execFileSync('truncate', ['-s', String(SIZE_BYTES), path])
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes.subarray(MiB, 3 * MiB), 0, 2 * MiB, MiB)
  writeSync(fd, bytes.subarray(SIZE_BYTES - 700), 0, 700, SIZE_BYTES - 700)
  return { path, bytes }
}

const connect = (socketPath: string, contexts: readonly string[] = [], exportName = '') =>
  NbdClient.connect({ socketPath, timeoutMs: 20_000, exportName, contexts })

describe.skipIf(!hasTool('qemu-nbd'))('an export of qemu-nbd', () => {
  it('reads as the image, wherever a read begins and ends', async () => {
    const { path, bytes } = sparseImage()
    await using server = await serveImage({ dir, path, format: 'raw' })
    using client = connect(server.socketPath)
    expect(client.sizeBytes).toBe(SIZE_BYTES)
    const rng = seededRng(10)
    const whole = Buffer.alloc(SIZE_BYTES, 1)
    client.read(whole, 0)
    expect(whole.equals(bytes)).toBe(true)
    for (let round = 0; round < 200; round++) {
      const start = intBelow(rng, SIZE_BYTES)
      const target = Buffer.alloc(1 + intBelow(rng, 700_000), 1)
      client.read(target, start)
      const expected = Buffer.alloc(target.length)
      bytes.copy(expected, 0, start)
      expect(target.equals(expected)).toBe(true)
    }
    const beyond = Buffer.alloc(10, 1)
    client.read(beyond, SIZE_BYTES + 5)
    expect(beyond.equals(Buffer.alloc(10))).toBe(true)
  })

  it('says where data is, without gaps, as one asks', async () => {
    const { path } = sparseImage()
    await using server = await serveImage({ dir, path, format: 'raw' })
    using client = connect(server.socketPath, ['base:allocation'])
    const extents = [...client.status('base:allocation', 0, SIZE_BYTES)]
    const data = extents.filter(({ flags }) => (flags & allocation.zero) === 0)
    expect(data.map(({ offsetBytes, lengthBytes }) => [offsetBytes, offsetBytes + lengthBytes])).toEqual([
      [MiB, 3 * MiB],
      [expect.any(Number), SIZE_BYTES],
    ])
    let at = 0
    for (const { offsetBytes, lengthBytes } of extents) {
      expect(offsetBytes).toBe(at)
      at += lengthBytes
    }
    expect(at).toBe(SIZE_BYTES)
    const part = [...client.status('base:allocation', 2 * MiB, 2 * MiB + 65_536)]
    expect(part).toEqual([{ offsetBytes: 2 * MiB, lengthBytes: 65_536, flags: 0 }])
  })

  it('says what was written since a bitmap was made, beside what is allocated', async () => {
    const path = join(dir, 'disk.qcow2')
    const run = (tool: string, ...args: string[]) => execFileSync(tool, args, { stdio: 'pipe' })
    run('qemu-img', 'create', '-f', 'qcow2', path, '64M')
    run('qemu-io', '-c', 'write -P 1 0 1M', path)
    run('qemu-img', 'bitmap', '--add', '-g', '65536', path, 'since')
    run('qemu-io', '-c', 'write -P 2 3M 64k', '-c', 'write -z 512k 128k', '-c', 'write -P 3 60M 10k', path)
    await using server = await serveImage({ dir, path, format: 'qcow2', bitmap: 'since' })
    using client = connect(server.socketPath, ['base:allocation', 'qemu:dirty-bitmap:since'])
    const dirty = [...client.status('qemu:dirty-bitmap:since', 0, client.sizeBytes)].filter(
      ({ flags }) => (flags & DIRTY) !== 0,
    )
    expect(dirty.map(({ offsetBytes, lengthBytes }) => [offsetBytes, lengthBytes])).toEqual([
      [512 * 1024, 128 * 1024],
      [3 * MiB, 65_536],
      [60 * MiB, 65_536],
    ])
    const block = Buffer.alloc(65_536)
    client.read(block, 3 * MiB)
    expect(block.equals(Buffer.alloc(65_536, 2))).toBe(true)
  })

  it('that is not there, or has no such context, is named', async () => {
    const { path } = sparseImage()
    await using server = await serveImage({ dir, path, format: 'raw' })
    expect(() => connect(server.socketPath, [], 'other')).toThrow(
      /refuses export other: it has no such export/,
    )
    using client = connect(server.socketPath, ['qemu:dirty-bitmap:gone'])
    expect(client.has('qemu:dirty-bitmap:gone')).toBe(false)
    expect(() => [...client.status('qemu:dirty-bitmap:gone', 0, 1)]).toThrow(/no metadata context/)
  })

  it('whose server is killed fails at once', async () => {
    const { path } = sparseImage()
    await using server = await serveImage({ dir, path, format: 'raw' })
    using client = connect(server.socketPath)
    await server.kill()
    expect(() => client.read(Buffer.alloc(100), 0)).toThrow(HotsiteError)
    expect(() => connect(server.socketPath)).toThrow(/nobody listens there/)
  })

  it('whatever comes instead of its words, it ends in a coded error or an answer', async () => {
    const { path } = sparseImage()
    await using server = await serveImage({ dir, path, format: 'raw' })
    const said: Buffer[] = []
    using real = connectUnixStream({ socketPath: server.socketPath, timeoutMs: 20_000 })
    converse({
      send: real.send,
      receive(target) {
        real.receive(target)
        said.push(Buffer.from(target))
      },
      [Symbol.dispose]() {},
    })
    // Only their heads: bytes of the disk may be anything.
    const words = Buffer.concat(said.map((bytes) => bytes.subarray(0, 64)))
    const change = fc.record({ at: fc.nat(words.length - 1), value: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.nat(words.length), (changes, end) => {
        const bytes = Buffer.from(words.subarray(0, changes.length % 2 === 0 ? end : words.length))
        for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value
        try {
          converse(replay(bytes))
        } catch (error) {
          if (!(error instanceof HotsiteError) || !['nbd-failed', 'nbd-malformed'].includes(error.code))
            throw error
        }
      }),
      { numRuns: 3000 },
    )
  })
})

/** Something of everything, with answers of at most 64 bytes. */
function converse(stream: ByteStream): void {
  const client = NbdClient.over(stream, { exportName: '', contexts: ['base:allocation'] })
  client.read(Buffer.alloc(48), MiB)
  for (const { offsetBytes } of client.status('base:allocation', 0, 65_536)) if (offsetBytes > 65_536) break
  client.read(Buffer.alloc(32), 2 * MiB)
}

/** Somebody who says just this and then falls silent. */
function replay(words: Buffer): ByteStream {
  let at = 0
  return {
    send() {},
    receive(target) {
      if (at + target.length > words.length) throw new HotsiteError('nbd-failed', 'silent')
      words.copy(target, 0, at)
      at += target.length
    },
    [Symbol.dispose]() {},
  }
}

describe('a socket', () => {
  it('on which nobody ever answers is given up after the time that was set', async () => {
    const socketPath = join(dir, 'silent.sock')
    const silent = spawn(process.execPath, [
      '-e',
      `require('node:net').createServer(() => {}).listen(${JSON.stringify(socketPath)}, () => process.stdout.write('up'))`,
    ])
    try {
      await once(silent.stdout, 'data')
      expect(() => NbdClient.connect({ socketPath, timeoutMs: 200, exportName: '', contexts: [] })).toThrow(
        /silent for 200 ms/,
      )
    } finally {
      silent.kill()
    }
  })

  it('with a path that is too long, or that is none, is named', () => {
    const long = join(dir, 'x'.repeat(120))
    expect(() => connect(long)).toThrow(/longer than 107 bytes/)
    writeFileSync(join(dir, 'file'), readFileSync(import.meta.filename).subarray(0, 10))
    expect(() => connect(join(dir, 'file'))).toThrow(/nobody listens there/)
  })
})
