/**
 * Messages waiting to be sent, in two lanes. Control messages overtake bulk ones, so that a command or a heartbeat
 * never waits behind megabytes of blocks; within a lane order is kept, and the data path lies in one lane as a whole.
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
  take(): Item | undefined
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
    take() {
      const item = control.shift() ?? data.shift()
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
