import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { WeeklyWindow } from '../messages/policy.ts'
import { zoneClock } from '../zone-clock.ts'
import {
  DEFAULT_RESYNC_WINDOW,
  isInWindow,
  nextOpening,
  nextRateChange,
  type OffsetAt,
  rateInForce,
  transferSeconds,
} from './timetable.ts'

const MiB = 1 << 20
const hourMs = 3_600_000
const utc: OffsetAt = () => 0
const berlin = zoneClock('Europe/Berlin')
const at = (iso: string) => Date.parse(iso)
const workDays = ['mon', 'tue', 'wed', 'thu', 'fri'] as const

const office = { days: [...workDays], from: '08:00', to: '18:00', bytesPerSecond: 5 * MiB }
const night: WeeklyWindow = { days: ['fri'], from: '22:00', to: '04:00' }

describe('the rate in force', () => {
  const lunch = { days: [...workDays], from: '12:00', to: '13:00', bytesPerSecond: 0 }
  const policy = { throttleBytesPerSecond: 50 * MiB, throttleWindows: [lunch, office] }
  test.each([
    ['before the office opens', '2026-03-02T07:59:59.999Z', 50 * MiB],
    ['from the first instant of a window', '2026-03-02T08:00:00Z', 5 * MiB],
    ['the first window that matches counts, and 0 is no limit', '2026-03-02T12:30:00Z', 0],
    ['to its last instant, without its end', '2026-03-02T18:00:00Z', 50 * MiB],
    ['on a Saturday', '2026-03-07T10:00:00Z', 50 * MiB],
  ])('%s', (_case, instant, expected) => {
    expect(rateInForce(policy, at(instant), utc)).toBe(expected)
  })

  test('and its next change', () => {
    expect(nextRateChange(policy, at('2026-03-06T17:00:00Z'), utc)).toEqual({
      atMs: at('2026-03-06T18:00:00Z'),
      bytesPerSecond: 50 * MiB,
    })
    expect(nextRateChange(policy, at('2026-03-06T18:00:00Z'), utc)).toEqual({
      atMs: at('2026-03-09T08:00:00Z'),
      bytesPerSecond: 5 * MiB,
    })
    expect(nextRateChange({ throttleBytesPerSecond: 7, throttleWindows: [] }, 0, utc)).toBeNull()
    const always = {
      days: [...workDays, 'sat', 'sun'] as const,
      from: '00:00',
      to: '00:00',
      bytesPerSecond: 9,
    }
    const constant = { throttleBytesPerSecond: 7, throttleWindows: [{ ...always, days: [...always.days] }] }
    expect(nextRateChange(constant, at('2026-03-06T18:00:00Z'), utc)).toBeNull()
  })
})

test.each([
  ['Friday evening', '2026-03-06T23:00:00Z', true],
  ['Saturday before dawn: still of Friday', '2026-03-07T03:59:00Z', true],
  ['Saturday at its end', '2026-03-07T04:00:00Z', false],
  ['Friday before dawn: of no Thursday', '2026-03-06T03:00:00Z', false],
])('a window over midnight: %s', (_case, instant, expected) => {
  expect(isInWindow(night, at(instant), utc)).toBe(expected)
})

test('a window over the end of the week, and the whole day', () => {
  const sunday: WeeklyWindow = { days: ['sun'], from: '20:00', to: '20:00' }
  expect(isInWindow(sunday, at('2026-03-02T19:59:00Z'), utc)).toBe(true)
  expect(isInWindow(sunday, at('2026-03-02T20:00:00Z'), utc)).toBe(false)
})

describe('where clocks are set', () => {
  const early = (from: string, to: string): WeeklyWindow => ({ days: ['sun'], from, to })

  test.each([
    ['in winter', '2026-01-05T17:00:00Z', '2026-01-05T17:00:00Z'],
    ['in summer an hour earlier', '2026-07-06T15:00:00Z', '2026-07-06T16:00:00Z'],
  ])('a window opens by the clock on the wall: %s', (_case, instant, opens) => {
    expect(nextOpening(DEFAULT_RESYNC_WINDOW, at(instant), berlin)).toBe(at(opens))
  })

  test('in spring the hour that is skipped is in no window, and what begins in it begins when it is over', () => {
    // 2026-03-29, 02:00 to 03:00 does not exist: 01:00Z is 03:00.
    expect(nextOpening(early('02:30', '03:30'), at('2026-03-28T12:00:00Z'), berlin)).toBe(
      at('2026-03-29T01:00:00Z'),
    )
    expect(nextOpening(early('02:10', '02:50'), at('2026-03-28T12:00:00Z'), berlin)).toBe(
      at('2026-04-05T00:10:00Z'),
    )
  })

  test('in autumn the hour that comes twice is in its windows twice', () => {
    // 2026-10-25, 02:00 to 03:00 is 00:00Z to 01:00Z and once more 01:00Z to 02:00Z.
    const window = { ...early('02:15', '02:45'), bytesPerSecond: 1 }
    const policy = { throttleBytesPerSecond: 9, throttleWindows: [window] }
    const changes: string[] = []
    for (let now = at('2026-10-24T20:00:00Z'), i = 0; i < 4; i++) {
      const next = nextRateChange(policy, now, berlin)
      if (!next) break
      changes.push(`${new Date(next.atMs).toISOString().slice(11, 16)} ${next.bytesPerSecond}`)
      now = next.atMs
    }
    expect(changes).toEqual(['00:15 1', '00:45 9', '01:15 1', '01:45 9'])
  })

  test('zones with odd offsets, south and west', () => {
    expect(zoneClock('Asia/Kathmandu')(at('2026-01-01T00:00:00Z'))).toBe(5.75 * hourMs)
    expect(zoneClock('America/St_Johns')(at('2026-01-01T00:00:00Z'))).toBe(-3.5 * hourMs)
    expect(zoneClock('Australia/Lord_Howe')(at('2026-01-01T00:00:00Z'))).toBe(11 * hourMs)
    expect(zoneClock('Australia/Lord_Howe')(at('2026-07-01T00:00:00Z'))).toBe(10.5 * hourMs)
    expect(zoneClock('UTC')(0)).toBe(0)
    expect(() => zoneClock('Mars/Olympus')).toThrow(RangeError)
  })
})

const days = fc.subarray(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const, { minLength: 1 })
const time = fc
  .tuple(fc.nat(23), fc.nat(59))
  .map(([hours, minutes]) => `${String(hours).padStart(2, '0')}:${String(minutes).padStart(2, '0')}`)
const window = fc.record({ days, from: time, to: time, bytesPerSecond: fc.nat(3).map((n) => n * 1000) })
const policies = fc.record({
  throttleBytesPerSecond: fc.nat(3).map((n) => n * 1000),
  throttleWindows: fc.array(window, { maxLength: 4 }),
})
const instants = fc.integer({ min: at('2026-01-01T00:00:00Z'), max: at('2027-01-01T00:00:00Z') })
const zones = fc
  .constantFrom('UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe')
  .map(zoneClock)

test('between now and the next change the rate is one, and at the change it is another', () => {
  fc.assert(
    fc.property(
      policies,
      instants,
      zones,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (policy, now, zone, part) => {
        const rate = rateInForce(policy, now, zone)
        const next = nextRateChange(policy, now, zone)
        const until = next?.atMs ?? now + 7 * 24 * hourMs
        const between = Math.floor(now + (until - 1 - now) * part)
        expect(rateInForce(policy, between, zone)).toBe(rate)
        if (!next) return
        expect(next.atMs).toBeGreaterThan(now)
        expect(rateInForce(policy, until - 1, zone)).toBe(rate)
        expect(rateInForce(policy, until, zone)).toBe(next.bytesPerSecond)
        expect(next.bytesPerSecond).not.toBe(rate)
      },
    ),
    { numRuns: 300 },
  )
})

test('a window opens at the first instant inside it', () => {
  fc.assert(
    fc.property(window, instants, zones, (one, now, zone) => {
      const opens = nextOpening(one, now, zone)
      if (opens === null) return
      expect(isInWindow(one, opens, zone)).toBe(true)
      if (opens > now) expect(isInWindow(one, opens - 1, zone)).toBe(false)
    }),
  )
})

test('a transfer takes as long as the rates of its hours make it', () => {
  const policy = { throttleBytesPerSecond: 0, throttleWindows: [{ ...office, bytesPerSecond: 1 * MiB }] }
  const link = { linkBytesPerSecond: 10 * MiB, atMs: at('2026-03-02T17:59:00Z') }
  // A minute at 1 MiB/s, the rest at 10.
  expect(transferSeconds(policy, { ...link, bytes: 660 * MiB }, utc)).toBeCloseTo(120)
  expect(transferSeconds(policy, { ...link, bytes: 0 }, utc)).toBe(0)
  const open = { bytes: MiB, linkBytesPerSecond: null, atMs: at('2026-03-07T00:00:00Z') }
  expect(transferSeconds(policy, open, utc)).toBeNull()
})
