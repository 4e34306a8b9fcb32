import type { Sqlite } from '../sqlite.ts'

/** Part of the migrations of every daemon that receives commands. */
export const commandResultSchema = `
  CREATE TABLE command_results (
    command_id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    ok INTEGER NOT NULL,
    json BLOB NOT NULL
  ) STRICT;
`

/** More than a coordinator ever has outstanding for one agent, at a few hundred bytes each. */
export const COMMAND_RESULTS_KEPT = 10_000

export interface RememberedResult {
  readonly ok: boolean
  readonly json: Buffer
}

/** Results by command id, so that a repeated command is answered and not run again (I4). Oldest ones go first. */
export interface CommandResultStore {
  get(commandId: string): RememberedResult | undefined
  put(commandId: string, result: RememberedResult): void
}

export function openCommandResultStore(db: Sqlite, kept = COMMAND_RESULTS_KEPT): CommandResultStore {
  const select = db.prepare<[string], { ok: number; json: Buffer }>(
    'SELECT ok, json FROM command_results WHERE command_id = ?',
  )
  const insert = db.prepare<[string, number, Buffer]>(
    'INSERT OR REPLACE INTO command_results (command_id, number, ok, json) ' +
      'VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM command_results), ?, ?)',
  )
  const trim = db.prepare<[number]>(
    'DELETE FROM command_results WHERE number <= (SELECT max(number) FROM command_results) - ?',
  )
  const put = db.transaction((commandId: string, result: RememberedResult) => {
    insert.run(commandId, result.ok ? 1 : 0, result.json)
    trim.run(kept)
  })
  return {
    get(commandId) {
      const row = select.get(commandId)
      return row ? { ok: row.ok === 1, json: row.json } : undefined
    },
    put: (commandId, result) => put.immediate(commandId, result),
  }
}
