import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { allocatePages, openPageOffset, PAGE_BYTES } from '#shared/memory-address.ts'
import { nodeFiles } from '../files.ts'

const pageOffset = openPageOffset()
// A file system that takes direct I/O, on most machines, and one that never did until lately.
const folders = [process.cwd(), '/dev/shm'].filter((folder) => existsSync(folder))

test('pages are where they are wanted', () => {
  for (const bytes of [1, PAGE_BYTES, 100_000, 1 << 20]) {
    const memory = allocatePages(bytes, pageOffset)
    expect(memory).toHaveLength(bytes)
    expect([0, undefined]).toContain(pageOffset(memory))
  }
})

describe.each(folders)('files in %s', (folder) => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(folder, '.hotsite-direct-'))
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  const size = fc.oneof(
    fc.constantFrom(0, 1, PAGE_BYTES, 65_536, 3 * 65_536, (1 << 20) + 65_536),
    fc.nat({ max: 150_000 }),
  )
  const write = fc.record({
    offset: fc.oneof(
      fc.nat({ max: 40 }).map((pages) => pages * PAGE_BYTES),
      fc.nat({ max: 200_000 }),
    ),
    sizes: fc.array(size, { maxLength: 5 }),
    onPages: fc.boolean(),
    fill: fc.integer({ min: 1, max: 255 }),
  })

  test('large or small, on pages or off them: what was written is what is read', () => {
    const property = fc.property(fc.array(write, { minLength: 1, maxLength: 6 }), (writes) => {
      const path = join(dir, 'file')
      const file = nodeFiles.open(path, 'create')
      const model = Buffer.alloc(8 << 20)
      let end = 0
      try {
        for (const { offset, sizes, onPages, fill } of writes) {
          const buffers = sizes.map((bytes, i) => {
            const memory = allocatePages(bytes + 1, pageOffset)
            return (onPages ? memory.subarray(0, bytes) : memory.subarray(1)).fill((fill + i) % 256)
          })
          const whole = Buffer.concat(buffers)
          file.write(buffers, offset)
          whole.copy(model, offset)
          if (whole.length > 0) end = Math.max(end, offset + whole.length)
        }
        file.sync()
        const read = Buffer.alloc(end)
        file.read(read, 0)
        expect(read.equals(model.subarray(0, end))).toBe(true)
      } finally {
        file.close()
      }
      expect(readFileSync(path).equals(model.subarray(0, end))).toBe(true)
    })
    fc.assert(property, { numRuns: 40 })
  })

  test('a file that was renamed while it was open is still the one that is written', () => {
    const file = nodeFiles.open(join(dir, 'before'), 'create')
    nodeFiles.rename(join(dir, 'before'), join(dir, 'after'))
    file.write([Buffer.alloc(1 << 20, 7)], 65_536)
    file.close()
    expect(existsSync(join(dir, 'before'))).toBe(false)
    expect(
      readFileSync(join(dir, 'after'))
        .subarray(65_536)
        .equals(Buffer.alloc(1 << 20, 7)),
    ).toBe(true)
  })
})
