/** Every bound of the channel, with its reason (I13). Tests and labs pass smaller ones. */
import { assert } from '../assert.ts'

const kiB = 1024
const miB = 1024 * kiB

export interface ChannelLimits {
  /** The protobuf Frame. An inventory report of some ten thousand VMs is the largest. */
  readonly maxHeaderBytes: number
  /** Raw payload: one batch of blocks is at most 1 MiB (DESIGN §5). */
  readonly maxTailBytes: number
  /** A whole message before the peer is authenticated: memberships are a few hundred bytes. */
  readonly maxHandshakeFrameBytes: number
  /** From TCP accept, or from the start of dialling, to an established channel. */
  readonly handshakeTimeoutMs: number
  /** Connections of a listener that have proved nothing yet. */
  readonly maxUnauthenticatedConnections: number
  /** Refusals of one kind from one address that are told (logged, raised as events) one by one; more are counted. */
  readonly refusalsToldPerMinute: number
  /** Kinds and addresses counted at one time. */
  readonly maxTrackedRefusals: number
  /** A ping is sent this often, also while the reader here is slow. */
  readonly heartbeatIntervalMs: number
  /** So many intervals without a single frame mean that the peer is gone. */
  readonly maxSilentIntervals: number
  /** send() waits while more than this is queued and unsent: some 4 ms of a 10 Gbit/s link, or 35 ms of a 1 Gbit/s one. */
  readonly sendHighWaterBytes: number
  /** Bulk is handed to the socket while less than this is unsent there: control messages wait for no more than that. */
  readonly bulkInSocketBytes: number
  /** Queued by senders that do not wait; above it the channel fails rather than the process. */
  readonly maxQueuedBytes: number
  /** Received and not yet taken by the reader; above it the socket is paused. */
  readonly receiveHighWaterBytes: number
  /** After an orderly close: for queued messages to leave and the peer to answer. */
  readonly closeTimeoutMs: number
}

export const channelLimits: ChannelLimits = {
  maxHeaderBytes: 8 * miB,
  maxTailBytes: 1 * miB + 64 * kiB,
  maxHandshakeFrameBytes: 16 * kiB,
  handshakeTimeoutMs: 10_000,
  maxUnauthenticatedConnections: 512,
  refusalsToldPerMinute: 5,
  maxTrackedRefusals: 1024,
  heartbeatIntervalMs: 10_000,
  maxSilentIntervals: 3,
  sendHighWaterBytes: 4 * miB,
  bulkInSocketBytes: 1 * miB,
  maxQueuedBytes: 64 * miB,
  receiveHighWaterBytes: 4 * miB,
  closeTimeoutMs: 5_000,
}

/** Accounted to every queued message beside its bytes, so that a million tiny ones count as well. */
export const queuedMessageOverheadBytes = 256

/** The limits with some of them replaced; throws when they contradict each other. */
export function limitsWith(changes: Partial<ChannelLimits> = {}): ChannelLimits {
  const limits = { ...channelLimits, ...changes }
  for (const [name, value] of Object.entries(limits)) assert(value > 0, `channel limit ${name} is positive`)
  assert(
    limits.maxHandshakeFrameBytes <= limits.maxHeaderBytes,
    'a handshake frame is no larger than any other',
  )
  assert(limits.sendHighWaterBytes < limits.maxQueuedBytes, 'a sender waits before the queue is full')
  return limits
}
