import { pruneEvents } from '../../store/events.ts'
import { pruneJobs } from '../../store/jobs.ts'
import { pruneOutbox } from '../../store/outbox.ts'
import { pruneHistory } from '../../store/protected-vms.ts'
import { pruneReports } from '../../store/reports.ts'
import type { Engine } from '../engine.ts'

/** Bounds what grows for ever otherwise (I13). */
export async function tidyUp(engine: Engine): Promise<void> {
  await pruneEvents(engine.db, engine.limits.keepEvents)
  await pruneJobs(engine.db, engine.limits.keepJobs)
  await pruneHistory(engine.db, engine.limits.keepHistory)
  const beforeMs = engine.clock.now() - engine.limits.keepOutboxMs
  await pruneOutbox(engine.db, beforeMs)
  await pruneReports(engine.db, beforeMs)
}
