import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ReplicationPolicy, WeeklyWindow } from '#shared/messages/policy.ts'
import { parseSizeBytes } from './units.ts'

type Day = WeeklyWindow['days'][number]
const week: readonly Day[] = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']
const fullNames = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday']
const named: ReadonlyMap<string, readonly Day[]> = new Map([
  ['daily', week],
  ['weekdays', week.slice(0, 5)],
  ['weekend', week.slice(5)],
])

export type ThrottleWindow = ReplicationPolicy['throttleWindows'][number]

/** "mon-fri 08:00-18:00 5MiB"; a rate of 0 is no limit. Throws `window-invalid`. */
export function parseThrottleWindow(text: string): ThrottleWindow {
  const { window, rest } = parseParts(text, 'mon-fri 08:00-18:00 5MiB')
  const bytesPerSecond = parseSizeBytes(rest.replace(/\/s$/i, ''))
  if (bytesPerSecond === undefined) throw invalid(text, `"${rest}" is no rate, as 5MiB`)
  return { ...window, bytesPerSecond }
}

/** "daily 18:00-06:00". Throws `window-invalid`. */
export function parseWeeklyWindow(text: string): WeeklyWindow {
  const { window, rest } = parseParts(text, 'daily 18:00-06:00')
  if (rest !== '') throw invalid(text, `"${rest}" is too much`)
  return window
}

/** "mon-fri 08:00-18:00" */
export function weeklyWindowText({ days, from, to }: WeeklyWindow): string {
  return `${daysText(days)} ${from}-${to}`
}

const invalid = (text: string, why: string): HotsiteError =>
  new HotsiteError('window-invalid', `window "${text}": ${why}`)

function parseParts(text: string, example: string): { window: WeeklyWindow; rest: string } {
  const match = /^\s*(\S+)\s+(\S+?)\s*-\s*(\S+)(?:\s+(\S.*?))?\s*$/.exec(text)
  if (!match) throw invalid(text, `write it as "${example}"`)
  const [, days = '', from = '', to = '', rest = ''] = match
  const window = { days: [...parseDays(text, days)], from: parseTime(text, from), to: parseEnd(text, to) }
  return { window, rest }
}

function parseDays(text: string, days: string): readonly Day[] {
  const chosen = days
    .toLowerCase()
    .split(',')
    .flatMap((part) => named.get(part) ?? parseRange(text, part))
  return week.filter((day) => chosen.includes(day))
}

/** "fri-mon" goes over the end of the week. */
function parseRange(text: string, part: string): readonly Day[] {
  const [first = '', last = first, more] = part.split('-')
  const [from, to] = [first, last].map((name) => indexOfDay(name))
  if (from === undefined || to === undefined || from < 0 || to < 0 || more !== undefined)
    throw invalid(text, `"${part}" are no days, as mon-fri, sat,sun, daily, weekdays or weekend`)
  return week.filter((_, index) => (from <= to ? index >= from && index <= to : index >= from || index <= to))
}

const indexOfDay = (name: string): number =>
  fullNames.findIndex((full) => full === name || full.slice(0, 3) === name)

function parseTime(text: string, time: string): string {
  const [, hours = '', minutes = ''] = /^(\d{1,2}):(\d\d)$/.exec(time) ?? []
  if (hours === '' || Number(hours) > 23 || Number(minutes) > 59)
    throw invalid(text, `"${time}" is no time of day, as 08:00`)
  return `${hours.padStart(2, '0')}:${minutes}`
}

/** The end of the day is the start of the next. */
const parseEnd = (text: string, time: string): string => (time === '24:00' ? '00:00' : parseTime(text, time))

function daysText(days: readonly Day[]): string {
  for (const [name, all] of named)
    if (name !== 'weekdays' && all.length === days.length && all.every((day) => days.includes(day)))
      return name
  const runs: Day[][] = []
  for (const day of week) {
    if (!days.includes(day)) continue
    const run = runs.at(-1)
    const before = run?.at(-1)
    if (run && before && week.indexOf(before) === week.indexOf(day) - 1) run.push(day)
    else runs.push([day])
  }
  return runs.map((run) => (run.length > 2 ? `${run[0]}-${run.at(-1)}` : run.join(','))).join(',')
}
