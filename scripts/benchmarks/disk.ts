/** The work: a raw disk with a real file system of real files, and a change to it that no tool is told of. */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { intBelow, type Rng } from '#shared/rng.ts'
import { writeTracked } from '../agent-kit/change-log.ts'
import { openContent } from '../workload/content.ts'

/** Where real files are found on any Linux. */
const sources = ['/usr/lib', '/usr/share', '/usr/bin']

/** ext4 from about half the disk's size of files below /usr, chosen in order of name; the rest is a hole. */
export function makeRealDisk(path: string, sizeBytes: number): void {
  const staging = `${path}.files`
  mkdirSync(staging)
  try {
    let roomBytes = sizeBytes / 2
    for (const source of sources) {
      for (const name of readdirSync(source)) {
        const from = join(source, name)
        const bytes = treeBytes(from)
        if (bytes > roomBytes) continue
        execFileSync('cp', [
          '-r',
          '--no-dereference',
          '--preserve=mode',
          from,
          join(staging, `${source.replaceAll('/', '_')}_${name}`),
        ])
        roomBytes -= bytes
      }
    }
    execFileSync('mke2fs', [
      '-q',
      '-t',
      'ext4',
      '-E',
      'lazy_itable_init=0',
      '-d',
      staging,
      path,
      `${Math.floor(sizeBytes / 1024)}k`,
    ])
  } finally {
    rmSync(staging, { recursive: true, force: true })
  }
}

function treeBytes(path: string): number {
  return Number(execFileSync('du', ['-sb', '--', path], { encoding: 'utf8' }).split('\t')[0])
}

/** Rewrites `blockCount` random blocks, half like logs, half incompressible; answers their indexes, ascending. */
export function rewriteBlocks(
  path: string,
  {
    blockCount,
    rng,
    tracked,
    withinBytes = Number.POSITIVE_INFINITY,
  }: {
    blockCount: number
    rng: Rng
    tracked: boolean
    /** From the start of the disk. */
    withinBytes?: number
  },
): readonly number[] {
  const blocks = Math.floor(Math.min(statSync(path).size, withinBytes) / BLOCK_BYTES)
  const content = openContent(rng)
  const chosen = new Set<number>()
  while (chosen.size < Math.min(blockCount, blocks)) chosen.add(intBelow(rng, blocks))
  const writes = [...chosen].map((index) => ({
    offsetBytes: index * BLOCK_BYTES,
    bytes: Buffer.from(content.take(BLOCK_BYTES)),
  }))
  if (tracked) writeTracked(path, writes)
  const fd = openSync(path, 'r+')
  try {
    if (!tracked)
      for (const { offsetBytes, bytes } of writes) writeSync(fd, bytes, 0, bytes.length, offsetBytes)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  return [...chosen].sort((a, b) => a - b)
}

/** Brings the given blocks of `to` up to what `from` holds, and syncs. */
export function copyBlocks(request: { from: string; to: string; blocks: readonly number[] }): void {
  const source = openSync(request.from, 'r')
  const target = openSync(request.to, 'r+')
  const block = Buffer.alloc(BLOCK_BYTES)
  try {
    for (const index of request.blocks) {
      const length = readSync(source, block, 0, BLOCK_BYTES, index * BLOCK_BYTES)
      writeSync(target, block, 0, length, index * BLOCK_BYTES)
    }
    fsyncSync(target)
  } finally {
    closeSync(source)
    closeSync(target)
  }
}

export function readBlock(path: string, blockIndex: number): Buffer {
  const fd = openSync(path, 'r')
  try {
    const block = Buffer.alloc(BLOCK_BYTES)
    readSync(fd, block, 0, BLOCK_BYTES, blockIndex * BLOCK_BYTES)
    return block
  } finally {
    closeSync(fd)
  }
}
