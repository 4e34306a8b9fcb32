import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FrameReader, frameHeader } from './frames.ts'

const maxMessageBytes = 300_000

function readAll(chunks: readonly Buffer[], masked: boolean) {
  const messages: { fragments: readonly Buffer[]; isBinary: boolean }[] = []
  const control: Buffer[] = []
  const reader = new FrameReader({
    masked,
    maxMessageBytes: () => maxMessageBytes,
    allocate: (sizeBytes) => Buffer.alloc(sizeBytes),
    onMessage: (fragments, isBinary) => messages.push({ fragments, isBinary }),
    onControl: (frame) => control.push(frame),
  })
  for (const chunk of chunks) reader.push(chunk)
  return { messages, control }
}

/** As a client that masks with `key` would send it. */
function frame(payload: Buffer, options: { first: boolean; last: boolean; key: number | null }): Buffer {
  const { first, last, key } = options
  const header = frameHeader({ first, last, masked: key !== null, payloadBytes: payload.length })
  if (key === null) return Buffer.concat([header, payload])
  header.writeUInt32BE(key, header.length - 4)
  const mask = header.subarray(-4)
  return Buffer.concat([header, payload.map((byte, i) => byte ^ (mask[i & 3] ?? 0))])
}

const sizes = fc.oneof(
  fc.nat({ max: 20 }),
  fc.constantFrom(125, 126, 127, 65_535, 65_536, 65_537),
  fc.nat({ max: 70_000 }),
)
const key = fc.option(fc.oneof(fc.constant(0), fc.nat({ max: 2 ** 31 })))

test('whatever the pieces, the messages are those that were sent, and control frames between fragments pass', () => {
  const property = fc.property(
    fc.array(fc.array(sizes, { minLength: 1, maxLength: 3 }), { maxLength: 4 }),
    key,
    fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1 }),
    (lengths, key, cuts) => {
      const sent = lengths.map((sizes) => sizes.map((size, i) => Buffer.alloc(size, size + i + 1)))
      const ping = Buffer.concat([
        Buffer.from(key === null ? [0x89, 2] : [0x89, 0x82, 0, 0, 0, 0]),
        Buffer.from('hi'),
      ])
      const stream = Buffer.concat(
        sent.flatMap((fragments) =>
          fragments.flatMap((fragment, i) => [
            ping,
            frame(fragment, { first: i === 0, last: i === fragments.length - 1, key }),
          ]),
        ),
      )
      const chunks: Buffer[] = []
      for (let at = 0, i = 0; at < stream.length; at += cuts[i++ % cuts.length] ?? 1)
        chunks.push(stream.subarray(at, at + (cuts[i % cuts.length] ?? 1)))
      const { messages, control } = readAll(chunks, key !== null)
      expect(messages.map(({ fragments }) => Buffer.concat(fragments).toString('base64'))).toEqual(
        sent.map((fragments) => Buffer.concat(fragments).toString('base64')),
      )
      expect(messages.every(({ isBinary }) => isBinary)).toBe(true)
      expect(control.every((one) => one.equals(ping))).toBe(true)
      expect(control).toHaveLength(sent.flat().length)
    },
  )
  fc.assert(property, { numRuns: 60 })
})

const malformed = /^channel-malformed$/
test.each([
  ['reserved bits', [Buffer.from([0xc2, 0])], malformed],
  ['a mask where none belongs', [Buffer.from([0x82, 0x80, 0, 0, 0, 0])], malformed],
  ['a continuation of nothing', [Buffer.from([0x80, 0])], malformed],
  ['a message inside another', [Buffer.from([0x02, 0, 0x82, 0])], malformed],
  ['a control frame in parts', [Buffer.from([0x09, 0])], malformed],
  ['a long control frame', [Buffer.from([0x89, 126, 0, 126])], malformed],
  ['an unknown kind', [Buffer.from([0x83, 0])], malformed],
  [
    'fragments without end',
    Array.from({ length: 9 }, (_, i) => Buffer.from([i === 0 ? 2 : 0, 0])),
    malformed,
  ],
  ['too long, seen at its header', [Buffer.from([0x82, 127, 0, 0, 0, 0, 0, 8, 0, 0])], /^channel-oversize$/],
  ['absurdly long', [Buffer.from([0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255])], /^channel-oversize$/],
])('refused: %s', (_what, chunks, code) => {
  expect(() => readAll(chunks, false)).toThrow(
    expect.objectContaining({ code: expect.stringMatching(code) }) as Error,
  )
})

test('fragments together are no longer than one message may be', () => {
  const part = (first: boolean) => frame(Buffer.alloc(200_000), { first, last: false, key: null })
  expect(() => readAll([part(true), part(false)], false)).toThrow(/more than 300000/)
})

test('text is told from bytes', () => {
  const { messages } = readAll([Buffer.concat([Buffer.from([0x81, 2]), Buffer.from('hi')])], false)
  expect(messages[0]?.isBinary).toBe(false)
})
