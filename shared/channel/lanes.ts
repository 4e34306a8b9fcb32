/**
 * Messages waiting to be sent, in two lanes. Control messages overtake bulk ones, so that a command, a heartbeat or a
 * question never waits behind megabytes of blocks; within a lane order is kept.
 *
 * Of the data path, what a source asks may overtake: the beginning of a delta, which is asked only when nothing of that
 * VM is on its way, and the tree of blocks that were not sent yet. Everything that means "after these blocks", or begins
 * a conversation anew, keeps its place behind them.
 */
import type { MessageKind } from './message.ts'

export type Lane = 'control' | 'data'

export function laneOf(kind: MessageKind): Lane {
  switch (kind) {
    case 'hello':
    case 'proof':
    case 'refusal':
    case 'ping':
    case 'pong':
    case 'command':
    case 'commandResult':
    case 'report':
    case 'reportAck':
    case 'deltaBegin':
    case 'treeQuery':
      return 'control'
    default:
      return 'data'
  }
}

export interface Sized {
  readonly sizeBytes: number
}

export interface Lanes<Item extends Sized> {
  push(lane: Lane, item: Item): void
  /** control: only what may overtake. */
  take(which?: 'any' | 'control'): Item | undefined
  readonly bytes: number
  clear(): void
}

export function sendLanes<Item extends Sized>(): Lanes<Item> {
  const control: Item[] = []
  const data: Item[] = []
  let bytes = 0
  return {
    push(lane, item) {
      bytes += item.sizeBytes
      if (lane === 'control') control.push(item)
      else data.push(item)
    },
    take(which = 'any') {
      const item = control.shift() ?? (which === 'any' ? data.shift() : undefined)
      if (item) bytes -= item.sizeBytes
      return item
    },
    get bytes() {
      return bytes
    },
    clear() {
      control.length = 0
      data.length = 0
      bytes = 0
    },
  }
}
