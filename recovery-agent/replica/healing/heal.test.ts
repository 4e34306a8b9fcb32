/** Healing that dies at any of its steps: what was damaged is damaged or whole afterwards, and never believed wrongly. */
import { closeSync, openSync, readdirSync, renameSync, truncateSync, writeSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { systemClock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import type { DiskId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import type { ReplicaCrashPoint } from '../crash-points.ts'
import { nodeFiles, type ReplicaFiles } from '../files.ts'
import { openReplicaStore } from '../store.ts'
import { StoreFixture } from '../testing/fixture.ts'
import { losingFiles } from '../testing/losing-files.ts'
import { ModelVm, prepareReplica, testVm } from '../testing/model-vm.ts'

class Crash extends Error {}

const disk0 = 'disk-0' as DiskId
const full = { vmId: testVm, percent: 100, seed: 1 }

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

const path = (seq: number) => fixture.store.layerPath(testVm, { epoch: 1, seq }, disk0)

function swap(): void {
  const [a, b] = [path(2), path(3)]
  renameSync(a, `${a}.x`)
  renameSync(b, a)
  renameSync(`${a}.x`, b)
}

function rotBlock(): void {
  const layer = path(2)
  const file = nodeFiles.open(layer, 'read')
  const cluster = defined(
    [...readLayer(file, layer).map.entries()].find(([, state]) => state > 0),
    'a data block',
  )[1]
  file.close()
  const fd = openSync(layer, 'r+')
  writeSync(fd, Buffer.alloc(700, 0x5a), 0, 700, cluster * 65_536 + 4000)
  closeSync(fd)
}

/** Every version of a block that was ever sent. */
function askSource(): void {
  const wanted = fixture.store.repairWanted(testVm, { skip: 0, maxBlocks: 16 })
  for (const blockIndex of wanted?.blockIndexes ?? [])
    for (const { disks } of fixture.history.values()) {
      const block = disks.find(({ diskId }) => diskId === wanted?.diskId)?.blocks.get(blockIndex)
      if (block && wanted)
        fixture.store.repair({
          vmId: testVm,
          diskId: wanted.diskId,
          blockIndexes: [blockIndex],
          blocks: [block],
        })
    }
}

const cases: readonly { readonly name: ReplicaCrashPoint; readonly damage: () => void }[] = [
  { name: 'replica.names-aside', damage: swap },
  { name: 'replica.rebuild-written', damage: () => truncateSync(path(1), 300_000) },
  { name: 'replica.rebuild-renamed', damage: () => truncateSync(path(1), 300_000) },
  { name: 'replica.repair-written', damage: rotBlock },
  { name: 'replica.repair-synced', damage: rotBlock },
]

describe.skipIf(!hasTool('qemu-img'))('healing that dies on the way', () => {
  it.each(cases)('at $name: is repeated, and ends whole', ({ name, damage }) => {
    let passed = 0
    const crash: CrashPoint = (at) => {
      if (at === name && ++passed === 1) throw new Crash(name)
    }
    damage()
    fixture.reopen(crash)
    const heal = () => {
      fixture.store.verify(full)
      askSource()
    }
    expect(heal).toThrow(Crash)
    expect(passed).toBe(1)
    fixture.reopen()
    const shown = fixture.store.points(testVm).filter(({ damaged }) => damaged)
    // Nobody took it back yet.
    if (name.includes('repair') || name.includes('rebuild')) expect(shown.length).toBeGreaterThan(0)
    for (let round = 0; round < 4; round++) heal()
    expect(fixture.store.verify(full).damagedPoints).toEqual([])
    expect(fixture.verified()).toEqual([1, 2, 3])
  })

  it('of a place the disk has lost leaves that one damaged, and brings the others back', () => {
    let lostAt: number | undefined
    const files: ReplicaFiles = {
      ...nodeFiles,
      open(path, mode) {
        const file = nodeFiles.open(path, mode)
        if (mode !== 'write') return file
        const write: BlockFile['write'] = (pieces, offsetBytes) => {
          lostAt ??= offsetBytes
          if (offsetBytes === lostAt) throw Object.assign(new Error('i/o error, write'), { code: 'EIO' })
          file.write(pieces, offsetBytes)
        }
        return {
          read: (target, offsetBytes) => file.read(target, offsetBytes),
          write,
          sync: () => file.sync(),
          truncate: (sizeBytes) => file.truncate(sizeBytes),
          sizeBytes: () => file.sizeBytes(),
          punchHole: (offsetBytes, bytes) => file.punchHole(offsetBytes, bytes),
          close: () => file.close(),
        }
      },
    }
    const lost = path(2)
    const file = nodeFiles.open(lost, 'read')
    const clusters = [...readLayer(file, lost).map.entries()].flatMap(([, state]) =>
      state > 0 ? [state] : [],
    )
    file.close()
    const fd = openSync(lost, 'r+')
    for (const cluster of clusters.slice(0, 3)) writeSync(fd, Buffer.alloc(9, 0x5a), 0, 9, cluster * 65_536)
    closeSync(fd)
    fixture.store.verify(full)
    fixture.store[Symbol.dispose]()
    fixture.store = openReplicaStore({
      dir: fixture.dir,
      clock: systemClock,
      log: silentLog,
      crashPoint: noCrash,
      files,
    })
    askSource()
    expect(fixture.store.proof(testVm)[0]?.badBlocks).toBe(1)
  })

  it('that finds no room leaves nothing behind, and is repeated when there is some', () => {
    const files = losingFiles()
    fixture[Symbol.dispose]()
    fixture = new StoreFixture(files)
    vm = new ModelVm(seededRng(6), { 'disk-0': 60 * 65_536 })
    prepareReplica(fixture.store, vm, { retentionPoints: 15, retentionIntervalSeconds: 0 })
    vm.scribble(90)
    fixture.deliver(vm.capture())
    const fd = openSync(path(1), 'r+')
    writeSync(fd, Buffer.alloc(3, 0x5a), 0, 3, 5)
    closeSync(fd)
    files.limitWrites(10 * 65_536)
    expect(() => fixture.store.verify(full)).toThrow(expect.objectContaining({ code: 'disk-full' }))
    expect(readdirSync(dirname(path(1)))).toEqual([basename(path(1))])
    files.limitWrites(undefined)
    expect(fixture.store.verify(full).damagedPoints).toEqual([])
    expect(fixture.verified()).toEqual([1])
  })
})
