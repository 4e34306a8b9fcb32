import { describe, expect, test } from 'vitest'
import { CompressionChoice, isLinkScarce, WayRates } from './compression-choice.ts'

const MiB = 2 ** 20

/**
 * A transfer of batches of 1 MiB over a link that takes `link` MB/s behind a window of 8 MiB, from a source that makes
 * `compressor` or `reader` MB/s; answers how many of the last batches were compressed.
 */
function transfer(
  choice: CompressionChoice,
  rates: { link: number; compressor: number; reader: number; keeps: number; batches: number },
): number {
  let nowMs = 1e6
  let linkFreeMs = nowMs
  let lastCompressed = 0
  choice.begin(nowMs)
  for (let batch = 0; batch < rates.batches; batch++) {
    const compressed = choice.worthwhile
    if (batch >= rates.batches - 100 && compressed) lastCompressed += 1
    const storedBytes = compressed ? MiB * rates.keeps : MiB
    nowMs += MiB / ((compressed ? rates.compressor : rates.reader) * 1000)
    const windowMs = (8 * MiB) / (rates.link * 1000)
    linkFreeMs = Math.max(linkFreeMs, nowMs) + storedBytes / (rates.link * 1000)
    nowMs = Math.max(nowMs, linkFreeMs - windowMs)
    choice.sent({ compressed, storedBytes, rawBytes: MiB }, nowMs)
  }
  return lastCompressed
}

describe('whether to compress', () => {
  test('before anything is known: yes', () => {
    expect(new CompressionChoice().worthwhile).toBe(true)
  })

  test.each([
    ['a slow link', { link: 10, compressor: 150, reader: 1000, keeps: 0.4 }, 100],
    ['a link slower than the compressor', { link: 100, compressor: 150, reader: 1000, keeps: 0.4 }, 80],
    ['a fast link', { link: 1000, compressor: 150, reader: 1000, keeps: 0.4 }, 0],
    ['a link faster than a slow disk', { link: 1000, compressor: 80, reader: 90, keeps: 0.4 }, 0],
    ['a faster link for what does not shrink', { link: 100, compressor: 900, reader: 1000, keeps: 1 }, 0],
  ])('%s', (_name, rates, expected) => {
    const compressed = transfer(new CompressionChoice(), { ...rates, batches: 600 })
    // Now and then the other way is tried.
    if (expected === 0) expect(compressed).toBeLessThanOrEqual(30)
    else expect(compressed).toBeGreaterThanOrEqual(expected)
  })

  test('a link that becomes slow, and fast again, is noticed', () => {
    const choice = new CompressionChoice()
    const rates = { compressor: 150, reader: 1000, keeps: 0.4 }
    transfer(choice, { ...rates, link: 1000, batches: 200 })
    expect(choice.worthwhile).toBe(false)
    transfer(choice, { ...rates, link: 20, batches: 200 })
    expect(choice.worthwhile).toBe(true)
    transfer(choice, { ...rates, link: 1000, batches: 2000 })
    expect(choice.worthwhile).toBe(false)
  })

  test('what one VM learned, the next one on the link knows', () => {
    const link = new WayRates()
    const rates = { link: 1000, compressor: 150, reader: 1000, keeps: 0.4 }
    transfer(new CompressionChoice(link), { ...rates, batches: 200 })
    expect(transfer(new CompressionChoice(link), { ...rates, batches: 100 })).toBe(0)
  })

  test('what loses again and again is tried ever less often', () => {
    const choice = new CompressionChoice()
    const rates = { link: 1000, compressor: 150, reader: 1000, keeps: 0.4 }
    const compressedOf = (hundreds: number) =>
      Array.from({ length: hundreds }, () => transfer(choice, { ...rates, batches: 100 })).reduce(
        (sum, count) => sum + count,
        0,
      )
    const early = compressedOf(40)
    const late = compressedOf(40)
    expect(early).toBeGreaterThan(0)
    expect(late).toBeLessThan(early)
  })

  test('a pause between two transfers does not count', () => {
    const choice = new CompressionChoice()
    const batch = { compressed: true, storedBytes: MiB, rawBytes: 2 * MiB }
    choice.begin(0)
    choice.sent(batch, 0)
    choice.begin(1e9)
    for (let i = 0; i <= 8; i++) choice.sent(batch, 1e9 + i * 10)
    expect(choice.worthwhile).toBe(false)
  })
})

test.each([
  ['a throttle, on a fast link', { throttleBytesPerSecond: 500_000_000, linkBytesPerSecond: 1e9 }, true],
  [
    'a throttle, on a link not measured',
    { throttleBytesPerSecond: 1_000_000, linkBytesPerSecond: null },
    true,
  ],
  ['no throttle, a slow link', { throttleBytesPerSecond: 0, linkBytesPerSecond: 5_000_000 }, true],
  ['no throttle, a fast link', { throttleBytesPerSecond: 0, linkBytesPerSecond: 100_000_000 }, false],
  ['nothing known', { throttleBytesPerSecond: 0, linkBytesPerSecond: null }, false],
])('is there nothing to choose: %s', (_name, link, expected) => {
  expect(isLinkScarce(link)).toBe(expected)
})
