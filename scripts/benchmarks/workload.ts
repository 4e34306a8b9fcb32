/** What the tools are measured on. Pure. */

export const workloads = ['W1-encrypted', 'W1-plain', 'W2', 'W3'] as const
export type Workload = (typeof workloads)[number]

/** Both W1 are one work: the tools that encrypt and those that do not take turns on it. */
export const phases = ['W1', 'W2', 'W3'] as const
export type Phase = (typeof phases)[number]
export const phaseOf = (workload: Workload): Phase =>
  workload === 'W1-encrypted' || workload === 'W1-plain' ? 'W1' : workload

export interface Job {
  readonly phase: Phase
  readonly round: number
  readonly sizeBytes: number
  /** The disk, as a raw image. */
  readonly source: string
  /** W2, W3: a copy of it as it was before the change. */
  readonly before: string
  /** Where tools that write a raw image put it; one tool at a time. */
  readonly target: string
  /** Ascending. Only tools of W3 may look at them during a run. */
  readonly changedBlocks: readonly number[]
}

/** One tool, for the whole run. */
export interface Tool extends AsyncDisposable {
  readonly name: string
  readonly workloads: readonly Workload[]
  readonly encrypted: boolean
  /** False: nothing of it crosses a network interface, so bytes on the wire mean nothing. */
  readonly onWire?: boolean
  /** Not timed; the source is as `before` will be. */
  beforeChange?(job: Job): Promise<void>
  /** Not timed: brings the target into its start state, starts servers. */
  prepare(job: Job): Promise<void>
  /** Processes whose CPU counts, between `prepare` and `finish`, with the children they waited for. */
  pids(): readonly number[]
  /** Timed, until the copy is durable at the target. Answers the CPU seconds of processes that are gone again. */
  run(job: Job): Promise<number>
  /** Not timed, but its CPU counts: until what the run left behind is done. */
  settle?(): Promise<void>
  /** Whether the target now holds what the source holds. */
  identical(job: Job): Promise<boolean>
  /** Not timed. */
  finish?(job: Job): Promise<void>
}

/** One run of one tool on one job. */
export interface Measurement {
  readonly seconds: number
  /** User and system time of every process of the tool, at both ends. */
  readonly cpuSeconds: number
  /** Bytes on the loopback interface, headers included; null: the tool uses none. */
  readonly wireBytes: number | null
}

export interface Row extends Measurement {
  readonly workload: Workload
  readonly tool: string
  readonly encrypted: boolean
  /** Data that had to be copied: blocks that are not zero (W1), changed blocks (W2, W3). */
  readonly dataBytes: number
  /** Those blocks compressed one by one (wire-floor.ts). */
  readonly compressedBytes: number
  readonly identical: boolean
}
