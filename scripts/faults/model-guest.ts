/** The guest program of the chaos runs: `node model-guest.ts SEED PERIOD_MS`, disks from HOTSITE_VM_DISKS (docs/folder-driver.md). */
import { closeSync, openSync, readSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { decodeCounter, encodeCounter, operation } from './model.ts'

const seed = Number(process.argv[2])
const periodMs = Number(process.argv[3])
const disks = (JSON.parse(process.env['HOTSITE_VM_DISKS'] ?? '[]') as { path: string }[]).map(({ path }) =>
  openSync(path, 'r+'),
)
const heartbeat = process.env['HOTSITE_VM_HEARTBEAT'] ?? ''

function counterOf(fd: number): number {
  const record = Buffer.alloc(512)
  readSync(fd, record, 0, 512, 0)
  const n = decodeCounter(record)
  if (n === undefined) throw new Error('torn counter on a disk at start')
  return n
}

const found = disks.map(counterOf)
process.stdout.write(`started with counters ${found.join(', ')}\n`)
// What the last life had begun is repeated: the same operation writes the same bytes.
let n = Math.min(...found)
let stopping = false
process.on('SIGTERM', () => {
  stopping = true
})

function write(fd: number | undefined, bytes: Buffer, offset: number): void {
  if (fd === undefined) throw new Error('the guest needs two disks')
  writeSync(fd, bytes, 0, bytes.length, offset)
}

while (!stopping) {
  n += 1
  const { disk, blockIndex, content } = operation(seed, n)
  write(disks[disk], content, blockIndex * BLOCK_BYTES)
  write(disks[0], encodeCounter(n), 0)
  write(disks[1], encodeCounter(n), 0)
  if (n === 1) writeFileSync(heartbeat, '')
  else touch(heartbeat)
  await new Promise((resolve) => setTimeout(resolve, periodMs))
}
for (const fd of disks) closeSync(fd)

function touch(path: string): void {
  try {
    utimesSync(path, new Date(), new Date())
  } catch {
    writeFileSync(path, '')
  }
}
