/** A target whose merges do not keep up: the source is slowed, then kept waiting, and nothing breaks. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { LONG_CHAIN, MAX_CHAIN } from '#shared/policy/merge-pace.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'
import { compareWithModel } from '../testing/truth.ts'

let fixture: StoreFixture

beforeEach(() => {
  fixture = new StoreFixture()
})

afterEach(() => fixture[Symbol.dispose]())

it.skipIf(!hasTool('qemu-img'))(
  'slows its source with a long chain, refuses more than a hypervisor opens, and takes deltas again once it has merged',
  () => {
    const vm = new ModelVm(seededRng(1), { 'disk-0': 40 * 65_536 })
    prepareReplica(fixture.store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
    const deliverUpTo = (points: number) => {
      while (vm.seq < points) {
        vm.scribble(1)
        fixture.deliver(vm.capture())
      }
      return fixture.store.slowDownMs(testVm)
    }
    expect(deliverUpTo(LONG_CHAIN)).toBe(0)
    const slowedMs = [LONG_CHAIN + 1, LONG_CHAIN + 60, MAX_CHAIN].map(deliverUpTo)
    expect(slowedMs[0]).toBeGreaterThan(0)
    expect(slowedMs).toEqual([...new Set(slowedMs)].sort((a, b) => a - b))

    vm.scribble(2)
    const refused = vm.capture()
    expect(() => fixture.store.begin(refused.header)).toThrow(expect.objectContaining({ code: 'chain-full' }))
    const newest = defined(fixture.store.points(testVm).at(-1), 'newest point')
    const disk = defined(fixture.history.get(newest.seq)?.disks[0], 'disk')
    const path = fixture.store.layerPath(testVm, newest, disk.diskId)
    compareWithModel(path, 'qcow2', disk, fixture.scratch)

    while (fixture.store.prune(testVm, 0));
    expect(fixture.store.slowDownMs(testVm)).toBe(0)
    fixture.deliver(refused)
    expect(fixture.verified()).toEqual([MAX_CHAIN, MAX_CHAIN + 1])
  },
)
