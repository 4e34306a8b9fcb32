import type { HistoryReport } from './history.ts'

export interface Summary {
  readonly seeds: number
  readonly histories: number
  readonly simulatedHours: number
  readonly pointsVerified: number
  /** Older points that came below newer ones. */
  readonly pointsBackfilled: number
  /** Injected, by kind. */
  readonly faults: Readonly<Record<string, number>>
  /** Kills, by the named instant they happened at. */
  readonly crashPoints: Readonly<Record<string, number>>
  readonly violations: readonly { readonly seed: number; readonly invariant: string; readonly what: string }[]
  readonly seconds: number
  readonly cpuSecondsPerHistory: number
}

export function summaryOf(
  reports: readonly HistoryReport[],
  { seeds, seconds }: { readonly seeds: number; readonly seconds: number },
): Summary {
  const sum = (of: (report: HistoryReport) => number) =>
    reports.reduce((total, report) => total + of(report), 0)
  return {
    seeds,
    histories: reports.length,
    simulatedHours: round(sum(({ simulatedHours }) => simulatedHours)),
    pointsVerified: sum(({ pointsVerified }) => pointsVerified),
    pointsBackfilled: sum(({ pointsBackfilled }) => pointsBackfilled),
    faults: added(reports.map(({ faults }) => faults)),
    crashPoints: added(reports.map(({ crashPoints }) => crashPoints)),
    violations: reports.flatMap(({ seed, violations }) =>
      violations.map((violation) => ({ seed, ...violation })),
    ),
    seconds: round(seconds),
    cpuSecondsPerHistory: round(sum((report) => report.seconds) / Math.max(1, reports.length)),
  }
}

function added(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total = new Map<string, number>()
  for (const each of counts)
    for (const [name, count] of Object.entries(each)) total.set(name, (total.get(name) ?? 0) + count)
  return Object.fromEntries([...total].sort(([a], [b]) => a.localeCompare(b)))
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

export function textOf(summary: Summary): string {
  const {
    histories,
    seeds,
    simulatedHours,
    pointsVerified,
    pointsBackfilled,
    violations,
    seconds,
    cpuSecondsPerHistory,
  } = summary
  const total = (counts: Readonly<Record<string, number>>) =>
    Object.values(counts).reduce((sum, count) => sum + count, 0)
  const list = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ')
  const lines = [
    `${histories} of ${seeds} histories, ${simulatedHours} simulated hours in ${seconds} s (${cpuSecondsPerHistory} CPU seconds each)`,
    `${pointsVerified} points equal to what the guests' disks were; ${pointsBackfilled} came below newer ones`,
    `${total(summary.faults)} faults: ${list(summary.faults)}`,
    `${total(summary.crashPoints)} deaths at ${Object.keys(summary.crashPoints).length} named instants: ${list(summary.crashPoints)}`,
    ...violations.map(({ seed, invariant, what }) => `VIOLATION seed ${seed} ${invariant}: ${what}`),
    `${violations.length} violations${violations.length > 0 ? ` in seeds ${[...new Set(violations.map(({ seed }) => seed))].join(', ')}` : ''}`,
  ]
  return `${lines.join('\n')}\n`
}
