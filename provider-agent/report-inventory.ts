import { randomUUID } from 'node:crypto'
import type { ReportOutbox } from '#shared/agent-link/report-outbox.ts'
import type { Clock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { programVersion } from '#shared/version.ts'
import type { Fabric } from './fabric/port.ts'
import { REFRESH_MS, REFRESH_PER_VM_MS } from './limits.ts'

export interface ReportInventoryOptions {
  readonly fabric: Fabric
  readonly reports: ReportOutbox
  readonly clock: Clock
  readonly log: Logger
  readonly signal: AbortSignal
}

/**
 * Reports the inventory now, after each change, and now and then so that observations stay fresh. Until the signal.
 * A fabric that cannot be read is an event, once per message; the last inventory stands until it can be read again.
 */
export async function reportInventory(options: ReportInventoryOptions): Promise<void> {
  const { fabric, reports, clock, log, signal } = options
  let problem = ''
  let pauseMs = REFRESH_MS
  while (!signal.aborted) {
    try {
      const inventory = await fabric.inventory()
      reports.set('inventory', 'fabric', { ...inventory, version: programVersion, nowMs: clock.now() })
      pauseMs = REFRESH_MS + REFRESH_PER_VM_MS * inventory.vms.length
      if (problem) log.info('the fabric can be read again')
      problem = ''
    } catch (error) {
      const { code, message } = errorDocument(error)
      if (message !== problem) {
        problem = message
        log.error('the fabric cannot be read', { error })
        const event = { eventId: randomUUID(), atMs: clock.now(), code, message, vmId: null }
        reports.event({ ...event, severity: 'warning' })
      }
    }
    await changeOrPause(options, pauseMs)
  }
}

async function changeOrPause({ fabric, clock, signal }: ReportInventoryOptions, ms: number): Promise<void> {
  const over = new AbortController()
  const either = AbortSignal.any([signal, over.signal])
  const pause = clock.sleep(ms, either)
  // A fabric that cannot tell of changes is looked at again after the pause, not in a tight loop.
  const change = fabric.changed(either).catch(() => pause)
  try {
    await Promise.race([change, pause])
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    over.abort(new Error('the other one was first'))
    await Promise.allSettled([change, pause])
  }
}
