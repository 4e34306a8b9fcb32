/** What a hostile or broken source can make a target do: nothing. */
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { HELD_BYTES } from '#shared/blocks/stored-block.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { BLOCKS, disk, refusal, type TargetKit, type TestSource, targetKit } from './testing/target-kit.ts'

let kit: TargetKit
beforeAll(() => {
  kit = targetKit()
})
afterAll(() => kit[Symbol.asyncDispose]())

describe('hostile input is refused with a code, the channel stays, and no point comes of it', () => {
  const full = Buffer.alloc(BLOCK_BYTES, 1)
  const cases: [string, (it: TestSource) => void, string][] = [
    ['a block beyond the disk', (it) => it.blocks({ blockIndexes: [BLOCKS] }), 'stream-malformed'],
    ['a disk that is not part of it', (it) => it.blocks({ diskId: 'd9' }), 'stream-malformed'],
    ['a disk name with a path', (it) => it.blocks({ diskId: '../../etc' }), 'stream-malformed'],
    ['fewer bytes than announced', (it) => it.blocks({}, full.subarray(1)), 'stream-malformed'],
    ['more bytes than announced', (it) => it.blocks({ storedBytes: [100] }), 'stream-malformed'],
    [
      'a block larger than a block',
      (it) => it.blocks({ storedBytes: [BLOCK_BYTES + 1] }, Buffer.alloc(BLOCK_BYTES + 1)),
      'stream-malformed',
    ],
    [
      'the same block twice',
      (it) => it.blocks({ blockIndexes: [4, 4], storedBytes: [0, 0] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    [
      'blocks that go back',
      (it) => it.blocks({ blockIndexes: [4, 3], storedBytes: [0, 0] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    [
      'no block',
      (it) => it.blocks({ blockIndexes: [], storedBytes: [] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    [
      'a bomb: 256 MiB in 10 KiB of zstd',
      (it) => {
        const bomb = zstdCompressSync(Buffer.alloc(1 << 28))
        it.blocks({ storedBytes: [bomb.length] }, bomb)
      },
      'block-malformed',
    ],
    ['a batch that skips one', (it) => it.blocks({ batch: 1 }), 'stream-out-of-order'],
    ['blocks of another delta', (it) => it.blocks({ seq: 7 }), 'stream-out-of-order'],
    [
      'an end before all batches',
      (it) => it.end({ batches: [{ diskId: disk, nextBatch: 9 }] }),
      'stream-out-of-order',
    ],
    ['an end with a manifest of another key', (it) => it.end({ keys: generateKeys() }), 'manifest-invalid'],
    [
      'an end with a manifest that is none',
      (it) => it.end({ manifest: Buffer.from('x') }),
      'manifest-invalid',
    ],
    [
      'tree nodes beyond the disk',
      (it) =>
        it.say('treeQuery', {
          vmId: it.id,
          epoch: 1,
          seq: 1,
          diskId: disk,
          level: 0,
          first: 299,
          count: 2,
          requestId: 1,
        }),
      'stream-malformed',
    ],
    [
      'all tree nodes there are',
      (it) =>
        it.say('treeQuery', {
          vmId: it.id,
          epoch: 1,
          seq: 1,
          diskId: disk,
          level: 1,
          first: 0,
          count: 2 ** 40,
          requestId: 1,
        }),
      'stream-malformed',
    ],
    [
      'a disk of 2^53 bytes',
      (it) => it.begin({ disks: [{ diskId: disk, sizeBytes: Number.MAX_SAFE_INTEGER }] }),
      'stream-malformed',
    ],
    ['a delta without disks', (it) => it.begin({ disks: [] }), 'stream-malformed'],
    ['a delta on a point that is not here', (it) => it.begin({ seq: 9, baseSeq: 8 }), 'base-unknown'],
    [
      'a block that only a backfill may leave out',
      (it) => it.blocks({ storedBytes: [HELD_BYTES] }, Buffer.alloc(0)),
      'stream-malformed',
    ],
    ['a union that stands on no point', (it) => it.begin({ kind: 'union' }), 'stream-malformed'],
    ['an older point nobody expects', (it) => it.begin({ kind: 'backfill' }), 'backfill-unknown'],
    [
      'the end of backfills of another epoch',
      (it) => it.say('backfills', { vmId: it.id, epoch: 9, owedTops: [] }),
      'stream-malformed',
    ],
    [
      'more points to hold than a source can owe',
      (it) =>
        it.say('backfills', { vmId: it.id, epoch: 1, owedTops: Array.from({ length: 65 }, (_, i) => i + 1) }),
      'stream-malformed',
    ],
    ['a delta of a later epoch', (it) => it.begin({ epoch: 2 }), 'stream-out-of-order'],
  ]
  test.each(cases)('%s', async (_case, attack, code) => {
    await using it = await kit.source()
    it.open()
    it.begin()
    await it.hears('deltaAccepted')
    attack(it)
    expect(await refusal(it)).toBe(code)
    it.open()
    await it.hears('replicaOpened')
    expect(await kit.store.points(it.id)).toEqual([])
  })

  test('a root that is not that of the bytes: refused as diverged, nothing of it stays', async () => {
    await using it = await kit.source()
    it.open()
    it.begin()
    it.blocks({}, Buffer.alloc(BLOCK_BYTES, 2))
    it.end()
    const { body } = await it.hears('replicaRefusal')
    expect(body).toMatchObject({ code: 'delta-diverged', seq: 1, diskIds: [disk] })
    it.open()
    it.begin()
    expect((await it.hears('deltaAccepted')).body.resume).toEqual([{ diskId: disk, nextBatch: 0 }])
  })

  test('below a union: a block it does not have, other disks and other roots are refused, the point stays', async () => {
    await using it = await kit.source()
    const point = async (changes: Parameters<typeof it.begin>[0], end: Parameters<typeof it.end>[0]) => {
      it.begin(changes)
      if ((await it.hears('deltaAccepted')).body.resume[0]?.nextBatch === 0)
        it.blocks({ seq: changes?.seq ?? 1 })
      it.end(end)
      await it.hears('pointAck')
    }
    it.open()
    await point({}, {})
    await point({ seq: 4, baseSeq: 1, kind: 'union' }, { seq: 4 })
    const older = { seq: 2, baseSeq: 1, kind: 'backfill' as const }
    const attacks: [() => void, string][] = [
      [
        () => it.blocks({ seq: 2, blockIndexes: [7], storedBytes: [HELD_BYTES] }, Buffer.alloc(0)),
        'layer-damaged',
      ],
      [() => it.blocks({ seq: 2 }, Buffer.alloc(BLOCK_BYTES, 9)), 'delta-diverged'],
    ]
    for (const [attack, code] of attacks) {
      it.open({}, 1, [4])
      it.begin(older)
      await it.hears('deltaAccepted')
      attack()
      it.end({ seq: 2 })
      expect(await refusal(it)).toBe(code)
    }
    it.open({}, 1, [4])
    it.begin({ ...older, disks: [{ diskId: disk, sizeBytes: BLOCK_BYTES }] })
    expect(await refusal(it)).toBe('backfill-unknown')
    expect((await kit.store.points(it.id)).map(({ seq }) => seq)).toEqual([1, 4])
    it.open({}, 1, [4])
    it.begin(older)
    it.blocks({ seq: 2, storedBytes: [HELD_BYTES] }, Buffer.alloc(0))
    it.end({ seq: 2 })
    expect(await refusal(it)).toBe('acknowledged')
    // A source that owes nothing, as an older version, which does not know the field.
    it.open({}, 1, [])
    it.begin({ ...older, seq: 3, baseSeq: 2 })
    expect(await refusal(it)).toBe('backfill-unknown')
  })

  test('any messages in any order: the server answers or ignores, and an honest source still gets its point', async () => {
    const text = fc.constantFrom('d0', 'd1', '', '../x')
    const small = fc.constantFrom(0, 1, 2, 300, 65_536, Number.MAX_SAFE_INTEGER)
    const attack = fc.oneof(
      fc.record({
        kind: fc.constant('blocks' as const),
        diskId: text,
        batch: small,
        index: small,
        bytes: small,
      }),
      fc.record({ kind: fc.constant('deltaBegin' as const), seq: small, baseSeq: small, sizeBytes: small }),
      fc.record({
        kind: fc.constant('treeQuery' as const),
        diskId: text,
        level: small,
        first: small,
        count: small,
      }),
      fc.record({ kind: fc.constant('deltaEnd' as const), manifest: fc.uint8Array({ maxLength: 40 }) }),
      fc.record({ kind: fc.constant('pointAck' as const) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(attack, { maxLength: 12 }), async (attacks) => {
        await using it = await kit.source()
        const at = { vmId: it.id, epoch: 1, seq: 1 }
        it.open()
        it.begin()
        for (const one of attacks) {
          if (one.kind === 'blocks')
            it.blocks({
              diskId: one.diskId,
              batch: one.batch,
              blockIndexes: [one.index],
              storedBytes: [one.bytes],
            })
          else if (one.kind === 'deltaBegin')
            it.begin({
              seq: one.seq,
              baseSeq: one.baseSeq,
              disks: [{ diskId: disk, sizeBytes: one.sizeBytes }],
            })
          else if (one.kind === 'treeQuery') it.say('treeQuery', { ...at, requestId: 1, ...one })
          else if (one.kind === 'deltaEnd') it.end({ manifest: one.manifest })
          else it.say('pointAck', { ...at, slowMs: 0 })
        }
        await using honest = await kit.source({ id: it.id })
        honest.open()
        await honest.hears('replicaOpened')
        await kit.store.discardPartial(it.id)
        honest.begin()
        await honest.hears('deltaAccepted')
        honest.blocks()
        honest.end()
        expect(await refusal(honest)).toBe('acknowledged')
      }),
      { numRuns: 12 },
    )
  })
})
