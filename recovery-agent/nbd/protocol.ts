/**
 * The NBD protocol, as far as a client that reads needs it: fixed newstyle negotiation, structured replies, metadata
 * contexts. Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. Everything is big-endian.
 */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

export const NBD_MAGIC = 0x4e42444d41474943n
export const OPTION_MAGIC = 0x49484156454f5054n
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef

export const handshakeFlags = { fixedNewstyle: 1, noZeroes: 2 } as const

export const option = { abort: 2, go: 7, structuredReply: 8, setMetaContext: 10 } as const

export const optionReply = { ack: 1, info: 3, metaContext: 4 } as const
const OPTION_ERROR = 0x8000_0000

export const infoType = { export: 0, blockSize: 3 } as const

export const command = { read: 0, disconnect: 2, blockStatus: 7 } as const

export const chunk = {
  none: 0,
  data: 1,
  hole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const
export const CHUNK_DONE = 1
const CHUNK_ERROR = 0x8000

/** Flags of `base:allocation`. */
export const allocation = { hole: 1, zero: 2 } as const
/** Flag of `qemu:dirty-bitmap:…`: written to since the bitmap was made. */
export const DIRTY = 1

/** Longest option reply that is read: names are at most 4096 bytes (section "Strings"). */
export const MAX_OPTION_REPLY_BYTES = 16_384
/** Of one block status answer: an extent is 8 bytes. */
export const MAX_STATUS_BYTES = 64 << 20
/** Of an error chunk: code, length, message. */
export const MAX_ERROR_BYTES = 4096 + 6 + 8

export function malformed(what: string): HotsiteError {
  return new HotsiteError('nbd-malformed', `the NBD server sent something that is not NBD: ${what}`)
}

export function encodeOption(code: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(16)
  head.writeBigUInt64BE(OPTION_MAGIC)
  head.writeUInt32BE(code, 8)
  head.writeUInt32BE(data.length, 12)
  return Buffer.concat([head, data])
}

export interface OptionReplyHead {
  readonly type: number
  readonly lengthBytes: number
}

/** 20 bytes. */
export function decodeOptionReply(bytes: Buffer, code: number): OptionReplyHead {
  if (bytes.readBigUInt64BE() !== OPTION_REPLY_MAGIC) throw malformed('an option reply without its magic')
  if (bytes.readUInt32BE(8) !== code)
    throw malformed(`a reply to option ${bytes.readUInt32BE(8)} instead of ${code}`)
  const lengthBytes = bytes.readUInt32BE(16)
  if (lengthBytes > MAX_OPTION_REPLY_BYTES) throw malformed(`an option reply of ${lengthBytes} bytes`)
  return { type: bytes.readUInt32BE(12), lengthBytes }
}

export function isOptionError(type: number): boolean {
  return type >= OPTION_ERROR
}

const optionErrors: Readonly<Record<number, string>> = {
  1: 'it does not know this option',
  2: 'its policy forbids it',
  3: 'it finds the request invalid',
  4: 'its platform does not support it',
  5: 'it wants TLS',
  6: 'it has no such export',
  7: 'it is shutting down',
  8: 'it wants block sizes to be asked for',
  9: 'the request is too big',
}

/** For people. */
export function optionErrorText(type: number, data: Buffer): string {
  const said = data.toString('utf8').trim()
  return `${optionErrors[type - OPTION_ERROR] ?? `error ${type - OPTION_ERROR}`}${said ? `: ${said}` : ''}`
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** NBD_OPT_GO for an export; the sizes of its blocks are asked for. */
export function encodeGo(exportName: string): Buffer {
  const infos = Buffer.alloc(4)
  infos.writeUInt16BE(1)
  infos.writeUInt16BE(infoType.blockSize, 2)
  return encodeOption(option.go, Buffer.concat([withLength(exportName), infos]))
}

/** NBD_OPT_SET_META_CONTEXT. */
export function encodeSetMetaContext(exportName: string, contexts: readonly string[]): Buffer {
  const count = Buffer.alloc(4)
  count.writeUInt32BE(contexts.length)
  return encodeOption(
    option.setMetaContext,
    Buffer.concat([withLength(exportName), count, ...contexts.map(withLength)]),
  )
}

export interface Request {
  readonly command: number
  readonly handle: bigint
  readonly offsetBytes: number
  readonly lengthBytes: number
}

export const REQUEST_BYTES = 28

export function encodeRequest(request: Request, target: Buffer, at: number): void {
  target.writeUInt32BE(REQUEST_MAGIC, at)
  target.writeUInt16BE(0, at + 4)
  target.writeUInt16BE(request.command, at + 6)
  target.writeBigUInt64BE(request.handle, at + 8)
  target.writeBigUInt64BE(BigInt(request.offsetBytes), at + 16)
  target.writeUInt32BE(request.lengthBytes, at + 24)
}

export function isErrorChunk(type: number): boolean {
  return (type & CHUNK_ERROR) !== 0
}

const errnoNames: Readonly<Record<number, string>> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  22: 'EINVAL',
  28: 'ENOSPC',
  75: 'EOVERFLOW',
  95: 'ENOTSUP',
  108: 'ESHUTDOWN',
}

export function serverError(errno: number, said = ''): HotsiteError {
  const name = errnoNames[errno] ?? `error ${errno}`
  return new HotsiteError('nbd-failed', `the NBD server could not read: ${name}${said ? `, ${said}` : ''}`, {
    details: { errno },
  })
}
