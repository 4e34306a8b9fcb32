/**
 * Parts of a week on the clock of a time zone: which rate is in force, when it changes, when a window opens.
 *
 * What counts is the clock on the wall. An hour that is skipped in spring belongs to no window; one that comes twice in
 * autumn belongs to its windows both times. A window whose end is at or before its start ends on the next day, and
 * belongs to the day it starts on. Pure: the zone comes in as a function from an instant to its offset.
 */
import type { ReplicationPolicy, WeeklyWindow } from '../messages/policy.ts'

/** Milliseconds the wall clock is ahead of universal time at an instant. */
export type OffsetAt = (atMs: number) => number

export type RatePolicy = Pick<ReplicationPolicy, 'throttleBytesPerSecond' | 'throttleWindows'>

const MINUTE_MS = 60_000
const DAY_MINUTES = 24 * 60
const DAY_MS = DAY_MINUTES * MINUTE_MS
const WEEK_MS = 7 * DAY_MS
/** The first of January 1970 was a Thursday: the fourth day of a week that begins on Monday. */
const EPOCH_DAY_MS = 3 * DAY_MS
const dayNames = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

/** Every day from 18:00 to 06:00: when most sites do not need their link. */
export const DEFAULT_RESYNC_WINDOW: WeeklyWindow = { days: [...dayNames], from: '18:00', to: '06:00' }

interface Span {
  /** Since Monday 00:00 on the wall, below a week. */
  readonly startMs: number
  readonly lengthMs: number
}

export function isInWindow(window: WeeklyWindow, atMs: number, offsetAt: OffsetAt): boolean {
  const wallMs = wallOfWeek(atMs, offsetAt)
  return spansOf(window).some(({ startMs, lengthMs }) => sinceMs(startMs, wallMs) < lengthMs)
}

/** Bytes per second at an instant; 0: no limit. The first window that matches counts. */
export function rateInForce(policy: RatePolicy, atMs: number, offsetAt: OffsetAt): number {
  const window = policy.throttleWindows.find((candidate) => isInWindow(candidate, atMs, offsetAt))
  return window ? window.bytesPerSecond : policy.throttleBytesPerSecond
}

/** The first instant after `atMs` with another rate than at `atMs`; null: none within the week to come. */
export function nextRateChange(
  policy: RatePolicy,
  atMs: number,
  offsetAt: OffsetAt,
): { readonly atMs: number; readonly bytesPerSecond: number } | null {
  if (policy.throttleWindows.length === 0) return null
  const before = rateInForce(policy, atMs, offsetAt)
  const changed = firstInstant(policy.throttleWindows, atMs, offsetAt, (candidate) => {
    return rateInForce(policy, candidate, offsetAt) !== before
  })
  return changed === null ? null : { atMs: changed, bytesPerSecond: rateInForce(policy, changed, offsetAt) }
}

/** The first instant at or after `atMs` inside the window; null: none within the week to come (a zone may skip one). */
export function nextOpening(window: WeeklyWindow, atMs: number, offsetAt: OffsetAt): number | null {
  if (isInWindow(window, atMs, offsetAt)) return atMs
  return firstInstant([window], atMs, offsetAt, (candidate) => isInWindow(window, candidate, offsetAt))
}

/**
 * Seconds until `bytes` are through, beginning at `atMs`, on a link of `linkBytesPerSecond` (null: not known, so only
 * the timetable limits). null: neither limits, or it takes longer than eight weeks.
 */
export function transferSeconds(
  policy: RatePolicy,
  request: { readonly bytes: number; readonly linkBytesPerSecond: number | null; readonly atMs: number },
  offsetAt: OffsetAt,
): number | null {
  if (request.bytes <= 0) return 0
  const link = request.linkBytesPerSecond ?? Number.POSITIVE_INFINITY
  const endMs = request.atMs + 8 * WEEK_MS
  let leftBytes = request.bytes
  let atMs = request.atMs
  while (atMs < endMs) {
    const throttle = rateInForce(policy, atMs, offsetAt)
    const rate = Math.min(link, throttle === 0 ? Number.POSITIVE_INFINITY : throttle)
    const untilMs = nextRateChange(policy, atMs, offsetAt)?.atMs ?? Number.POSITIVE_INFINITY
    if (rate === Number.POSITIVE_INFINITY) return null
    const neededMs = rate > 0 ? (leftBytes / rate) * 1000 : Number.POSITIVE_INFINITY
    if (atMs + neededMs <= untilMs) return (atMs + neededMs - request.atMs) / 1000
    leftBytes -= (rate * (untilMs - atMs)) / 1000
    atMs = untilMs
  }
  return null
}

/** The first boundary of a window, or change of the zone's offset, after `atMs` for which `isWanted`. */
function firstInstant(
  windows: readonly WeeklyWindow[],
  atMs: number,
  offsetAt: OffsetAt,
  isWanted: (candidateMs: number) => boolean,
): number | null {
  const boundaries = windows
    .flatMap(spansOf)
    .flatMap(({ startMs, lengthMs }) => [startMs, startMs + lengthMs])
  // A day more than a week: the clock may be set back meanwhile.
  const endMs = atMs + WEEK_MS + DAY_MS
  for (let nowMs = atMs; nowMs < endMs; ) {
    nowMs = nextBoundary(boundaries, nowMs, offsetAt)
    if (isWanted(nowMs)) return nowMs
  }
  return null
}

/** At most a day ahead, so that no change of offset is jumped over. */
function nextBoundary(boundaries: readonly number[], atMs: number, offsetAt: OffsetAt): number {
  const wallMs = wallOfWeek(atMs, offsetAt)
  const steps = boundaries.map((boundaryMs) => sinceMs(wallMs, boundaryMs) || WEEK_MS)
  const thenMs = atMs + Math.min(DAY_MS, ...steps)
  return offsetAt(thenMs) === offsetAt(atMs) ? thenMs : offsetChange(atMs, thenMs, offsetAt)
}

/** The first instant after `fromMs` with the offset that is in force at `toMs`. */
function offsetChange(fromMs: number, toMs: number, offsetAt: OffsetAt): number {
  const after = offsetAt(toMs)
  let before = fromMs
  let then = toMs
  while (then - before > 1) {
    const middle = Math.floor((before + then) / 2)
    if (offsetAt(middle) === after) then = middle
    else before = middle
  }
  return then
}

function spansOf({ days, from, to }: WeeklyWindow): Span[] {
  const start = minutesOf(from)
  const end = minutesOf(to)
  const lengthMinutes = end > start ? end - start : end + DAY_MINUTES - start
  return days.map((day) => ({
    startMs: dayNames.indexOf(day) * DAY_MS + start * MINUTE_MS,
    lengthMs: lengthMinutes * MINUTE_MS,
  }))
}

function minutesOf(time: string): number {
  const [hours = '0', minutes = '0'] = time.split(':')
  return Number(hours) * 60 + Number(minutes)
}

function wallOfWeek(atMs: number, offsetAt: OffsetAt): number {
  return modulo(atMs + offsetAt(atMs) + EPOCH_DAY_MS, WEEK_MS)
}

/** How long after `startMs` of the week `wallMs` is, going forward. */
function sinceMs(startMs: number, wallMs: number): number {
  return modulo(wallMs - startMs, WEEK_MS)
}

function modulo(value: number, divisor: number): number {
  return ((value % divisor) + divisor) % divisor
}
