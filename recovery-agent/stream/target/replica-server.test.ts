/** What an honest source and the commands of the coordinator may expect of a target. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { serverId, vmId } from '#shared/ids.ts'
import { disk, refusal, type TargetKit, targetKit } from './testing/target-kit.ts'

let kit: TargetKit
beforeAll(() => {
  kit = targetKit()
})
afterAll(() => kit[Symbol.asyncDispose]())

test('a point is acknowledged only when sealed, and a delta that is here already at once (I3, I4)', async () => {
  await using it = await kit.source()
  it.open()
  expect((await it.hears('replicaOpened')).body).toMatchObject({ newestSeq: 0, epoch: 1 })
  it.begin()
  expect((await it.hears('deltaAccepted')).body.resume).toEqual([{ diskId: disk, nextBatch: 0 }])
  it.blocks()
  const { body } = await it.hears('blocksDurable')
  expect(body).toMatchObject({ creditBytes: BLOCK_BYTES, disks: [{ diskId: disk, nextBatch: 1 }] })
  it.end()
  expect((await it.hears('pointAck')).body.seq).toBe(1)
  expect((await kit.store.points(it.id)).map(({ seq }) => seq)).toEqual([1])
  expect(kit.sealed).toContain(it.id)
  it.begin()
  expect((await it.hears('pointAck', 'deltaAccepted')).kind).toBe('pointAck')
})

test('a break in the middle: the next connection resumes at the batch that is durable, repeats are harmless', async () => {
  const first = await kit.source()
  first.open()
  first.begin()
  first.blocks()
  await first.hears('blocksDurable')
  await first[Symbol.asyncDispose]()
  await using second = await kit.source({ id: first.id })
  second.open()
  second.begin()
  expect((await second.hears('deltaAccepted')).body.resume).toEqual([{ diskId: disk, nextBatch: 1 }])
  second.blocks()
  second.end()
  expect((await second.hears('pointAck', 'replicaRefusal')).kind).toBe('pointAck')
})

test('an older connection of the same VM cannot write any more once a newer one opened it', async () => {
  await using older = await kit.source()
  older.open()
  older.begin()
  await older.hears('deltaAccepted')
  await using newer = await kit.source({ id: older.id })
  newer.open()
  newer.begin()
  await newer.hears('deltaAccepted')
  older.blocks()
  older.end()
  newer.blocks()
  newer.end()
  expect((await newer.hears('pointAck', 'replicaRefusal')).kind).toBe('pointAck')
  // The late messages of the older one were dropped: the next thing it hears is the answer to a new attempt.
  older.open()
  expect((await older.hears('replicaOpened', 'replicaRefusal', 'pointAck')).kind).toBe('replicaOpened')
})

describe('who may open a replica', () => {
  test.each([
    ['a ticket for another VM', { vmId: vmId.parse('other') }, 'ticket-invalid'],
    ['a ticket for another source', { sourceServerId: serverId.parse('other') }, 'ticket-invalid'],
    ['a ticket for another target', { targetServerId: serverId.parse('other') }, 'ticket-invalid'],
    ['a ticket for a later epoch', { epoch: 3 }, 'ticket-invalid'],
    ['an expired ticket', { expiresAtMs: 5 }, 'ticket-expired'],
  ])('%s is refused', async (_case, changes, code) => {
    await using it = await kit.source()
    it.open(changes)
    expect(await refusal(it)).toBe(code)
    it.open()
    await it.hears('replicaOpened')
  })

  test('no ticket at all, an epoch that is over, one that is not prepared, a VM that is not here', async () => {
    await using it = await kit.source({ epoch: 2 })
    it.say('openReplica', { vmId: it.id, epoch: 2, ticket: Buffer.from('none'), disks: [], owedTops: [] })
    expect(await refusal(it)).toBe('signature-invalid')
    it.open({}, 1)
    const { body } = await it.hears('replicaRefusal')
    expect(body).toMatchObject({ code: 'epoch-stale', epoch: 2 })
    it.open({}, 3)
    expect(await refusal(it)).toBe('replica-not-prepared')
    await using stranger = await kit.source({ id: vmId.parse('nobody') })
    stranger.open()
    expect(await refusal(stranger)).toBe('replica-unknown')
  })
})

test('after exclusively() interrupted it, a transfer writes nothing, whatever was on its way (I5)', async () => {
  await using it = await kit.source()
  it.open()
  it.begin()
  await it.hears('deltaAccepted')
  for (let batch = 0; batch < 20; batch++) it.blocks({ batch, blockIndexes: [batch] })
  await kit.server.exclusively(it.id, async (interrupt) => {
    await kit.store.raiseEpoch(it.id, 2)
    await interrupt(new HotsiteError('epoch-stale', 'epoch 2', { details: { epoch: 2 } }))
  })
  const { diskBytes } = await kit.store.usage(it.id)
  it.blocks({ batch: 20 })
  it.end()
  expect((await it.hears('replicaRefusal')).body).toMatchObject({ code: 'epoch-stale', epoch: 2 })
  it.open({}, 1)
  expect(await refusal(it)).toBe('epoch-stale')
  expect((await kit.store.usage(it.id)).diskBytes).toBeLessThanOrEqual(diskBytes)
  expect(await kit.store.points(it.id)).toEqual([])
})
