import type { OffsetAt } from './policy/timetable.ts'

/** Zones change their offset at multiples of a quarter of an hour of universal time. */
const QUARTER_MS = 15 * 60_000

/** The clock of an IANA time zone: how far it is ahead of universal time at an instant. Throws RangeError for an unknown zone. */
export function zoneClock(timeZone: string): OffsetAt {
  const format = new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' })
  let known = { quarter: Number.NaN, offsetMs: 0 }
  return (atMs) => {
    const quarter = Math.floor(atMs / QUARTER_MS)
    if (quarter !== known.quarter) known = { quarter, offsetMs: offsetOf(format, quarter * QUARTER_MS) }
    return known.offsetMs
  }
}

/** From names like GMT, GMT+05:30 and GMT-00:44:30. */
function offsetOf(format: Intl.DateTimeFormat, atMs: number): number {
  const name = format.formatToParts(atMs).find(({ type }) => type === 'timeZoneName')?.value ?? 'GMT'
  const [, sign, hours, minutes, seconds] = /^GMT(?:([-+−])(\d\d):(\d\d)(?::(\d\d))?)?$/.exec(name) ?? []
  const ms = ((Number(hours ?? 0) * 60 + Number(minutes ?? 0)) * 60 + Number(seconds ?? 0)) * 1000
  return sign === '+' || sign === undefined ? ms : -ms
}
