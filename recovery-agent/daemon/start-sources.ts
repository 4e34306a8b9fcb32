import type { ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { AgentOptions } from '../agent.ts'
import type { CaptureEngine } from '../capture/port.ts'
import type { RaiseEvent } from '../reports/events.ts'
import { Sources } from '../source/sources.ts'
import type { AgentState } from '../state/agent-state.ts'
import type { Revocations } from '../state/revocations.ts'
import { createPeerLinks } from '../stream/source/peer-links.ts'

/** The side of the agent that protects VMs: takes up what it did before it was stopped. */
export async function startSources({
  config,
  identity,
  clock,
  rng,
  log,
  crashPoint,
  overrides,
  engine,
  state,
  outbox,
  raise,
  isRevoked,
}: AgentOptions & {
  readonly engine: CaptureEngine
  readonly state: AgentState
  readonly outbox: ReportOutbox
  readonly raise: RaiseEvent
  readonly isRevoked: Revocations['isRevoked']
}): Promise<Sources> {
  const links = createPeerLinks({
    identity,
    isRevoked,
    // Other failures pass by themselves, and `peerConnected` says so meanwhile; this one needs a person.
    onEvent({ code, message }) {
      if (code.startsWith('membership-')) raise({ severity: 'warning', code, message, vmId: null })
    },
    clock,
    rng,
    log,
    backoff: config.reconnect,
    limits: overrides?.channelLimits,
    dial: overrides?.dial,
  })
  const sources = new Sources({
    engine,
    links,
    state,
    clock,
    rng,
    log,
    crashPoint,
    raise,
    publish: (report) =>
      report.activity === 'stopped'
        ? outbox.remove('replication', report.vmId)
        : outbox.set('replication', report.vmId, report),
  })
  await sources.resumeAll()
  return sources
}
