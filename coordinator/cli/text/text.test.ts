import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cutToWidth } from '../job-display.ts'
import { painter, visible } from './style.ts'
import { tableLines } from './table.ts'
import { durationText, parseDurationSeconds, parseSizeBytes, sizeText } from './units.ts'

describe('units', () => {
  it.each([
    [0, '0 s'],
    [440, '0.4 s'],
    [4_000, '4 s'],
    [42_000, '42 s'],
    [59_999, '59 s'],
    [190_000, '3 min 10 s'],
    [300_000, '5 min'],
    [7_500_000, '2 h 5 min'],
    [86_400_000, '1 d'],
    [-5, '0 s'],
  ])('%d ms is %s', (ms, text) => expect(durationText(ms)).toBe(text))

  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [1 << 20, '1 MiB'],
    [240 * 2 ** 30, '240 GiB'],
  ])('%d bytes are %s', (bytes, text) => expect(sizeText(bytes)).toBe(text))

  it('what a person types', () => {
    expect(['30s', '5m', '5 min', '1h', '2d', '7', '', 'x', '5y', '-1s'].map(parseDurationSeconds)).toEqual([
      30,
      300,
      300,
      3600,
      172_800,
      7,
      undefined,
      undefined,
      undefined,
      undefined,
    ])
    expect(['10MiB', '500 KiB', '1gib', '12', '10MB', ''].map(parseSizeBytes)).toEqual([
      10 * 2 ** 20,
      500 * 2 ** 10,
      2 ** 30,
      12,
      undefined,
      undefined,
    ])
  })
})

describe('tables', () => {
  it('never exceed the width when all columns may shrink, and never cut one that may not', () => {
    const cell = fc.string({ maxLength: 60, unit: 'binary' })
    fc.assert(
      fc.property(fc.array(fc.tuple(cell, cell, fc.nat()), { minLength: 1, maxLength: 5 }), (rows) => {
        const columns = [{ title: 'A', shrinks: true }, { title: 'B', shrinks: true }, { title: 'N' }]
        const cells = rows.map(([a, b, n]) => [a, b, String(n)])
        const lines = tableLines(columns, cells, { width: 80, paint: painter(false) })
        expect(lines.length).toBe(rows.length + 1)
        for (const line of lines) expect([...line].length).toBeLessThanOrEqual(80)
        for (const [index, [, , n]] of rows.entries())
          expect(lines[index + 1]?.endsWith(String(n))).toBe(true)
      }),
    )
  })

  it('names keep to their line and cannot steer the terminal', () => {
    expect(visible('a\u001b[2J\nb\u202ec')).toBe('a\ufffd[2J\ufffdb\ufffdc')
  })

  it('a coloured line is cut by what is seen', () => {
    expect(cutToWidth('\u001b[32mabcdef\u001b[0m', 4)).toBe('\u001b[32mabc…\u001b[0m')
    expect(cutToWidth('\u001b[32mabc\u001b[0m', 4)).toBe('\u001b[32mabc\u001b[0m')
  })
})
