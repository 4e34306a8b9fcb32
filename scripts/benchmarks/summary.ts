/** From the rows of all rounds to medians and ratios. Pure. */
import { median, round3 } from './statistics.ts'
import { type Row, type Workload, workloads } from './workload.ts'

/** Of one tool on one workload, over all rounds. */
export interface Result {
  readonly workload: Workload
  readonly tool: string
  readonly encrypted: boolean
  readonly rounds: number
  readonly seconds: number
  readonly secondsMin: number
  readonly secondsMax: number
  readonly mbPerSecond: number
  readonly cpuSeconds: number
  readonly wireBytes: number | null
  /** Bytes on the wire above the compressed size of the blocks, in percent; null: nothing on the wire. */
  readonly wireOverheadPercent: number | null
  /** The same above the blocks as they are. */
  readonly wireOverRawPercent: number | null
  readonly identical: boolean
}

export interface Ratio {
  readonly workload: Workload
  readonly against: string
  /** How many times as fast as the other. */
  readonly timesAsFast: number
  /** CPU seconds as a part of the other's. */
  readonly cpuShare: number
}

export function resultsOf(rows: readonly Row[]): readonly Result[] {
  const groups = Map.groupBy(rows, (row) => `${row.workload} ${row.tool}`)
  const results = [...groups.values()].flatMap((group) => {
    const [first] = group
    return first ? [resultOf(first, group)] : []
  })
  return results.sort(
    (a, b) => workloads.indexOf(a.workload) - workloads.indexOf(b.workload) || a.seconds - b.seconds,
  )
}

function resultOf({ workload, tool, encrypted }: Row, rows: readonly Row[]): Result {
  const middle = (value: (row: Row) => number) => median(rows.map(value))
  const seconds = middle((row) => row.seconds)
  const onWire = rows.every((row) => row.wireBytes !== null)
  const wireBytes = onWire ? middle((row) => row.wireBytes ?? 0) : null
  const above = (bytes: number) =>
    wireBytes === null || bytes === 0 ? null : round3((wireBytes / bytes - 1) * 100)
  return {
    workload,
    tool,
    encrypted,
    rounds: rows.length,
    seconds: round3(seconds),
    secondsMin: round3(Math.min(...rows.map((row) => row.seconds))),
    secondsMax: round3(Math.max(...rows.map((row) => row.seconds))),
    mbPerSecond: round3(middle((row) => row.dataBytes) / seconds / 1e6),
    cpuSeconds: round3(middle((row) => row.cpuSeconds)),
    wireBytes,
    wireOverheadPercent: above(middle((row) => row.compressedBytes)),
    wireOverRawPercent: above(middle((row) => row.dataBytes)),
    identical: rows.every((row) => row.identical),
  }
}

/** Hotsite against every other tool on the same workload. */
export function ratiosOf(results: readonly Result[]): readonly Ratio[] {
  return results.flatMap((other) => {
    const ours = results.find(({ workload, tool }) => workload === other.workload && tool === 'hotsite')
    if (!ours || other.tool === 'hotsite') return []
    return [
      {
        workload: other.workload,
        against: other.tool,
        timesAsFast: round3(other.seconds / ours.seconds),
        cpuShare: round3(ours.cpuSeconds / other.cpuSeconds),
      },
    ]
  })
}
