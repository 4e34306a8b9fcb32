/**
 * A seeded run of writes, copy cycles, broken links and restarts. Afterwards replication must go on by itself, and every
 * point must equal the disks as they were at its capture time, as qemu-img sees it. HOTSITE_SEED repeats a run.
 */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { intBelow, seededRng } from '#shared/rng.ts'
import { openFaultyLink } from './faulty-link.ts'
import { compareImages, diskPath, twoHosts, VM } from './two-hosts.ts'

const never = new AbortController().signal
const STEPS = 14
const seed = Number(process.env['HOTSITE_SEED'] ?? Math.floor(Math.random() * 2 ** 31))

interface Truth {
  readonly fromMs: number
  readonly paths: readonly string[]
}

test(`whatever breaks, every point is right (HOTSITE_SEED=${seed})`, async () => {
  const rng = seededRng(seed)
  const upTo = (max: number) => 1 + intBelow(rng, max)
  // This process is the writer, and nobody can suspend it: it keeps still itself while a snapshot is taken.
  let snapshots = 0
  const counted = async <T>(snapshot: Promise<T>): Promise<T> => {
    snapshots += 1
    return await snapshot.finally(() => {
      snapshots -= 1
    })
  }
  await using hosts = await twoHosts({
    diskBytes: [8 << 20, (2 << 20) + 4096],
    eastOverrides: {
      wrapEngine: (engine) => ({
        ...engine,
        capture: (...args) => counted(engine.capture(...args)),
        openSync: (...args) => counted(engine.openSync(...args)),
      }),
    },
  })
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  const truths: Truth[] = []
  const remember = () => {
    const paths = hosts.vm.file.disks.map((_disk, index) => {
      const path = join(hosts.vm.dir, `truth-${truths.length}-${index}`)
      copyFileSync(diskPath(hosts.vm, index), path)
      return path
    })
    truths.push({ fromMs: Date.now(), paths })
  }
  const copyNow = () => hosts.east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
  const attempts: Promise<unknown>[] = []
  const steps: Record<string, () => Promise<void> | void> = {
    async write() {
      // A point taken in this very millisecond could show either state.
      do await tick()
      while (snapshots > 0)
      hosts.write(0, intBelow(rng, 100), upTo(20), upTo(1000))
      hosts.write(1, intBelow(rng, 20), upTo(12), upTo(1000))
      remember()
      await tick()
    },
    // It may be cut short by a restart; the next one counts.
    copy: () => void attempts.push(copyNow().catch(() => {})),
    copyAndWait: async () => void (await copyNow()),
    cut: () => link.cut(),
    flip: () => link.flipNextBit(),
    async stall() {
      link.setStalled(true)
      await new Promise((resolve) => setTimeout(resolve, upTo(100)))
      link.setStalled(false)
    },
    async restartEast() {
      await hosts.east.stop()
      await hosts.east.start()
    },
    async restartWest() {
      await hosts.west.stop()
      await hosts.west.start()
    },
    async resync() {
      await hosts.east.agent.handlers['replication.resync']({ vmId: VM, cause: 'requested' }, never)
    },
  }
  // Writes and copies more often than faults.
  const names = [...Object.keys(steps), 'write', 'write', 'copy', 'copy', 'cut']

  await steps['write']?.()
  await hosts.protect({ via: link.port, policy: { retentionPoints: 15 } })
  for (let step = 0; step < STEPS; step++) await steps[names[intBelow(rng, names.length)] ?? 'write']?.()
  await steps['write']?.()
  const last = await copyNow()
  await Promise.all(attempts)

  const points = await hosts.west.agent.store.points(VM)
  const newest = points.toSorted((a, b) => b.seq - a.seq)[0]
  expect(newest?.seq).toBe(last.point.seq)
  for (const point of points) {
    const truth = truths.findLast(({ fromMs }) => fromMs <= point.capturedAtMs)
    expect([point.seq, point.attested, truth !== undefined]).toEqual([point.seq, true, true])
    for (const [index, disk] of hosts.vm.file.disks.entries()) {
      const layer = await hosts.west.agent.store.layerPath(VM, point, disk.id)
      compareImages(layer, truth?.paths[index] ?? 'none')
    }
  }
  expect(hosts.east.report()).toMatchObject({ activity: 'replicating', error: null })
})

function tick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 2))
}
