/** Raw disks with content, sparse as real ones are: `node make-disks.ts --dir DIR [--size-mib 64] [--data-mib 16] [--count 2] [--seed 1]`. */
import { closeSync, fsyncSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { intBelow, seededRng } from '#shared/rng.ts'
import { openContent } from './content.ts'
import { RING_BYTES } from './records.ts'

const MIB = 1024 * 1024
/** File systems place files at multiples of this. */
const CLUSTER_BYTES = 4096
const LARGEST_FILE_BYTES = 256 * 1024

export interface DiskRequest {
  readonly dir: string
  readonly count: number
  readonly sizeBytes: number
  /** Content to write on each disk, about; the rest stays a hole. */
  readonly dataBytes: number
  readonly seed: number
}

/** Writes `disk0.img`, `disk1.img`, …; room for the orders at the start is left empty. Answers their paths. */
export function makeDisks({ dir, count, sizeBytes, dataBytes, seed }: DiskRequest): string[] {
  mkdirSync(dir, { recursive: true })
  const rng = seededRng(seed)
  const content = openContent(rng)
  const clusters = Math.floor((sizeBytes - RING_BYTES - LARGEST_FILE_BYTES) / CLUSTER_BYTES)
  return Array.from({ length: count }, (_, index) => {
    const path = join(dir, `disk${index}.img`)
    const fd = openSync(path, 'wx')
    try {
      ftruncateSync(fd, sizeBytes)
      for (let written = 0; written < dataBytes && clusters > 0; ) {
        const file = content.take(1 + intBelow(rng, LARGEST_FILE_BYTES))
        writeSync(fd, file, 0, file.length, RING_BYTES + intBelow(rng, clusters) * CLUSTER_BYTES)
        written += file.length
      }
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    return path
  })
}

const options = z.strictObject({
  dir: z.string(),
  'size-mib': z.coerce.number().int().min(4).default(64),
  'data-mib': z.coerce.number().min(0).default(16),
  count: z.coerce.number().int().min(1).max(16).default(2),
  seed: z.coerce.number().int().default(1),
})

function main(): void {
  const names = Object.fromEntries(
    Object.keys(options.shape).map((name) => [name, { type: 'string' as const }]),
  )
  const given = options.parse({ ...parseArgs({ options: names }).values })
  const paths = makeDisks({
    dir: given.dir,
    count: given.count,
    sizeBytes: given['size-mib'] * MIB,
    dataBytes: given['data-mib'] * MIB,
    seed: given.seed,
  })
  process.stdout.write(`${paths.join('\n')}\n`)
}

if (import.meta.main) main()
