/**
 * Compares the MACs that could protect a channel frame. Ratios, not megabytes per second, go into docs/performance.md:
 * they hold from machine to machine far better. Run: node scripts/benchmarks/mac.ts [--json]
 */
import { createHmac, createSecretKey, randomBytes } from 'node:crypto'
import { Blake3Hasher } from '@napi-rs/blake-hash'
import { gmac } from '#shared/channel/mac.ts'

interface Candidate {
  readonly name: string
  readonly tag: (sequence: number, head: Buffer, tail: Buffer) => Uint8Array
}

const key = randomBytes(32)
const secret = createSecretKey(key)
const ours = gmac(key, 'client-to-server')
const candidates: readonly Candidate[] = [
  {
    name: 'HMAC-SHA256',
    tag: (_sequence, head, tail) => createHmac('sha256', secret).update(head).update(tail).digest(),
  },
  { name: 'GMAC', tag: (sequence, head, tail) => ours.tag(sequence, [head, tail]) },
  {
    name: 'keyed BLAKE3',
    tag: (_sequence, head, tail) => Blake3Hasher.newKeyed(key).update(head).update(tail).digestBuffer(),
  },
]
const frameSizes = [1024, 256 * 1024, 1024 * 1024]
const bytesPerRound = 192 * 1024 * 1024
const maxCallsPerRound = 50_000
/** The best of several rounds, taken in turn, so that a neighbour's load does not decide. */
const rounds = 5

function secondsPerCall(candidate: Candidate, frameBytes: number): number {
  const head = randomBytes(80)
  const tail = randomBytes(frameBytes - head.length)
  const calls = Math.min(maxCallsPerRound, Math.ceil(bytesPerRound / frameBytes))
  const started = performance.now()
  for (let sequence = 0; sequence < calls; sequence++) candidate.tag(sequence, head, tail)
  return (performance.now() - started) / 1000 / calls
}

const results = frameSizes.map((frameBytes) => {
  const best = candidates.map(() => Number.POSITIVE_INFINITY)
  for (let round = 0; round < rounds; round++)
    candidates.forEach((candidate, index) => {
      best[index] = Math.min(best[index] ?? 0, secondsPerCall(candidate, frameBytes))
    })
  const baseline = best[0] ?? 0
  return {
    frameBytes,
    macs: candidates.map(({ name }, index) => {
      const seconds = best[index] ?? 0
      return {
        name,
        microseconds: Number((seconds * 1e6).toFixed(2)),
        speedAgainstHmac: Number((baseline / seconds).toFixed(2)),
      }
    }),
  }
})

if (process.argv.includes('--json')) {
  process.stdout.write(`${JSON.stringify(results)}\n`)
} else {
  for (const { frameBytes, macs } of results) {
    process.stdout.write(`${frameBytes / 1024} KiB\n`)
    for (const { name, microseconds, speedAgainstHmac } of macs)
      process.stdout.write(
        `  ${name.padEnd(14)} ${String(microseconds).padStart(9)} µs   ${speedAgainstHmac} × HMAC-SHA256\n`,
      )
  }
}
