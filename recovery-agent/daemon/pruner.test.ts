import { expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import type { VmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { targetKit } from '../stream/target/testing/target-kit.ts'
import { createPruner } from './pruner.ts'

it('merges what retention gives up while another VM is in the middle of a delta, and says when it is done', async () => {
  await using kit = targetKit()
  await using merged = await kit.source()
  for (let seq = 1; seq <= 3; seq++) {
    merged.open()
    await merged.hears('replicaOpened')
    merged.begin({ seq, baseSeq: seq - 1 })
    await merged.hears('deltaAccepted')
    merged.blocks({ seq })
    merged.end({ seq })
    await merged.hears('pointAck')
  }
  await using other = await kit.source()
  other.open()
  await other.hears('replicaOpened')
  other.begin()
  await other.hears('deltaAccepted')
  expect(kit.server.isReceiving()).toBe(true)

  const ended = Promise.withResolvers<VmId>()
  const pruner = createPruner({
    store: kit.store,
    server: kit.server,
    reports: {
      publish: async () => {},
      failed: async (id, error) => (error ? ended.reject(error) : ended.resolve(id)),
    },
    anyVmNames: async () => false,
    clock: systemClock,
    log: silentLog,
  })
  const stop = new AbortController()
  const running = pruner.run(stop.signal)
  pruner.due(merged.id)
  expect(await ended.promise).toBe(merged.id)
  expect((await kit.store.points(merged.id)).map(({ seq }) => seq)).toEqual([3])
  expect((await kit.store.usage(merged.id)).mergeDebtBytes).toBe(0)

  other.blocks()
  other.end()
  expect((await other.hears('pointAck')).body).toMatchObject({ seq: 1, slowMs: 0 })
  stop.abort()
  await running
})
