import { statfs } from 'node:fs/promises'
import type { CaptureEngine } from '#recovery-agent/capture/port.ts'
import type { ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { Clock } from '#shared/clock.ts'
import type { Endpoint } from '#shared/config.ts'
import type { Logger } from '#shared/log.ts'
import { programVersion } from '#shared/version.ts'
import { limits } from '../limits.ts'

export interface AgentReporterOptions {
  readonly host: string
  readonly listen: Endpoint
  readonly certificatePem: string
  readonly replicaDir: string
  readonly engine: Pick<CaptureEngine, 'usage'>
  readonly outbox: ReportOutbox
  readonly clock: Clock
  readonly log: Logger
}

/** Says what this agent is and how much room it has, now and then until the signal. */
export async function runAgentReporter(options: AgentReporterOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await report(options)
    } catch (error) {
      options.log.warn('the state of this agent cannot be read', { error })
    }
    await options.clock.sleep(limits.agentReportMs, signal).catch(() => {})
  }
}

async function report(options: AgentReporterOptions): Promise<void> {
  const { host, listen, certificatePem, replicaDir, engine, outbox, clock } = options
  const { bavail, bsize } = await statfs(replicaDir)
  const { bufferedBytes, maxBytes } = await engine.usage()
  outbox.set('agent', 'self', {
    host,
    version: programVersion,
    listen,
    certificatePem,
    replicaFreeBytes: bavail * bsize,
    bufferBytes: bufferedBytes,
    bufferMaxBytes: maxBytes,
    nowMs: clock.now(),
  })
}
