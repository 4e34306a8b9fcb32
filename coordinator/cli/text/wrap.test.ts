import fc from 'fast-check'
import { expect, it } from 'vitest'
import { wrapped } from './wrap.ts'

it('breaks between words, and inside one only where it must', () => {
  expect(wrapped('the target host-b1 refuses', 10)).toEqual(['the target', 'host-b1', 'refuses'])
  expect(wrapped('abcdefgh ij', 4)).toEqual(['abcd', 'efgh', 'ij'])
  expect(wrapped('', 10)).toEqual([''])
})

it('no line is too long and no character of a word is lost', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 80 }), fc.integer({ min: 1, max: 30 }), (text, width) => {
      const lines = wrapped(text, width)
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(width)
      expect(lines.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''))
    }),
  )
})
