import type { Bodies } from '../channel/message.ts'
import { isNoRoom } from '../errors/no-room.ts'
import type { EventReport, ReportKind, ReportOf } from '../messages/reports.ts'
import type { Sqlite } from '../sqlite.ts'
import { Wakeup } from '../wakeup.ts'

/** Part of the migrations of every daemon that reports. */
export const reportOutboxSchema = `
  CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    json TEXT NOT NULL
  ) STRICT;
  CREATE TABLE agent_starts (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL) STRICT;
`

/** Events kept while the coordinator is away: months of ordinary life, about 5 MB. */
export const EVENTS_KEPT = 10_000
/** Events kept in memory while the disk of the database is full; then the oldest of them go. */
export const EVENTS_WITHOUT_ROOM_MAX = 1_000
/** Reports sent and not yet acknowledged: enough to fill a slow link, few enough that newer states replace waiting ones. */
export const REPORTS_IN_FLIGHT_MAX = 32
/** Report numbers of one life of the daemon: 2^32, above all those of earlier lives. */
const NUMBERS_PER_START = 2 ** 32

export type StateReportKind = Exclude<ReportKind, 'event'>

export interface ReportOutbox {
  /** The whole state of one thing; replaces an earlier one of the same kind and key that was not sent yet. */
  set<Kind extends StateReportKind>(kind: Kind, key: string, report: ReportOf<Kind>): void
  /** The thing is gone: stop reporting it. */
  remove(kind: StateReportKind, key: string): void
  /** Kept in the database until the coordinator acknowledged it; in memory while there is no room for it there. */
  event(event: EventReport): void
  /** A new connection: everything is due once more. */
  restart(): void
  /** The next report to send, or undefined when none is due or too many are unacknowledged. */
  take(): Bodies['report'] | undefined
  acknowledge(reportSeq: number): void
  /** Resolves when `take` may have something. */
  changed(signal: AbortSignal): Promise<void>
}

interface StateEntry {
  readonly kind: StateReportKind
  json: string
  sentSeq: number | null
  due: boolean
}

interface UnstoredEvent {
  readonly eventId: string
  readonly json: string
  sent: boolean
}

type InFlight = { readonly state: string } | { readonly event: number } | { readonly unstored: string }

export function openReportOutbox(db: Sqlite, eventsKept = EVENTS_KEPT): ReportOutbox {
  return new SqliteReportOutbox(db, eventsKept)
}

class SqliteReportOutbox implements ReportOutbox {
  readonly #states = new Map<string, StateEntry>()
  /** What each unacknowledged number stands for. */
  readonly #inFlight = new Map<number, InFlight>()
  readonly #changed = new Wakeup()
  readonly #db: Sqlite
  readonly #eventsKept: number
  #nextSeq: number
  /** Events the database had no room for, oldest first. They are sent from here, and stored once there is room. */
  #unstored: UnstoredEvent[] = []
  /** Numbers of events that were acknowledged while nothing could be written. */
  readonly #acknowledged: number[] = []
  /** Events up to this number were sent on this connection. */
  #eventsSentTo = 0

  constructor(db: Sqlite, eventsKept: number) {
    this.#db = db
    this.#eventsKept = eventsKept
    const start = db
      .prepare<[], { count: number }>(
        'INSERT INTO agent_starts (id, count) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = count + 1 RETURNING count',
      )
      .get()
    this.#nextSeq = (start?.count ?? 1) * NUMBERS_PER_START
  }

  set<Kind extends StateReportKind>(kind: Kind, key: string, report: ReportOf<Kind>): void {
    const name = `${kind}/${key}`
    const json = JSON.stringify(report)
    const entry = this.#states.get(name)
    if (entry?.json === json) return
    if (entry) {
      entry.json = json
      entry.due = true
    } else this.#states.set(name, { kind, json, sentSeq: null, due: true })
    this.#changed.notify()
  }

  remove(kind: StateReportKind, key: string): void {
    this.#states.delete(`${kind}/${key}`)
  }

  event(event: EventReport): void {
    this.#unstored.push({ eventId: event.eventId, json: JSON.stringify(event), sent: false })
    this.#storeWhatWaits()
    this.#unstored = this.#unstored.slice(-EVENTS_WITHOUT_ROOM_MAX)
    this.#changed.notify()
  }

  /** A full disk is what events tell of: it must not keep them from being told. */
  #storeWhatWaits(): void {
    try {
      for (let first = this.#unstored[0]; first; first = this.#unstored[0]) {
        this.#store(first)
        this.#unstored.shift()
      }
      for (let first = this.#acknowledged[0]; first !== undefined; first = this.#acknowledged[0]) {
        this.#db.prepare('DELETE FROM events WHERE number = ?').run(first)
        this.#acknowledged.shift()
      }
    } catch (error) {
      if (!isNoRoom(error)) throw error
    }
  }

  #store({ eventId, json }: UnstoredEvent): void {
    this.#db.prepare('INSERT OR IGNORE INTO events (event_id, json) VALUES (?, ?)').run(eventId, json)
    // The newest are worth more than the oldest to whoever reads them after a long absence.
    this.#db
      .prepare('DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?')
      .run(this.#eventsKept)
  }

  restart(): void {
    this.#inFlight.clear()
    this.#eventsSentTo = 0
    for (const event of this.#unstored) event.sent = false
    for (const entry of this.#states.values()) {
      entry.sentSeq = null
      entry.due = true
    }
    this.#changed.notify()
  }

  take(): Bodies['report'] | undefined {
    if (this.#inFlight.size >= REPORTS_IN_FLIGHT_MAX) return undefined
    this.#storeWhatWaits()
    const event = this.#db
      .prepare<[number], { number: number; json: string }>(
        'SELECT number, json FROM events WHERE number > ? ORDER BY number LIMIT 1',
      )
      .get(this.#eventsSentTo)
    if (event) {
      this.#eventsSentTo = event.number
      return this.#number('event', event.json, { event: event.number })
    }
    const unstored = this.#unstored.find(({ sent }) => !sent)
    if (unstored) {
      unstored.sent = true
      return this.#number('event', unstored.json, { unstored: unstored.eventId })
    }
    for (const [name, entry] of this.#states) {
      // One number of a state at a time: while it is on its way, newer states replace each other here.
      if (!entry.due || entry.sentSeq !== null) continue
      const report = this.#number(entry.kind, entry.json, { state: name })
      entry.sentSeq = report.reportSeq
      entry.due = false
      return report
    }
    return undefined
  }

  acknowledge(reportSeq: number): void {
    const sent = this.#inFlight.get(reportSeq)
    if (!sent) return
    this.#inFlight.delete(reportSeq)
    if ('event' in sent) {
      this.#acknowledged.push(sent.event)
      this.#storeWhatWaits()
    } else if ('unstored' in sent)
      this.#unstored = this.#unstored.filter(({ eventId }) => eventId !== sent.unstored)
    else {
      const entry = this.#states.get(sent.state)
      if (entry?.sentSeq === reportSeq) entry.sentSeq = null
    }
    this.#changed.notify()
  }

  changed(signal: AbortSignal): Promise<void> {
    return this.#changed.next(signal)
  }

  #number(kind: ReportKind, json: string, what: InFlight) {
    const reportSeq = this.#nextSeq++
    this.#inFlight.set(reportSeq, what)
    return { reportSeq, kind, json: Buffer.from(json) }
  }
}
