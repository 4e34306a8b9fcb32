import fc from 'fast-check'
import { expect, test } from 'vitest'
import { resyncCause } from '../messages/commands.ts'
import type { ReplicationPolicy } from '../messages/policy.ts'
import { decideResync } from './resync-gate.ts'

const utc = () => 0
const at = (iso: string) => Date.parse(iso)
const noon = at('2026-03-02T12:00:00Z')
const evening = at('2026-03-02T18:00:00Z')
const policy = (resync: ReplicationPolicy['resync']) => ({ resync, resyncWindow: null })
const fresh = { cleared: false, notBeforeMs: null }
const open = { kind: 'open' }
const saturday = { days: ['sat' as const], from: '10:00', to: '12:00' }

test.each([
  ['now', { ...fresh, cause: 'diverged' as const, policy: policy('now') }, open],
  [
    'the window, which is 18:00 to 06:00 when none is given',
    { ...fresh, cause: 'diverged' as const, policy: policy('window') },
    { kind: 'waits', waitsFor: 'window', startsAtMs: evening },
  ],
  [
    'a window of its own',
    {
      ...fresh,
      cause: 'buffer-lost' as const,
      policy: { resync: 'window' as const, resyncWindow: saturday },
    },
    { kind: 'waits', waitsFor: 'window', startsAtMs: at('2026-03-07T10:00:00Z') },
  ],
  [
    'a person',
    { ...fresh, cause: 'buffer-damaged' as const, policy: policy('ask') },
    { kind: 'waits', waitsFor: 'approval', startsAtMs: null },
  ],
  [
    'a person who spoke',
    { cause: 'diverged' as const, cleared: true, notBeforeMs: null, policy: policy('ask') },
    open,
  ],
  ['what was ordered asks nobody', { ...fresh, cause: 'requested' as const, policy: policy('ask') }, open],
  [
    'the time of the order',
    { ...fresh, cause: 'initial' as const, notBeforeMs: evening, policy: policy('now') },
    { kind: 'waits', waitsFor: 'start-time', startsAtMs: evening },
  ],
  [
    'the time of the order, whatever became of the buffer meanwhile',
    { ...fresh, cause: 'buffer-lost' as const, notBeforeMs: evening, policy: policy('now') },
    { kind: 'waits', waitsFor: 'start-time', startsAtMs: evening },
  ],
  [
    'a time that is over',
    { ...fresh, cause: 'initial' as const, notBeforeMs: noon, policy: policy('ask') },
    open,
  ],
])('at noon it waits for: %s', (_case, request, expected) => {
  expect(decideResync(request, noon, utc)).toEqual(expected)
})

test('the window opens at the time that was announced', () => {
  const request = { ...fresh, cause: 'diverged' as const, policy: policy('window') }
  expect(decideResync(request, evening, utc)).toEqual(open)
})

test('what waits for a time begins at that time, unless something else holds it then', () => {
  const requests = fc.record({
    cause: fc.constantFrom(...resyncCause.options),
    cleared: fc.boolean(),
    notBeforeMs: fc.option(fc.integer({ min: noon, max: noon + 1e9 })),
    policy: fc.record({
      resync: fc.constantFrom('now' as const, 'window' as const, 'ask' as const),
      resyncWindow: fc.constantFrom(null, saturday),
    }),
  })
  fc.assert(
    fc.property(requests, fc.integer({ min: noon - 1e9, max: noon + 1e9 }), (request, now) => {
      const gate = decideResync(request, now, utc)
      if (gate.kind === 'open' || gate.startsAtMs === null) return
      expect(gate.startsAtMs).toBeGreaterThan(now)
      const then = decideResync(request, gate.startsAtMs, utc)
      if (then.kind === 'waits') expect([gate.waitsFor, then.waitsFor]).toContain('start-time')
      if (then.kind === 'waits') expect(then.waitsFor).not.toBe('start-time')
    }),
  )
})
