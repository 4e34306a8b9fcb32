/** Messages and signed documents to bytes and back; the only importer of the generated protobuf code. */
import './protobuf-numbers.ts'
import protobuf from 'protobufjs/minimal.js'
import { hotsite } from '#proto/gen/hotsite.js'
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { Bodies, Filled, Message, MessageKind } from './message.ts'

/** The parts of a generated class that are used here. */
interface Generated {
  encode(message: object): { finish(): Uint8Array }
  decode(reader: protobuf.Reader): object
  verify(message: Record<string, unknown>): string | null
  toObject(message: object, options: { defaults: boolean }): Record<string, unknown>
}

const bodyClasses = {
  hello: hotsite.Hello,
  proof: hotsite.Proof,
  ping: hotsite.Ping,
  pong: hotsite.Pong,
  refusal: hotsite.Refusal,
  command: hotsite.Command,
  commandResult: hotsite.CommandResult,
  report: hotsite.Report,
  reportAck: hotsite.ReportAck,
  openReplica: hotsite.OpenReplica,
  replicaOpened: hotsite.ReplicaOpened,
  deltaBegin: hotsite.DeltaBegin,
  deltaAccepted: hotsite.DeltaAccepted,
  blocks: hotsite.Blocks,
  blocksDurable: hotsite.BlocksDurable,
  deltaEnd: hotsite.DeltaEnd,
  pointAck: hotsite.PointAck,
  treeQuery: hotsite.TreeQuery,
  treeNodes: hotsite.TreeNodes,
  replicaRefusal: hotsite.ReplicaRefusal,
  repairRequest: hotsite.RepairRequest,
  repairBlocks: hotsite.RepairBlocks,
  backfills: hotsite.Backfills,
} as const satisfies Record<MessageKind, unknown>

const documentClasses = {
  signed: hotsite.Signed,
  membership: hotsite.Membership,
  ticket: hotsite.Ticket,
  pointManifest: hotsite.PointManifest,
} as const

export interface Documents {
  signed: Filled<hotsite.Signed.$Shape>
  membership: Filled<hotsite.Membership.$Shape>
  ticket: Filled<hotsite.Ticket.$Shape>
  pointManifest: Filled<hotsite.PointManifest.$Shape>
}
export type DocumentKind = keyof Documents

/** protobufjs writes these modulo 2^32 without a word. Held against proto/hotsite.proto by a test. */
export const uint32Fields: ReadonlySet<string> = new Set([
  'versions',
  'generation',
  'blockIndexes',
  'storedBytes',
  'level',
  'requestId',
])
const maxUint32 = 2 ** 32 - 1

function asGenerated(generated: unknown): Generated {
  return generated as Generated
}

/** The number that cannot travel, if any: every number of this wire is a whole one from 0 to 2^53 - 1. */
function findUnsafeNumber(value: unknown, field: string): string | undefined {
  if (typeof value === 'bigint') return `${field}: a BigInt would be sent as 0`
  if (typeof value === 'number') {
    const max = uint32Fields.has(field) ? maxUint32 : Number.MAX_SAFE_INTEGER
    return Number.isInteger(value) && value >= 0 && value <= max ? undefined : `${field}: ${value}`
  }
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return undefined
  const entries: [string, unknown][] = Array.isArray(value)
    ? value.map((item) => [field, item])
    : Object.entries(value)
  for (const [key, item] of entries) {
    const found = findUnsafeNumber(item, key)
    if (found) return found
  }
  return undefined
}

function encodeWith(
  generated: Generated,
  name: string,
  value: Record<string, unknown>,
  frame?: string,
): Uint8Array {
  const unsafe = findUnsafeNumber(value, name)
  if (unsafe) throw new HotsiteError('channel-unsafe-number', `cannot send ${name}: ${unsafe}`)
  const problem = generated.verify(value)
  if (problem) throw new HotsiteError('channel-malformed', `cannot send ${name}: ${problem}`)
  if (frame === undefined) return generated.encode(value).finish()
  return hotsite.Frame.encode({ [frame]: value }).finish()
}

function decodeWith(generated: Generated, name: string, bytes: Uint8Array): Record<string, unknown> {
  let plain: Record<string, unknown>
  try {
    const reader = protobuf.Reader.create(bytes)
    reader.discardUnknown = true
    // Plain objects with every field present: a spread of a generated instance would lose its defaults.
    plain = generated.toObject(generated.decode(reader), { defaults: true })
  } catch (error) {
    throw new HotsiteError('channel-malformed', `received a ${name} that cannot be read`, { cause: error })
  }
  const unsafe = findUnsafeNumber(plain, name)
  if (unsafe) throw new HotsiteError('channel-unsafe-number', `received ${name} with ${unsafe}`)
  return plain
}

/** The Frame around a message; its tail travels beside it. Throws `channel-unsafe-number`, `channel-malformed`. */
export function encodeMessage(message: Message): Uint8Array {
  const generated = asGenerated(bodyClasses[message.kind])
  return encodeWith(generated, message.kind, message.body as unknown as Record<string, unknown>, message.kind)
}

/** Throws `channel-malformed` (also for a body this version does not know) and `channel-unsafe-number`. */
export function decodeMessage(header: Uint8Array, tail: Buffer | undefined): Message {
  const frame = decodeWith(asGenerated(hotsite.Frame), 'frame', header)
  const kinds = Object.keys(frame).filter((key) => key in bodyClasses)
  const kind = kinds[0] as MessageKind | undefined
  if (kind === undefined)
    throw new HotsiteError('channel-malformed', 'received a frame with no body known here')
  const body = frame[kind] as Bodies[MessageKind]
  return (tail && tail.length > 0 ? { kind, body, tail } : { kind, body }) as Message
}

export function encodeDocument<Kind extends DocumentKind>(kind: Kind, document: Documents[Kind]): Uint8Array {
  return encodeWith(asGenerated(documentClasses[kind]), kind, document as unknown as Record<string, unknown>)
}

/** Throws `channel-malformed` and `channel-unsafe-number`. Byte fields are copies and do not keep the input alive. */
export function decodeDocument<Kind extends DocumentKind>(kind: Kind, bytes: Uint8Array): Documents[Kind] {
  const plain = decodeWith(asGenerated(documentClasses[kind]), kind, Uint8Array.from(bytes))
  return plain as unknown as Documents[Kind]
}
