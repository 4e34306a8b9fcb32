import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { parseDurationSeconds } from './units.ts'

const dayMs = 86_400_000

/**
 * "+2h", "22:00" (the next one), "2030-01-31 22:00", "2030-01-31T22:00+01:00"; UTC where no offset is given, as all times
 * are shown. Milliseconds since 1970. Throws `start-time-invalid`.
 */
export function parseStartTime(text: string, nowMs: number): number {
  const trimmed = text.trim()
  const found = relative(trimmed, nowMs) ?? ofToday(trimmed, nowMs) ?? onDate(trimmed)
  if (found !== undefined) return found
  const message = `"${text}" is no time: write +2h, 22:00 or "2030-01-31 22:00" (UTC)`
  throw new HotsiteError('start-time-invalid', message)
}

function relative(text: string, nowMs: number): number | undefined {
  const seconds = text.startsWith('+') ? parseDurationSeconds(text.slice(1)) : undefined
  return seconds === undefined ? undefined : nowMs + seconds * 1000
}

function ofToday(text: string, nowMs: number): number | undefined {
  const [, hours, minutes] = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(text) ?? []
  if (hours === undefined) return undefined
  const atMs = nowMs - (nowMs % dayMs) + (Number(hours) * 60 + Number(minutes)) * 60_000
  return atMs > nowMs ? atMs : atMs + dayMs
}

function onDate(text: string): number | undefined {
  const [, date, time, zone = 'Z'] =
    /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)\s*(Z|UTC|[+-]\d\d:\d\d)?$/i.exec(text) ?? []
  if (date === undefined) return undefined
  const atMs = Date.parse(`${date}T${time}${/^(z|utc)$/i.test(zone) ? 'Z' : zone}`)
  // A day that does not exist is moved to the next month by some parsers.
  const exists = new Date(`${date}T00:00Z`)
  if (Number.isNaN(atMs) || Number.isNaN(exists.getTime())) return undefined
  return exists.toISOString().startsWith(date) ? atMs : undefined
}
