/** Messages received and not yet taken. Says when the socket should pause and when it may go on. */
import type { Sized } from './lanes.ts'

export interface Inbox<Item extends Sized> {
  push(item: Item): void
  /** No more will come; what is there can still be taken. */
  end(): void
  /** Forgets what is there. */
  discard(): void
  /** One reader at a time. Leaving the loop keeps the rest for the next reader. */
  items(): AsyncIterable<Item>
  readonly bytes: number
}

export interface InboxOptions {
  readonly highWaterBytes: number
  readonly onFull: () => void
  /** Half empty again after onFull. */
  readonly onRoom: () => void
}

export function inbox<Item extends Sized>({ highWaterBytes, onFull, onRoom }: InboxOptions): Inbox<Item> {
  const items: Item[] = []
  let bytes = 0
  let full = false
  let ended = false
  let wake: (() => void) | undefined

  function take(): Item | undefined {
    const item = items.shift()
    if (!item) return undefined
    bytes -= item.sizeBytes
    if (full && bytes <= highWaterBytes / 2) {
      full = false
      onRoom()
    }
    return item
  }

  function wakeReader(): void {
    wake?.()
    wake = undefined
  }

  async function* iterate(): AsyncGenerator<Item> {
    for (;;) {
      const item = take()
      if (item) yield item
      else if (ended) return
      else
        await new Promise<void>((resolve) => {
          wake = resolve
        })
    }
  }

  return {
    push(item) {
      items.push(item)
      bytes += item.sizeBytes
      if (!full && bytes >= highWaterBytes) {
        full = true
        onFull()
      }
      wakeReader()
    },
    end() {
      ended = true
      wakeReader()
    },
    discard() {
      items.length = 0
      bytes = 0
    },
    items: iterate,
    get bytes() {
      return bytes
    },
  }
}
