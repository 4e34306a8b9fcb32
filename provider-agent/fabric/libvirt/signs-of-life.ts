/**
 * What a guest does that QEMU alone would not: its agent answers a ping, or, without an agent, it writes to its disks.
 * Firmware reads disks but does not write them, so that a guest that writes has booted.
 */
import type { Clock } from '#shared/clock.ts'
import { hasAgent } from '#shared/libvirt/domain.ts'
import type { FoundDomain } from './hosts.ts'

const PING = '{"execute":"guest-ping"}'
const PING_TIMEOUT_SECONDS = '3'

interface Seen {
  /** libvirt numbers each start of a domain anew. */
  readonly run: string
  readonly atMs: number | null
  readonly writes: number
}

export class SignsOfLife {
  readonly #clock: Clock
  readonly #seen = new Map<string, Seen>()
  readonly #expected = new Set<string>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** It is about to be started: whatever it writes from now on is a sign. */
  expect(uuid: string): void {
    this.#seen.delete(uuid)
    this.#expected.add(uuid)
  }

  /** Milliseconds since the newest sign since it started; null: none was seen yet, or it is off. */
  async ageMs({ live, uuid, host }: FoundDomain): Promise<number | null> {
    if (!live) {
      this.#seen.delete(uuid)
      return null
    }
    const run = live.getAttribute('id') ?? ''
    const before = this.#seen.get(uuid)
    const known = before?.run === run ? before : undefined
    const now = () => this.#clock.now()
    if (hasAgent(live)) {
      const isAlive = await host.virsh
        .run(['qemu-agent-command', uuid, PING, '--timeout', PING_TIMEOUT_SECONDS])
        .then(
          () => true,
          () => false,
        )
      this.#seen.set(uuid, { run, atMs: isAlive ? now() : (known?.atMs ?? null), writes: known?.writes ?? 0 })
    } else {
      const [stats] = await host.virsh.batch([['domstats', uuid, '--block']])
      const writes = writesIn(stats ?? '')
      const base = known?.writes ?? (this.#expected.has(uuid) ? 0 : writes)
      this.#seen.set(uuid, { run, atMs: writes > base ? now() : (known?.atMs ?? null), writes })
    }
    this.#expected.delete(uuid)
    const atMs = this.#seen.get(uuid)?.atMs ?? null
    return atMs === null ? null : Math.max(0, now() - atMs)
  }
}

function writesIn(stats: string): number {
  const counts = [...stats.matchAll(/block\.\d+\.wr\.reqs=(\d+)/g)].map(([, count]) => Number(count))
  return counts.reduce((sum, count) => sum + count, 0)
}
