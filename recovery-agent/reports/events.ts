import { randomUUID } from 'node:crypto'
import type { ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { Clock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { EventReport } from '#shared/messages/reports.ts'
import { limits } from '../limits.ts'

export type RaiseEvent = (event: {
  readonly severity: EventReport['severity']
  readonly code: string
  readonly message: string
  readonly vmId: VmId | null
  /** What tells it from other trouble with the same code; left out: nothing does. */
  readonly about?: string
}) => void

/** One function feeds log and event list; the same trouble of one VM becomes an event once in a while only. */
export function createEvents(options: {
  readonly outbox: ReportOutbox
  readonly clock: Clock
  readonly log: Logger
}): RaiseEvent {
  const { outbox, clock, log } = options
  const lastRaised = new Map<string, number>()
  return ({ severity, code, message, vmId, about = '' }) => {
    const key = `${vmId ?? ''}/${code}/${about}`
    const now = clock.monotonicMs()
    const last = lastRaised.get(key)
    if (last !== undefined && now - last < limits.eventRepeatMs) {
      log.debug('event repeated', { code, vmId, message })
      return
    }
    lastRaised.set(key, now)
    log[severity === 'info' ? 'info' : 'warn']('event', { code, vmId, message, severity })
    outbox.event({ eventId: randomUUID(), atMs: clock.now(), severity, code, message, vmId })
  }
}
