import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { weeklyWindow } from '#shared/messages/policy.ts'
import { parseStartTime } from './start-time.ts'
import { parseThrottleWindow, parseWeeklyWindow, weeklyWindowText } from './weekly-window.ts'

describe('a window of the week', () => {
  it.each([
    ['mon-fri 08:00-18:00 5MiB', 'mon-fri 08:00-18:00', 5 * 2 ** 20],
    ['weekdays 8:00-18:00 500KiB/s', 'mon-fri 08:00-18:00', 500 * 1024],
    ['sat,sun 00:00-24:00 0', 'weekend 00:00-00:00', 0],
    ['fri-mon 22:00 - 06:00 1GiB', 'mon,fri-sun 22:00-06:00', 2 ** 30],
    ['Monday,wed 10:00-11:30 7', 'mon,wed 10:00-11:30', 7],
  ])('%s', (text, window, bytesPerSecond) => {
    const parsed = parseThrottleWindow(text)
    expect([weeklyWindowText(parsed), parsed.bytesPerSecond]).toEqual([window, bytesPerSecond])
  })

  it.each([
    ['mon-fri 08:00-18:00', 'no rate'],
    ['mon-fri 08:00-18:00 fast', '"fast" is no rate'],
    ['mon-fri 25:00-18:00 5MiB', '"25:00" is no time of day'],
    ['mon-fri 08:60-18:00 5MiB', '"08:60" is no time of day'],
    ['08:00-18:00 5MiB', 'write it as'],
    ['mon 24:00-08:00 5MiB', '"24:00" is no time of day'],
    ['someday 08:00-18:00 5MiB', '"someday" are no days'],
    ['mon-tue-wed 08:00-18:00 5MiB', 'are no days'],
    ['mondrian 08:00-18:00 5MiB', 'are no days'],
    ['', 'write it as'],
  ])('"%s" is refused, and what is wrong is named', (text, why) => {
    expect(() => parseThrottleWindow(text)).toThrowError(expect.objectContaining({ code: 'window-invalid' }))
    expect(() => parseThrottleWindow(text)).toThrowError(why)
  })

  it('a window for resynchronization has no rate', () => {
    expect(parseWeeklyWindow('daily 18:00-06:00')).toMatchObject({ from: '18:00', to: '06:00' })
    expect(() => parseWeeklyWindow('daily 18:00-06:00 5MiB')).toThrowError('"5MiB" is too much')
  })

  it('what is shown can be typed again, and the policy takes it', () => {
    const time = fc
      .tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 0, max: 59 }))
      .map((parts) => parts.map((part) => String(part).padStart(2, '0')).join(':'))
    const days = fc.subarray(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const, { minLength: 1 })
    fc.assert(
      fc.property(days, time, time, (some, from, to) => {
        const window = { days: some, from, to }
        const again = parseWeeklyWindow(weeklyWindowText(window))
        expect(again).toEqual(window)
        expect(weeklyWindow.safeParse(again).success).toBe(true)
      }),
    )
  })
})

describe('a time to start', () => {
  const nowMs = Date.UTC(2030, 0, 31, 12, 30)
  it.each([
    ['+2h', Date.UTC(2030, 0, 31, 14, 30)],
    ['22:00', Date.UTC(2030, 0, 31, 22)],
    ['12:30', Date.UTC(2030, 1, 1, 12, 30)],
    ['2030-02-01 03:00', Date.UTC(2030, 1, 1, 3)],
    ['2030-02-01T03:00+01:00', Date.UTC(2030, 1, 1, 2)],
    ['2030-02-01T03:00:30Z', Date.UTC(2030, 1, 1, 3, 0, 30)],
  ])('%s', (text, atMs) => expect(parseStartTime(text, nowMs)).toBe(atMs))
  it.each(['tomorrow', '25:00', '2030-02-30 10:00', '2030-13-01 10:00', '', '+', '10'])(
    '"%s" is no time',
    (text) => {
      expect(() => parseStartTime(text, nowMs)).toThrowError(
        expect.objectContaining({ code: 'start-time-invalid' }),
      )
    },
  )
})
