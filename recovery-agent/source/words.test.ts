import { expect, test } from 'vitest'
import { bytesText, durationText, instantText } from './words.ts'

test.each([
  [0, '0 bytes'],
  [999, '999 bytes'],
  [65_536, '64 KiB'],
  [1_400_000, '1.3 MiB'],
  [20 * 2 ** 30, '20 GiB'],
  [310 * 2 ** 20, '310 MiB'],
])('%d bytes', (bytes, text) => {
  expect(bytesText(bytes)).toBe(text)
})

test.each([
  [-5, '0 s'],
  [45_400, '45 s'],
  [240_000, '4 min'],
  [9_000_000, '2.5 h'],
])('%d milliseconds', (ms, text) => {
  expect(durationText(ms)).toBe(text)
})

test('an instant', () => {
  expect(instantText(Date.parse('2026-03-01T18:00:30Z'))).toBe('2026-03-01 18:00 UTC')
})
