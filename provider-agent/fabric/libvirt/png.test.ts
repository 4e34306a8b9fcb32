import { inflateSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { isPng, pngOfPpm } from './png.ts'

const pixels = Buffer.from(Array.from({ length: 3 * 2 * 3 }, (_, i) => i * 7))
const ppm = Buffer.concat([Buffer.from('P6\n3 2\n255\n'), pixels])

describe('a screen as QEMU before 7.1 writes it', () => {
  test('becomes a PNG with the same pixels', () => {
    const png = pngOfPpm(ppm)
    if (!png) throw new Error('no PNG')
    expect(isPng(png)).toBe(true)
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([3, 2])
    const data = png.indexOf('IDAT')
    const rows = inflateSync(png.subarray(data + 4, data + 4 + png.readUInt32BE(data - 4)))
    expect(Buffer.concat([rows.subarray(1, 10), rows.subarray(11, 20)])).toEqual(pixels)
  })

  test.each([
    ['another format', Buffer.from('P5\n3 2\n255\n')],
    ['cut off', ppm.subarray(0, ppm.length - 1)],
    ['a side without end', Buffer.from('P6\n99999999 2\n255\nxxx')],
    ['nothing', Buffer.alloc(0)],
  ])('%s is none', (_what, bytes) => {
    expect(pngOfPpm(bytes)).toBeUndefined()
  })
})
