/** Tables for people. Pure: answers the text. */
import type { Measure } from './measures.ts'
import type { Ratio, Result } from './summary.ts'

/** The first column to the left, the others to the right, each as wide as it has to be. */
export function tableOf(rows: readonly (readonly string[])[]): string {
  const columns = Math.max(0, ...rows.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, i) =>
    Math.max(...rows.map((row) => (row[i] ?? '').length)),
  )
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')
  return rows.map((row) => `${line(row).trimEnd()}\n`).join('')
}

export function resultTable(results: readonly Result[]): string {
  const head = [
    'workload',
    'tool',
    'seconds',
    '(min-max)',
    'MB/s',
    'CPU s',
    'wire MB',
    'over floor',
    'identical',
  ]
  return tableOf([
    head,
    ...results.map((row) => [
      row.workload,
      row.tool,
      row.seconds.toFixed(2),
      `(${row.secondsMin.toFixed(2)}-${row.secondsMax.toFixed(2)})`,
      row.mbPerSecond.toFixed(0),
      row.cpuSeconds.toFixed(2),
      row.wireBytes === null ? '-' : (row.wireBytes / 1e6).toFixed(1),
      row.wireOverheadPercent === null ? '-' : `${row.wireOverheadPercent.toFixed(1)} %`,
      row.identical ? 'yes' : 'NO',
    ]),
  ])
}

export function ratioTable(ratios: readonly Ratio[]): string {
  return tableOf([
    ['workload', 'Hotsite against', 'times as fast', 'CPU share'],
    ...ratios.map((row) => [row.workload, row.against, row.timesAsFast.toFixed(2), row.cpuShare.toFixed(2)]),
  ])
}

export function measureTable(measures: readonly Measure[]): string {
  return tableOf([
    ['measure', '', 'wanted', 'got'],
    ...measures.map(({ name, wanted, got, ok }) => [
      name,
      ok === null ? 'not measured' : ok ? 'ok' : 'SHORT',
      wanted,
      got === null ? '-' : String(got),
    ]),
  ])
}
