/**
 * The bytes of one message, all integers big-endian:
 *
 *   sequence 8 | header length 4 | header (protobuf Frame) | tail (raw payload) | MAC 16
 *
 * Each direction counts its messages from 0, the two of the handshake included. The MAC covers everything before it,
 * so a message that was altered, repeated, left out or moved is seen at once.
 */
import { HotsiteError } from '../errors/hotsite-error.ts'
import type { ChannelLimits } from './limits.ts'
import { type Mac, macBytes, macEquals } from './mac.ts'

const prefixBytes = 12

export interface SealedMessage {
  /** Sequence, header length and header. */
  readonly head: Buffer
  /** The payload itself, not a copy. */
  readonly tail: Buffer | undefined
  readonly tag: Buffer
  readonly sizeBytes: number
}

export interface Sealer {
  /** Numbers and authenticates the next message of this direction. Throws `channel-oversize`. */
  seal(header: Uint8Array, tail: Buffer | undefined): SealedMessage
}

export interface Opener {
  /**
   * Header and tail as views into `received`, one message whole or in the pieces it came in. When the pieces are those
   * a sealer made, the tail is the middle one, and so the only content of its memory. Throws `channel-malformed`,
   * `channel-oversize`, `channel-out-of-sequence` (replayed, reordered, left out) and `channel-altered`; after any of
   * them the channel must be closed.
   */
  open(received: Buffer | readonly Buffer[]): { readonly header: Buffer; readonly tail: Buffer | undefined }
}

export type EnvelopeLimits = Pick<ChannelLimits, 'maxHeaderBytes' | 'maxTailBytes'>

export function maxFrameBytes(limits: EnvelopeLimits): number {
  return prefixBytes + limits.maxHeaderBytes + limits.maxTailBytes + macBytes
}

export function sealer(mac: Mac, limits: EnvelopeLimits, firstSequence: number): Sealer {
  let sequence = firstSequence
  return {
    seal(header, tail) {
      ensureWithinLimits(header.length, tail?.length ?? 0, limits)
      const head = Buffer.allocUnsafe(prefixBytes + header.length)
      head.writeBigUInt64BE(BigInt(sequence), 0)
      head.writeUInt32BE(header.length, 8)
      head.set(header, prefixBytes)
      const tag = mac.tag(sequence, tail ? [head, tail] : [head])
      sequence += 1
      return { head, tail, tag, sizeBytes: head.length + (tail?.length ?? 0) + tag.length }
    },
  }
}

export function opener(mac: Mac, limits: EnvelopeLimits, firstSequence: number): Opener {
  let expected = firstSequence
  return {
    open(received) {
      const { head, tail, tag } = asSealed(received) ?? cut(received)
      ensureWithinLimits(head.length - prefixBytes, tail?.length ?? 0, limits)
      const sequence = head.readBigUInt64BE(0)
      // The number first: it tells a replay from an alteration, and either way the channel closes.
      if (sequence !== BigInt(expected))
        throw new HotsiteError(
          'channel-out-of-sequence',
          `received message ${sequence} where ${expected} was due: repeated, reordered or left out`,
        )
      if (!macEquals(mac.tag(expected, tail ? [head, tail] : [head]), tag))
        throw new HotsiteError('channel-altered', `message ${expected} was altered on its way`)
      expected += 1
      return { header: head.subarray(prefixBytes), tail }
    },
  }
}

type Parts = Pick<SealedMessage, 'head' | 'tail' | 'tag'>

/** The three pieces of a message with a payload, when it came in exactly these. */
function asSealed(received: Buffer | readonly Buffer[]): Parts | undefined {
  if (Buffer.isBuffer(received)) return undefined
  const [head, tail, tag] = received
  if (!head || !tail || !tag || received.length !== 3) return undefined
  const fits = head.length >= prefixBytes && head.length === prefixBytes + head.readUInt32BE(8)
  return fits && tag.length === macBytes ? { head, tail, tag } : undefined
}

function cut(received: Buffer | readonly Buffer[]): Parts {
  const bytes = Buffer.isBuffer(received) ? received : Buffer.concat(received)
  if (bytes.length < prefixBytes + macBytes)
    throw new HotsiteError('channel-malformed', `a message of ${bytes.length} bytes is too short`)
  const headerBytes = bytes.readUInt32BE(8)
  const tagAt = bytes.length - macBytes
  const headEnd = prefixBytes + headerBytes
  if (headEnd > tagAt)
    throw new HotsiteError('channel-malformed', `a header of ${headerBytes} bytes does not fit its message`)
  return {
    head: bytes.subarray(0, headEnd),
    tail: headEnd < tagAt ? bytes.subarray(headEnd, tagAt) : undefined,
    tag: bytes.subarray(tagAt),
  }
}

function ensureWithinLimits(headerBytes: number, tailBytes: number, limits: EnvelopeLimits): void {
  if (headerBytes > limits.maxHeaderBytes)
    throw new HotsiteError(
      'channel-oversize',
      `a header of ${headerBytes} bytes; at most ${limits.maxHeaderBytes} are allowed`,
    )
  if (tailBytes > limits.maxTailBytes)
    throw new HotsiteError(
      'channel-oversize',
      `a payload of ${tailBytes} bytes; at most ${limits.maxTailBytes} are allowed`,
    )
}
