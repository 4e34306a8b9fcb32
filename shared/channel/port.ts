import type { ServerId, VaultId } from '../ids.ts'
import type { Message } from './message.ts'

export type ServerKind = 'coordinator' | 'provider' | 'agent'

/** Who is at the other end, as proved by its membership. */
export interface Peer {
  readonly vaultId: VaultId
  readonly serverId: ServerId
  readonly kind: ServerKind
  readonly name: string
  /** Ed25519, 32 bytes; verifies what this peer signs (point manifests). */
  readonly publicKey: Uint8Array
}

export interface ChannelClosed {
  /** Code of shared/errors: why it ended; `channel-closed` for an orderly end. */
  readonly code: string
  readonly message: string
}

export interface ChannelCounters {
  readonly bytesSent: number
  readonly bytesReceived: number
  readonly framesSent: number
  readonly framesReceived: number
}

/**
 * An authenticated, ordered, replay-proof message channel (DESIGN §4). Heartbeats and half-open detection are its own
 * affair and never appear among `messages`. One reader at a time may iterate `messages`.
 */
export interface Channel extends AsyncDisposable {
  readonly peer: Peer
  readonly counters: ChannelCounters
  /**
   * Queues the message. Resolves when the channel is below its high-water mark, so a sender that awaits each send
   * is paced by the link. Control messages may be sent without awaiting. Rejects with the close reason once closed.
   * `onWritten`: the memory of the tail is free again; not called when the channel ends before.
   */
  send(message: Message, onWritten?: () => void): Promise<void>
  /** Ends when the channel closes. Reading slowly pauses the socket: back-pressure reaches the peer. */
  messages(): AsyncIterable<Message>
  readonly closed: Promise<ChannelClosed>
  close(reason?: ChannelClosed): void
}
