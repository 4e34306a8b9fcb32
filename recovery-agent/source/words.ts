/** Figures as people read them in events. Pure. */

const KiB = 1024
const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const

export function bytesText(sizeBytes: number): string {
  let value = Math.max(0, sizeBytes)
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= KiB
    unit += 1
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toPrecision(2)} ${units[unit]}`
}

export function durationText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 120) return `${seconds} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 120) return `${minutes} min`
  return `${(minutes / 60).toFixed(1)} h`
}

/** 2026-03-01 18:00 UTC */
export function instantText(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}

export function pointsText(count: number): string {
  return `${count} ${count === 1 ? 'point' : 'points'}`
}
