/** How few bytes a change could be sent in: each block compressed by itself, raw where that is smaller. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { constants, zstdCompressSync } from 'node:zlib'
import { openDataMap } from '#recovery-agent/hypervisor/data-map.ts'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'

export interface WireFloor {
  /** The blocks themselves; zero blocks do not count. */
  readonly dataBytes: number
  readonly compressedBytes: number
}

const level1 = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }

/** Of the given blocks of a raw image. */
export function wireFloorOf(path: string, blocks: Iterable<number>): WireFloor {
  const fd = openSync(path, 'r')
  const block = Buffer.alloc(BLOCK_BYTES)
  const zeros = Buffer.alloc(BLOCK_BYTES)
  let dataBytes = 0
  let compressedBytes = 0
  try {
    for (const index of blocks) {
      block.fill(0, readSync(fd, block, 0, BLOCK_BYTES, index * BLOCK_BYTES))
      if (block.equals(zeros)) continue
      dataBytes += BLOCK_BYTES
      compressedBytes += Math.min(BLOCK_BYTES, zstdCompressSync(block, level1).length)
    }
  } finally {
    closeSync(fd)
  }
  return { dataBytes, compressedBytes }
}

/** The blocks of an image that are not holes of its file. */
export function* allocatedBlocks(path: string): Iterable<number> {
  const fd = openSync(path, 'r')
  let next = 0
  try {
    for (const { offsetBytes, lengthBytes } of openDataMap()(fd, fstatSync(fd).size)) {
      const end = Math.ceil((offsetBytes + lengthBytes) / BLOCK_BYTES)
      for (next = Math.max(next, Math.floor(offsetBytes / BLOCK_BYTES)); next < end; next++) yield next
    }
  } finally {
    closeSync(fd)
  }
}
