import { closeSync, openSync, writeSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import type { Clock } from '#shared/clock.ts'
import { readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import type { DiskId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { seededRng } from '#shared/rng.ts'
import { nodeFiles } from '../replica/files.ts'
import type { ReplicaStore } from '../replica/port.ts'
import { StoreFixture } from '../replica/testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../replica/testing/model-vm.ts'
import type { RaiseEvent } from '../reports/events.ts'
import { repairRound } from '../stream/target/repair-round.ts'
import { createScrubber, type ScrubberOptions } from './scrubber.ts'

const HOUR_MS = 3_600_000

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(5), { 'disk-0': 30 * 65_536, 'disk-1': 8 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
  for (let point = 0; point < 3; point++) {
    vm.scribble(6)
    fixture.deliver(vm.capture())
  }
})

afterEach(() => fixture[Symbol.dispose]())

/** Sleeping is what makes time pass. */
function sleepingClock(until: () => boolean, stop: AbortController): Clock & { readonly sleptMs: number } {
  let nowMs = 0
  return {
    get sleptMs() {
      return nowMs
    },
    now: () => nowMs,
    monotonicMs: () => nowMs,
    async sleep(ms, signal) {
      signal?.throwIfAborted()
      nowMs += ms
      if (until()) stop.abort(new Error('seen enough'))
    },
  }
}

/** The real store, as it answers over its thread. */
function asRemote(store: ReplicaStore): ScrubberOptions['store'] {
  return {
    list: async () => store.list(),
    get: async (vmId) => store.get(vmId),
    points: async (vmId) => store.points(vmId),
    proof: async (vmId) => store.proof(vmId),
    scrub: async (vmId, budgetMs) => store.scrub(vmId, budgetMs),
    verify: async (request) => store.verify(request),
    heal: async (vmId) => store.heal(vmId),
  }
}

function scrubberWith(options: {
  clock: Clock
  raise?: RaiseEvent
  repair?: ScrubberOptions['server']['repair']
  verify?: ScrubberOptions['store']['verify']
}) {
  const { store } = fixture
  return createScrubber({
    store: { ...asRemote(store), ...(options.verify ? { verify: options.verify } : {}) },
    server: {
      isReceiving: () => false,
      repair:
        options.repair ??
        ((vmId) =>
          repairRound(vmId, {
            store: {
              repairWanted: async (id, wanted) => store.repairWanted(id, wanted),
              repair: async (request) => store.repair(request),
            },
            ask: async () => undefined,
          })),
    },
    reports: { publish: async () => {} },
    onHealed: () => {},
    raise: options.raise ?? (() => {}),
    clock: options.clock,
    rng: seededRng(1),
    log: silentLog,
  })
}

function rot(seq: number): void {
  const path = fixture.store.layerPath(testVm, { epoch: 1, seq }, 'disk-0' as DiskId)
  const file = nodeFiles.open(path, 'read')
  const [, cluster] = defined(
    [...readLayer(file, path).map.entries()].find(([, state]) => state > 0),
    'a data block',
  )
  file.close()
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.from([0x5a]), 0, 1, cluster * 65_536 + 4000)
  closeSync(fd)
}

describe('the scrubber', () => {
  it('has read every block within the hours of the policy, and takes its time', async () => {
    const stop = new AbortController()
    const isProved = () => fixture.store.proof(testVm).every((disk) => disk.provedAtMs !== null)
    const clock = sleepingClock(isProved, stop)
    await scrubberWith({ clock }).run(stop.signal)
    const { policy } = defined(fixture.store.get(testVm), 'replica')
    expect(clock.sleptMs).toBeLessThanOrEqual(policy.proofHours * HOUR_MS)
    for (const disk of fixture.store.proof(testVm)) expect(disk).toMatchObject({ percent: 100, badBlocks: 0 })
  })

  it('goes on after a restart where it stopped, and finds rot behind that', async () => {
    const first = fixture.store.scrub(testVm, 0)
    expect(first.passEnded).toBe(false)
    const before = fixture.store.proof(testVm)
    fixture.reopen()
    expect(fixture.store.proof(testVm)).toEqual(before)
    rot(3)
    const codes: string[] = []
    const stop = new AbortController()
    const clock = sleepingClock(() => codes.length > 0, stop)
    const raise: RaiseEvent = ({ code, severity }) => codes.push(`${severity} ${code}`)
    await scrubberWith({ clock, raise }).run(stop.signal)
    // There is no source to heal it from.
    expect(codes).toEqual(['critical replica-damaged'])
    expect(fixture.store.points(testVm).map(({ damaged }) => damaged)).toEqual([false, false, true])
    expect(fixture.store.proof(testVm)[0]?.badBlocks).toBe(1)
  })

  it('reads nothing of a replica whose policy wants no proof', async () => {
    const replica = defined(fixture.store.get(testVm), 'replica')
    fixture.store.setPolicy(testVm, { ...replica.policy, proofHours: 0 })
    let slept = 0
    const stop = new AbortController()
    await scrubberWith({ clock: sleepingClock(() => ++slept > 50, stop) }).run(stop.signal)
    expect(fixture.store.proof(testVm).map(({ provedAtMs }) => provedAtMs)).toEqual([null, null])
  })

  it('a sample is spread evenly and of the size that was asked for', () => {
    const { disks } = fixture.store.verify({ vmId: testVm, percent: 25, seed: 3 })
    for (const { checkedBlocks, totalBlocks } of disks) {
      expect(checkedBlocks).toBeGreaterThan(0)
      expect(checkedBlocks).toBeLessThan(totalBlocks)
    }
  })

  it('makes the source synchronize when more is damaged in the newest point than is asked for one by one', async () => {
    rot(3)
    const clock = sleepingClock(() => true, new AbortController())
    const repair = async () => ({ healedBlocks: 0, goneBlocks: 1024, end: 'enough-asked' as const })
    const scrubber = scrubberWith({ clock, repair })
    await scrubber.verify({ vmId: testVm, percent: 100 })
    expect(await scrubber.unhealable(testVm, 4)).toMatchObject({ code: 'replica-damaged' })
    expect(await scrubber.unhealable(testVm, 5)).toBeUndefined()
  })

  it('looks at the tables of a replica whose hash tree is damaged twice in a row', async () => {
    const asked: number[] = []
    const { store } = fixture
    const clock = sleepingClock(() => true, new AbortController())
    const looked = Promise.withResolvers<void>()
    const scrubber = scrubberWith({
      clock,
      verify: async (request) => {
        asked.push(request.percent)
        looked.resolve()
        return store.verify(request)
      },
    })
    scrubber.treeDamaged(testVm)
    expect(asked).toEqual([])
    scrubber.treeDamaged(testVm)
    await looked.promise
    expect(asked).toEqual([0])
  })

  it('goes on with a healing that broke off once the next point has come', async () => {
    rot(3)
    const clock = sleepingClock(() => true, new AbortController())
    let rounds = 0
    const again = Promise.withResolvers<void>()
    const repair = async () => {
      if (++rounds === 2) again.resolve()
      return { healedBlocks: 0, goneBlocks: 0, end: 'no-answer' as const }
    }
    const scrubber = scrubberWith({ clock, repair })
    await scrubber.verify({ vmId: testVm, percent: 100 })
    expect(rounds).toBe(1)
    expect(await scrubber.unhealable(testVm, 4)).toBeUndefined()
    await again.promise
  })
})
