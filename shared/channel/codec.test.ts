import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { decodeDocument, decodeMessage, encodeDocument, encodeMessage, uint32Fields } from './codec.ts'
import type { Message } from './message.ts'

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof HotsiteError) return error.code
    throw error
  }
  return 'accepted'
}

const safe = fc.maxSafeNat()
const uint32 = fc.nat(2 ** 32 - 1)
const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array))
const text = fc.string({ unit: 'grapheme', maxLength: 20 })

const anyMessage: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ commandId: text, kind: text, json: bytes }).map((body): Message => ({ kind: 'command', body })),
  fc
    .record({ commandId: text, ok: fc.boolean(), json: bytes })
    .map((body): Message => ({ kind: 'commandResult', body })),
  fc.record({ reportSeq: safe }).map((body): Message => ({ kind: 'reportAck', body })),
  fc
    .record({
      vmId: text,
      epoch: safe,
      seq: safe,
      diskId: text,
      batch: safe,
      blockIndexes: fc.array(uint32),
      storedBytes: fc.array(uint32),
    })
    .map((body): Message => ({ kind: 'blocks', body })),
  fc
    .record({
      vmId: text,
      seq: safe,
      resume: fc.array(fc.record({ diskId: text, nextBatch: safe })),
    })
    .map((body): Message => ({ kind: 'deltaAccepted', body })),
  fc
    .record({ vmId: text, code: text, message: text, epoch: safe, seq: safe, diskIds: fc.array(text) })
    .map((body): Message => ({ kind: 'replicaRefusal', body })),
)

test('what is encoded comes back the same, zeros and empty fields included', () => {
  fc.assert(
    fc.property(anyMessage, (message) => {
      expect(decodeMessage(encodeMessage(message), undefined)).toEqual(message)
    }),
  )
})

test('random bytes are a message or a coded error, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (random) => {
      expect(codeOf(() => decodeMessage(random, undefined))).toMatch(
        /^(accepted|channel-malformed|channel-unsafe-number)$/,
      )
    }),
    { numRuns: 1000 },
  )
})

describe('numbers', () => {
  const ack = (reportSeq: unknown) => ({ kind: 'reportAck', body: { reportSeq } }) as Message
  test.each([2 ** 53, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 5n, '7'])('%s is not sent', (value) => {
    expect(codeOf(() => encodeMessage(ack(value)))).toMatch(/^channel-(unsafe-number|malformed)$/)
  })

  test('a uint64 beyond 2^53 on the wire is refused', () => {
    // reportAck (field 13) with reportSeq = 2^63.
    const beyond = Buffer.from('6a0b0880808080808080808001', 'hex')
    expect(codeOf(() => decodeMessage(beyond, undefined))).toBe('channel-unsafe-number')
  })

  test('a uint32 beyond 2^32 is not sent modulo 2^32', () => {
    const message: Message = {
      kind: 'blocks',
      body: { vmId: '', epoch: 0, seq: 0, diskId: '', batch: 0, blockIndexes: [2 ** 32], storedBytes: [] },
    }
    expect(codeOf(() => encodeMessage(message))).toBe('channel-unsafe-number')
  })

  test('the codec knows every uint32 field of the wire', () => {
    const proto = readFileSync(new URL('../../proto/hotsite.proto', import.meta.url), 'utf8')
    const fields = [...proto.matchAll(/\buint32 (\w+) =/g)].map((match) => match[1])
    expect(new Set(fields)).toEqual(uint32Fields)
  })
})

test('an empty frame and a body of a later version are malformed', () => {
  expect(codeOf(() => decodeMessage(Buffer.alloc(0), undefined))).toBe('channel-malformed')
  expect(codeOf(() => decodeMessage(Buffer.from('a20600', 'hex'), undefined))).toBe('channel-malformed')
})

test('a document does not keep the buffer alive that it came in', () => {
  const frame = Buffer.from(
    encodeDocument('signed', { document: Buffer.from('abc'), signature: Buffer.from('s') }),
  )
  const { document } = decodeDocument('signed', frame)
  frame.fill(0)
  expect(Buffer.from(document).toString()).toBe('abc')
})
