const sizeUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** "512 B", "1.5 MiB", "240 GiB" */
export function describeBytes(sizeBytes: number): string {
  let value = sizeBytes
  let unit = 0
  while (value >= 1024 && unit < sizeUnits.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1
  return `${value.toFixed(digits).replace(/\.0$/, '')} ${sizeUnits[unit]}`
}

/** "14 MiB/s" */
export const describeRate = (bytesPerSecond: number): string => `${describeBytes(bytesPerSecond)}/s`

/** "1 block", "12 blocks" */
export const describeBlocks = (count: number): string => `${count} ${count === 1 ? 'block' : 'blocks'}`

/** "45 s", "12 min", "3.5 h", "2.1 days" */
export function describeMs(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 120) return `${Math.round(seconds)} s`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${oneDecimal(seconds / 3600)} h`
  return `${oneDecimal(seconds / 86_400)} days`
}

const oneDecimal = (value: number): string => value.toFixed(1).replace(/\.0$/, '')
