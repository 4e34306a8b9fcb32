import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { serverId, vmId } from '#shared/ids.ts'
import { damageOnce } from '../testing/damage-rows.ts'
import { type AgentState, openAgentState } from './agent-state.ts'
import { registerRowChecksum } from './table-checksums.ts'

let dir = ''
const good = () => join(dir, 'state.db')
const bad = () => join(dir, 'bad.db')
const vms = [1, 2, 3].map((n) => vmId.parse(`vm-${n}`))

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-state-'))
  const state = openAgentState(good())
  vms.forEach((vm, i) => {
    state.fence(vm, i + 1)
  })
  state.fence(vmId.parse('vm-1'), 5)
  state.saveRevokedServers(['server-1', 'server-2'].map((id) => serverId.parse(id)))
  state.saveRevokedServers(['server-2', 'server-3'].map((id) => serverId.parse(id)))
  state.db.close()
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

function contentOf(state: AgentState) {
  const fences = vms.map((vm) => state.fencedBelow(vm))
  return { fences, revoked: state.revokedServers(), sources: state.sources() }
}

const expected = { fences: [5, 2, 3], revoked: ['server-2', 'server-3'], sources: [] }

/** Right, or an error that says so: answers which. */
function isRefused(what: string): boolean {
  let state: AgentState
  try {
    state = openAgentState(bad())
  } catch (error) {
    expect(error, what).toMatchObject({
      name: 'HotsiteError',
      code: expect.stringMatching(/^(state-damaged|data-version-unknown)$/),
    })
    return true
  }
  expect(contentOf(state), what).toEqual(expected)
  state.db.close()
  return false
}

function fresh(): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(bad() + suffix, { force: true })
  copyFileSync(good(), bad())
}

it('knows after a restart what it knew before', () => {
  fresh()
  expect(isRefused('sound')).toBe(false)
})

it('a row that changed, went or changed places with another is never taken for the state', () => {
  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.nat(), (kind, table, row) => {
      fresh()
      const db = new Database(bad())
      registerRowChecksum(db)
      const triggers = db
        .prepare<[], { name: string; sql: string }>(
          "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'",
        )
        .all()
      for (const { name } of triggers) db.exec(`DROP TRIGGER ${name}`)
      const what = damageOnce(db, ['fences', 'revoked_servers', 'table_checksums'], [kind, table, row])
      for (const { sql } of triggers) db.exec(sql)
      db.close()
      // Two rows that were swapped back into what they were are no damage; everything else is refused.
      isRefused(what)
    }),
    { numRuns: 150 },
  )
})

it('a bit that flipped anywhere in the file is refused, or makes no difference', () => {
  let refused = 0
  fc.assert(
    fc.property(fc.nat(), (at) => {
      fresh()
      const fd = openSync(bad(), 'r+')
      const offset = at % statSync(bad()).size
      const byte = Buffer.alloc(1)
      readSync(fd, byte, 0, 1, offset)
      byte[0] = (byte[0] ?? 0) ^ (1 << (at % 8))
      writeSync(fd, byte, 0, 1, offset)
      closeSync(fd)
      if (isRefused(`offset ${offset}`)) refused++
    }),
    { numRuns: 300 },
  )
  expect(refused).toBeGreaterThan(0)
})

it.each([0, 100, 5000])('cut off after %d bytes it is refused', (bytes) => {
  fresh()
  truncateSync(bad(), bytes)
  expect(isRefused('cut off')).toBe(true)
})
