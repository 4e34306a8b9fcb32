/**
 * A guest whose every byte can be predicted. Operation n writes one block whose place and content follow from (seed, n),
 * then the counter n to block 0 of disk 0, then the same to block 0 of disk 1. So the counters found at any instant tell
 * exactly what both disks must hold: the truth about a recovery point does not come from anything that made it.
 */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { intBelow, seededRng } from '#shared/rng.ts'

/** The second size is no multiple of a block, on purpose. */
export const modelDisks: readonly { readonly name: string; readonly sizeBytes: number }[] = [
  { name: 'disk0', sizeBytes: 8 * 1024 * 1024 },
  { name: 'disk1', sizeBytes: 5 * 1024 * 1024 + 3 * 512 },
]

export interface Operation {
  readonly disk: number
  readonly blockIndex: number
  readonly content: Buffer
}

/** Text compresses, random does not, zero must become a hole again. */
const contentKinds = ['random', 'text', 'zero'] as const

export function operation(seed: number, n: number): Operation {
  const rng = seededRng(Math.imul(seed, 0x9e3779b1) ^ Math.imul(n, 0x85ebca6b))
  const disk = intBelow(rng, modelDisks.length)
  const sizeBytes = modelDisks[disk]?.sizeBytes ?? BLOCK_BYTES
  const blockIndex = 1 + intBelow(rng, blockCountOf(sizeBytes) - 1)
  const bytes = Math.min(BLOCK_BYTES, sizeBytes - blockIndex * BLOCK_BYTES)
  const kind = contentKinds[intBelow(rng, 5) % contentKinds.length]
  const content = Buffer.alloc(bytes)
  if (kind === 'text') content.fill(`operation ${n} of seed ${seed} wrote this line of a guest's log\n`)
  if (kind === 'random')
    for (let i = 0; i + 4 <= bytes; i += 4) content.writeUInt32LE((rng.next() * 2 ** 32) >>> 0, i)
  return { disk, blockIndex, content }
}

const counterMagic = 0x48_53_43_31

export function encodeCounter(n: number): Buffer {
  const record = Buffer.alloc(512)
  record.writeUInt32LE(counterMagic, 0)
  record.writeUInt32LE(n, 4)
  record.writeUInt32LE((counterMagic ^ n) >>> 0, 8)
  return record
}

/** The counter of a disk, 0 for a disk never written; undefined when it is neither. */
export function decodeCounter(record: Buffer): number | undefined {
  if (record.subarray(0, 12).equals(Buffer.alloc(12))) return 0
  const n = record.readUInt32LE(4)
  return record.readUInt32LE(0) === counterMagic && record.readUInt32LE(8) === (counterMagic ^ n) >>> 0
    ? n
    : undefined
}

/** Finds what is wrong with the bytes of both disks at one instant. Empty: they are exactly some state the guest was in. */
export function findViolations(seed: number, disks: readonly Buffer[]): readonly string[] {
  const counters = disks.map((disk) => decodeCounter(disk.subarray(0, 512)))
  const [n0, n1] = counters
  if (n0 === undefined || n1 === undefined) return [`torn counter: ${counters.join(', ')}`]
  if (!(n1 <= n0 && n0 <= n1 + 1)) return [`order broken: disk0 is at ${n0}, disk1 at ${n1}`]
  const expected = modelDisks.map(({ sizeBytes }) => Buffer.alloc(sizeBytes))
  for (let n = 1; n <= n0; n++) apply(expected, operation(seed, n))
  for (const [index, disk] of expected.entries()) encodeCounter(index === 0 ? n0 : n1).copy(disk)
  const inFlight = operation(seed, n0 + 1)
  return expected.flatMap((want, index) => {
    const got = disks[index]
    if (!got || got.length < want.length)
      return [`disk${index} is ${got?.length ?? 0} bytes, not ${want.length}`]
    return differingBlocks(want, got)
      .filter((block) => !(inFlight.disk === index && inFlight.blockIndex === block && holds(got, inFlight)))
      .map((block) => `disk${index} block ${block} differs from the guest's state after operation ${n0}`)
  })
}

function apply(disks: readonly Buffer[], { disk, blockIndex, content }: Operation): void {
  const target = disks[disk]
  if (target) content.copy(target, blockIndex * BLOCK_BYTES)
}

function holds(disk: Buffer, { blockIndex, content }: Operation): boolean {
  return disk.subarray(blockIndex * BLOCK_BYTES, blockIndex * BLOCK_BYTES + content.length).equals(content)
}

function differingBlocks(a: Buffer, b: Buffer): readonly number[] {
  const differing: number[] = []
  for (let offset = 0; offset < a.length; offset += BLOCK_BYTES) {
    const end = Math.min(a.length, offset + BLOCK_BYTES)
    if (!a.subarray(offset, end).equals(b.subarray(offset, end))) differing.push(offset / BLOCK_BYTES)
  }
  return differing
}
