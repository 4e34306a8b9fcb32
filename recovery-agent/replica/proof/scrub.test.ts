import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import type { DiskId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'

const disk = 'disk-0' as DiskId
const GROUPS = 12

let fixture: StoreFixture
let vm: ModelVm

beforeEach(() => {
  fixture = new StoreFixture()
  vm = new ModelVm(seededRng(8), { [disk]: GROUPS * 256 * 65_536 })
  prepareReplica(fixture.store, vm, { retentionPoints: 0, retentionIntervalSeconds: 0 })
  for (let group = 0; group < GROUPS; group++)
    for (let i = 0; i < 4; i++) vm.set(disk, group * 256 + i * 50, vm.block())
  fixture.deliver(vm.capture())
})

afterEach(() => fixture[Symbol.dispose]())

const proof = () => defined(fixture.store.proof(testVm)[0], 'proof')

/** A step of the pass at a time, until something of a layer was read. */
function readSome(): boolean {
  for (;;) {
    const { checkedBlocks, passEnded } = fixture.store.scrub(testVm, 0)
    if (passEnded) return true
    if (checkedBlocks > 0) return false
  }
}

describe('the rolling proof', () => {
  it('comes to its end although the layer it reads is merged into the next one all the time', () => {
    let cycles = 0
    while (!readSome()) {
      expect(++cycles).toBeLessThan(GROUPS * 3)
      vm.set(disk, 3, vm.block())
      fixture.deliver(vm.capture())
      while (fixture.store.prune(testVm, 0));
    }
    expect(proof()).toMatchObject({ percent: 100, badBlocks: 0 })
    expect(proof().provedAtMs).not.toBeNull()
  })

  it('is at its end when somebody had everything read, wherever it was', () => {
    expect(readSome()).toBe(false)
    expect(proof()).toMatchObject({ provedAtMs: null })
    const beganAtMs = Date.now()
    fixture.store.verify({ vmId: testVm, percent: 100, seed: 1 })
    expect(proof().percent).toBe(100)
    expect(proof().provedAtMs).toBeGreaterThanOrEqual(beganAtMs)
    fixture.reopen()
    const { provedAtMs } = proof()
    expect(proof().percent).toBe(100)
    expect(readSome()).toBe(false)
    expect(proof()).toMatchObject({ provedAtMs })
    expect(proof().percent).toBeLessThan(100)
  })

  it('is not moved by a sample', () => {
    fixture.store.verify({ vmId: testVm, percent: 50, seed: 1 })
    expect(proof()).toMatchObject({ percent: 0, provedAtMs: null })
  })

  it('reads a layer on while it is being merged', () => {
    let cycles = 0
    for (let block = 0; block < GROUPS; block++) vm.set(disk, block * 256 + 7, vm.block())
    fixture.deliver(vm.capture())
    expect(readSome()).toBe(false)
    // Marked, and then nothing of it goes on.
    fixture.reopen((name) => {
      if (name === 'replica.prune-marked') throw new Error('no further')
    })
    expect(() => fixture.store.prune(testVm, 0)).toThrow('no further')
    while (!readSome()) expect(++cycles).toBeLessThan(GROUPS * 3)
    expect(cycles).toBeGreaterThan(GROUPS)
    expect(proof()).toMatchObject({ percent: 100, badBlocks: 0 })
  })
})
