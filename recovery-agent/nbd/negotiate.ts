/** The first words with an NBD server, up to an export that can be read. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import {
  decodeOptionReply,
  encodeGo,
  encodeOption,
  encodeSetMetaContext,
  handshakeFlags,
  infoType,
  isOptionError,
  malformed,
  NBD_MAGIC,
  OPTION_MAGIC,
  option,
  optionErrorText,
  optionReply,
} from './protocol.ts'
import type { ByteStream } from './unix-stream.ts'

export interface ExportRequest {
  readonly exportName: string
  /** Metadata contexts that are wanted, like `base:allocation`. */
  readonly contexts: readonly string[]
}

export interface NegotiatedExport {
  readonly sizeBytes: number
  /** Requests begin and end at multiples of it. */
  readonly minBlockBytes: number
  readonly maxBlockBytes: number
  /** Of those that were asked for, the ones the server has, with the number it gave each. */
  readonly contextIds: ReadonlyMap<string, number>
}

/** Where a server says nothing (section "Block sizes"). */
const DEFAULT_MAX_BLOCK_BYTES = 32 << 20

/** Throws `nbd-failed` for what the server refuses, `nbd-malformed` for what is not NBD. */
export function negotiate(stream: ByteStream, { exportName, contexts }: ExportRequest): NegotiatedExport {
  greet(stream)
  const refused = (what: string, type: number, data: Buffer) =>
    new HotsiteError('nbd-failed', `the NBD server refuses ${what}: ${optionErrorText(type, data)}`, {
      details: { exportName },
    })
  const structured = ask(stream, option.structuredReply, encodeOption(option.structuredReply))
  const isStructured = structured.error === undefined
  const contextIds = new Map<string, number>()
  if (contexts.length > 0) {
    if (!isStructured)
      throw new HotsiteError(
        'nbd-failed',
        'the NBD server has no structured replies, so it cannot say what changed',
      )
    const answer = ask(stream, option.setMetaContext, encodeSetMetaContext(exportName, contexts))
    if (answer.error) throw refused(`metadata of export ${exportName}`, answer.error.type, answer.error.data)
    for (const { type, data } of answer.replies) {
      if (type !== optionReply.metaContext) continue
      if (data.length < 4) throw malformed('a metadata context without a number')
      contextIds.set(data.toString('utf8', 4), data.readUInt32BE())
    }
  }
  const answer = ask(stream, option.go, encodeGo(exportName))
  if (answer.error) throw refused(`export ${exportName}`, answer.error.type, answer.error.data)
  return { ...exportOf(answer.replies), contextIds }
}

function greet(stream: ByteStream): void {
  const greeting = Buffer.alloc(18)
  stream.receive(greeting)
  if (greeting.readBigUInt64BE() !== NBD_MAGIC || greeting.readBigUInt64BE(8) !== OPTION_MAGIC)
    throw malformed('another greeting')
  const flags = greeting.readUInt16BE(16)
  if ((flags & handshakeFlags.fixedNewstyle) === 0) throw malformed('the negotiation of an older version')
  const own = Buffer.alloc(4)
  own.writeUInt32BE(flags & (handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes))
  stream.send(own)
}

interface OptionReply {
  readonly type: number
  readonly data: Buffer
}

/** More replies to one option than any server has contexts. */
const MAX_REPLIES = 1024

function ask(
  stream: ByteStream,
  code: number,
  bytes: Buffer,
): { readonly replies: readonly OptionReply[]; readonly error?: OptionReply } {
  stream.send(bytes)
  const replies: OptionReply[] = []
  while (replies.length < MAX_REPLIES) {
    const head = Buffer.alloc(20)
    stream.receive(head)
    const { type, lengthBytes } = decodeOptionReply(head, code)
    const data = Buffer.alloc(lengthBytes)
    stream.receive(data)
    if (isOptionError(type)) return { replies, error: { type, data } }
    if (type === optionReply.ack) return { replies }
    replies.push({ type, data })
  }
  throw malformed(`more than ${MAX_REPLIES} replies to one option`)
}

function exportOf(replies: readonly OptionReply[]): Omit<NegotiatedExport, 'contextIds'> {
  let sizeBytes: number | undefined
  let minBlockBytes = 1
  let maxBlockBytes = DEFAULT_MAX_BLOCK_BYTES
  for (const { type, data } of replies) {
    if (type !== optionReply.info) continue
    const kind = data.length >= 2 ? data.readUInt16BE() : undefined
    if (kind === infoType.export) {
      if (data.length < 12) throw malformed('an export without its size')
      sizeBytes = Number(data.readBigUInt64BE(2))
    } else if (kind === infoType.blockSize) {
      if (data.length < 14) throw malformed('block sizes that are cut off')
      minBlockBytes = data.readUInt32BE(2)
      maxBlockBytes = Math.min(data.readUInt32BE(10), DEFAULT_MAX_BLOCK_BYTES)
    }
  }
  if (sizeBytes === undefined) throw malformed('an export without its size')
  if (!Number.isSafeInteger(sizeBytes)) throw malformed(`an export of ${sizeBytes} bytes`)
  const isPowerOfTwo = minBlockBytes > 0 && (minBlockBytes & (minBlockBytes - 1)) === 0
  if (!isPowerOfTwo || minBlockBytes > 65_536 || maxBlockBytes < 65_536)
    throw malformed(`blocks of ${minBlockBytes} to ${maxBlockBytes} bytes`)
  return { sizeBytes, minBlockBytes, maxBlockBytes }
}
