import { createCipheriv } from 'node:crypto'
import { intBelow, type Rng } from '#shared/rng.ts'

const POOL_BYTES = 1024 * 1024
const WORDS = (
  'order customer invoice amount delivered pending warehouse shipment refund total item quantity price account ' +
  'currency street city country paid open closed the of and to in for with at by from on'
).split(' ')

/** Content as disks have it: text that compresses and data that does not. The same rng gives the same bytes. */
export interface ContentSource {
  /** Shares memory with the source: copy it before keeping it. */
  take(lengthBytes: number): Buffer
}

export function openContent(rng: Rng, compressibleShare = 0.5): ContentSource {
  const text = textPool(rng)
  const noise = noisePool(rng)
  return {
    take(lengthBytes) {
      const pool = rng.next() < compressibleShare ? text : noise
      if (lengthBytes <= pool.length) {
        const start = intBelow(rng, pool.length - lengthBytes + 1)
        return pool.subarray(start, start + lengthBytes)
      }
      return Buffer.alloc(lengthBytes, pool)
    },
  }
}

function textPool(rng: Rng): Buffer {
  const parts: string[] = []
  for (let bytes = 0; bytes < POOL_BYTES; ) {
    const word = `${WORDS[intBelow(rng, WORDS.length)]}${rng.next() < 0.1 ? `=${intBelow(rng, 100_000)}\n` : ' '}`
    parts.push(word)
    bytes += word.length
  }
  return Buffer.from(parts.join('')).subarray(0, POOL_BYTES)
}

/** An AES-CTR key stream: far faster than a number at a time, and nothing compresses it. */
function noisePool(rng: Rng): Buffer {
  const key = Buffer.from(Array.from({ length: 16 }, () => intBelow(rng, 256)))
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(POOL_BYTES))
}
