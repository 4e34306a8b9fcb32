/**
 * Frames of WebSocket (RFC 6455 §5) that carry our messages. ws makes the connection and answers control frames; data
 * frames are cut here, because ws would join each payload from as many pieces of memory as TLS has records in it.
 */
import { HotsiteError } from '../errors/hotsite-error.ts'

const maskBytes = 4
const maxFrameHeaderBytes = 14
/** A message of ours has three fragments. */
const maxFragments = 8
const opcodes = { continuation: 0, text: 1, binary: 2 } as const
/** Close, ping and pong have the highest bit of the four. */
const controlBit = 8

/** Before `payloadBytes` of payload. A client's frames are masked; ours with zeros (see dial.ts), so nothing changes. */
export function frameHeader(frame: {
  readonly first: boolean
  readonly last: boolean
  readonly masked: boolean
  readonly payloadBytes: number
}): Buffer {
  const { first, last, masked, payloadBytes } = frame
  const lengthBytes = payloadBytes < 126 ? 0 : payloadBytes < 65_536 ? 2 : 8
  const header = Buffer.alloc(2 + lengthBytes + (masked ? maskBytes : 0))
  header[0] = (last ? 0x80 : 0) | (first ? opcodes.binary : opcodes.continuation)
  header[1] = (masked ? 0x80 : 0) | (lengthBytes === 0 ? payloadBytes : lengthBytes === 2 ? 126 : 127)
  if (lengthBytes === 2) header.writeUInt16BE(payloadBytes, 2)
  if (lengthBytes === 8) header.writeUIntBE(payloadBytes, 4, 6)
  return header
}

export interface FrameReaderOptions {
  /** The peer is a client, and must mask. */
  readonly masked: boolean
  /** Of one message, all its fragments. Asked anew for each frame. */
  readonly maxMessageBytes: () => number
  /** Memory for one fragment; `isPayload`: it is neither the first nor the last, as payload of ours is. */
  readonly allocate: (sizeBytes: number, isPayload: boolean) => Buffer
  /** A whole message, each fragment in memory of its own. */
  readonly onMessage: (fragments: readonly Buffer[], isBinary: boolean) => void
  /** A control frame as it came. */
  readonly onControl: (frame: Buffer) => void
}

/**
 * Takes the bytes of one connection in any pieces and keeps none of them. Throws `channel-malformed` and
 * `channel-oversize`; nothing can be read after that.
 */
export class FrameReader {
  readonly #options: FrameReaderOptions
  readonly #header = Buffer.alloc(maxFrameHeaderBytes)
  #headerBytes = 0
  #fragments: Buffer[] = []
  #messageBytes = 0
  #isBinary = true
  /** The frame whose header is complete. */
  #frame: { readonly control: boolean; readonly last: boolean; readonly payload: Buffer } | undefined
  #payloadBytes = 0

  constructor(options: FrameReaderOptions) {
    this.#options = options
  }

  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length || this.#isComplete()) {
      if (!this.#frame) {
        at = this.#readHeader(chunk, at)
        continue
      }
      const { payload } = this.#frame
      const bytes = Math.min(payload.length - this.#payloadBytes, chunk.length - at)
      chunk.copy(payload, this.#payloadBytes, at, at + bytes)
      this.#payloadBytes += bytes
      at += bytes
      if (this.#isComplete()) this.#finishFrame()
    }
  }

  #isComplete(): boolean {
    return this.#frame !== undefined && this.#payloadBytes === this.#frame.payload.length
  }

  #readHeader(chunk: Buffer, from: number): number {
    let at = from
    while (at < chunk.length && this.#headerBytes < this.#wantedHeaderBytes())
      this.#header[this.#headerBytes++] = chunk[at++] ?? 0
    if (this.#headerBytes >= 2 && this.#headerBytes === this.#wantedHeaderBytes()) this.#begin()
    return at
  }

  #wantedHeaderBytes(): number {
    if (this.#headerBytes < 2) return 2
    const second = this.#header[1] ?? 0
    const length = second & 0x7f
    const lengthBytes = length === 127 ? 8 : length === 126 ? 2 : 0
    return 2 + lengthBytes + (second & 0x80 ? maskBytes : 0)
  }

  #begin(): void {
    const [first = 0, second = 0] = this.#header
    const opcode = first & 0x0f
    const control = (opcode & controlBit) !== 0
    const last = (first & 0x80) !== 0
    if ((first & 0x70) !== 0) throw malformed('a frame with reserved bits')
    if (((second & 0x80) !== 0) !== this.#options.masked) throw malformed('a frame with the wrong masking')
    const sizeBytes = this.#payloadLength()
    if (control) {
      if (!last || sizeBytes > 125) throw malformed('a control frame in parts')
      // Header and payload, for ws to read.
      const whole = Buffer.alloc(this.#headerBytes + sizeBytes)
      this.#header.copy(whole, 0, 0, this.#headerBytes)
      this.#frame = { control, last, payload: whole }
      this.#payloadBytes = this.#headerBytes
      return
    }
    this.#beginData(opcode)
    this.#messageBytes += sizeBytes
    const most = this.#options.maxMessageBytes()
    if (this.#messageBytes > most)
      throw new HotsiteError('channel-oversize', `received a message of more than ${most} bytes`)
    this.#frame = {
      control,
      last,
      payload: this.#options.allocate(sizeBytes, !last && this.#fragments.length > 0),
    }
    this.#payloadBytes = 0
  }

  #beginData(opcode: number): void {
    const isNew = this.#fragments.length === 0
    if (opcode > opcodes.binary || (opcode === opcodes.continuation) === isNew)
      throw malformed(`a frame of kind ${opcode} out of its place`)
    if (this.#fragments.length >= maxFragments) throw malformed('a message in too many fragments')
    if (isNew) this.#isBinary = opcode === opcodes.binary
  }

  #payloadLength(): number {
    const length = (this.#header[1] ?? 0) & 0x7f
    if (length === 126) return this.#header.readUInt16BE(2)
    if (length < 126) return length
    const high = this.#header.readUInt16BE(2)
    return high === 0 ? this.#header.readUIntBE(4, 6) : Number.MAX_SAFE_INTEGER
  }

  #finishFrame(): void {
    const frame = this.#frame
    if (!frame) return
    const mask = this.#header.subarray(this.#headerBytes - maskBytes, this.#headerBytes)
    const isMasked = this.#options.masked && mask.readUInt32BE(0) !== 0
    this.#frame = undefined
    this.#headerBytes = 0
    if (frame.control) {
      this.#options.onControl(frame.payload)
      return
    }
    if (isMasked) unmask(frame.payload, mask)
    this.#fragments.push(frame.payload)
    if (!frame.last) return
    const fragments = this.#fragments
    this.#fragments = []
    this.#messageBytes = 0
    this.#options.onMessage(fragments, this.#isBinary)
  }
}

function unmask(payload: Buffer, mask: Buffer): void {
  for (let i = 0; i < payload.length; i++) payload[i] = (payload[i] ?? 0) ^ (mask[i & 3] ?? 0)
}

function malformed(what: string): HotsiteError {
  return new HotsiteError('channel-malformed', `received ${what}`)
}
