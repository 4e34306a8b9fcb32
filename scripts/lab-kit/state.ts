import { existsSync, readFileSync } from 'node:fs'
import { z } from 'zod'
import { writeFileDurably } from '#shared/durable-file.ts'
import type { LabPorts } from './configs.ts'
import type { LabLayout } from './layout.ts'
import type { LabProcess } from './processes.ts'

const labProcess = z.strictObject({ name: z.string(), pid: z.int(), startTicks: z.string() })

const labState = z.strictObject({
  format: z.literal('hotsite-lab'),
  version: z.literal(1),
  ports: z.strictObject({ channel: z.int(), registration: z.int(), agents: z.record(z.string(), z.int()) }),
  processes: z.array(labProcess),
  /** Folders of the VMs that ran when the lab was taken down. */
  resume: z.array(z.string()).default([]),
})

/** What lab.json holds: which ports were chosen, which processes were started, which VMs run again with the next `up`. */
export interface LabState {
  readonly ports: LabPorts
  readonly processes: readonly LabProcess[]
  readonly resume: readonly string[]
}

export function readLabState(layout: LabLayout): LabState | undefined {
  if (!existsSync(layout.labFile)) return undefined
  return labState.parse(JSON.parse(readFileSync(layout.labFile, 'utf8')))
}

export function writeLabState(layout: LabLayout, { ports, processes, resume }: LabState): void {
  writeFileDurably(
    layout.labFile,
    `${JSON.stringify({ format: 'hotsite-lab', version: 1, ports, processes, resume }, null, 2)}\n`,
  )
}

/** Puts `process` in place of an earlier one of the same name. */
export function withProcess(state: LabState, process: LabProcess): LabState {
  return { ...state, processes: [...state.processes.filter(({ name }) => name !== process.name), process] }
}
