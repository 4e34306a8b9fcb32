export { describeBytes as sizeText } from '#coordinator/domain/quantities.ts'

const second = 1_000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

/** "0.4 s", "42 s", "3 min 10 s", "2 h 5 min", "3 d 4 h": the two largest units that say something. */
export function durationText(ms: number): string {
  const span = Math.max(0, ms)
  if (span < 10 * second) return `${(Math.floor(span / 100) / 10).toString()} s`
  if (span < minute) return `${Math.floor(span / second)} s`
  if (span < hour) return pair(span, [minute, 'min'], [second, 's'])
  if (span < day) return pair(span, [hour, 'h'], [minute, 'min'])
  return pair(span, [day, 'd'], [hour, 'h'])
}

function pair(
  span: number,
  [large, largeName]: [number, string],
  [small, smallName]: [number, string],
): string {
  const rest = Math.floor((span % large) / small)
  const head = `${Math.floor(span / large)} ${largeName}`
  return rest === 0 ? head : `${head} ${rest} ${smallName}`
}

/** "2030-01-31 17:04:09 UTC": the same wherever it is read. */
export function timeText(ms: number): string {
  return `${clockText(ms)} UTC`
}

/** For a column whose title says that it is UTC. */
export function clockText(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ')
}

const durationUnits: Readonly<Record<string, number>> = { s: 1, sec: 1, min: 60, m: 60, h: 3600, d: 86_400 }

/** "30s", "5m", "5 min", "1h", or plain seconds; undefined when it is none of these. */
export function parseDurationSeconds(text: string): number | undefined {
  const [, digits = '', unit = 's'] = /^(\d{1,9})\s*(s|sec|m|min|h|d)?$/.exec(text.trim()) ?? []
  const factor = durationUnits[unit]
  return digits === '' || factor === undefined ? undefined : Number(digits) * factor
}

/** "10MiB", "500 KiB", or plain bytes; undefined when it is none of these. */
export function parseSizeBytes(text: string): number | undefined {
  const [, digits = '', unit = 'b'] = /^(\d{1,12})\s*(b|kib|mib|gib)?$/i.exec(text.trim()) ?? []
  const power = ['b', 'kib', 'mib', 'gib'].indexOf(unit.toLowerCase())
  return digits === '' ? undefined : Number(digits) * 1024 ** power
}
