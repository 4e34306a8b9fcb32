/**
 * The life of a replica as a list of steps, each of which may be interrupted anywhere and run again. Everything comes
 * from the seed, so that another process can go on where one was killed.
 */
import { defined } from '#shared/assert.ts'
import type { DiskId, OverlayId } from '#shared/ids.ts'
import { seededRng } from '#shared/rng.ts'
import type { ReplicaStore } from '../port.ts'
import { batchesOf, type ModelDelta, ModelVm, prepareReplica, send, testVm } from './model-vm.ts'
import { newestFirst } from './newest-first.ts'

const disk0 = 'disk-0' as DiskId

export interface Life {
  readonly vm: ModelVm
  readonly history: ReadonlyMap<number, ModelDelta>
  readonly steps: readonly ((store: ReplicaStore) => void)[]
}

export function lifeOf(seed: number): Life {
  const vm = new ModelVm(seededRng(seed), { 'disk-0': 24 * 65_536 + 512, 'disk-1': 6 * 65_536 })
  const history = new Map<number, ModelDelta>()
  const deltas: ModelDelta[] = []
  const next = (change: () => void, kind: 'delta' | 'sync' = 'delta') => {
    change()
    const delta = vm.capture({ kind })
    history.set(delta.header.seq, delta)
    deltas.push(delta)
  }
  next(() => vm.scribble(12), 'sync')
  next(() => vm.scribble(5))
  next(() => vm.resize(disk0, 9000 * 65_536))
  next(() => vm.scribble(6, 20))
  next(() => vm.scribble(5, 8), 'sync')
  next(() => vm.scribble(4))
  const [first, second, third, fourth, fifth, sixth] = deltas.map((delta) => (store: ReplicaStore) => {
    deliver(store, delta)
  })
  // The target was away meanwhile.
  for (let waiting = 0; waiting < 4; waiting++) next(() => vm.scribble(5, 20))
  const [seventh, eighth, ninth, tenth] = deltas.slice(6).map((delta) => [delta])
  const { union, backfills } = newestFirst([
    seventh ?? [],
    eighth ?? [],
    [...(ninth ?? []), ...(tenth ?? [])],
  ])
  const newestThenOlder = [union, ...backfills].map((delta) => (store: ReplicaStore) => deliver(store, delta))
  const pruneAll = (store: ReplicaStore) => {
    while (store.prune(testVm, 0));
  }
  const overlay = (overlayId: string, format: 'raw' | 'qcow2') => (store: ReplicaStore) => {
    store.createOverlay({
      vmId: testVm,
      overlayId: overlayId as OverlayId,
      point: { epoch: 1, seq: 2 },
      purpose: 'test',
      format,
    })
  }
  const steps = [
    (store: ReplicaStore) => prepareReplica(store, vm, { retentionPoints: 1, retentionIntervalSeconds: 0 }),
    first,
    second,
    overlay('ov-raw', 'raw'),
    overlay('ov-qcow2', 'qcow2'),
    third,
    fourth,
    pruneAll,
    (store: ReplicaStore) => interruptedDelivery(store, defined(deltas[4], 'fifth delta')),
    (store: ReplicaStore) => store.discardPartial(testVm),
    fifth,
    (store: ReplicaStore) => store.removeOverlay(testVm, 'ov-raw' as OverlayId),
    (store: ReplicaStore) => store.removeOverlay(testVm, 'ov-qcow2' as OverlayId),
    sixth,
    pruneAll,
    // What a store that lost its database has to know before it takes any.
    (store: ReplicaStore) => void store.verify({ vmId: testVm, percent: 0, seed: 0 }),
    ...newestThenOlder,
    (store: ReplicaStore) => store.keepBackfills(testVm, []),
    pruneAll,
  ]
  return { vm, history, steps: steps.map((step) => defined(step, 'step')) }
}

/** A delta as a source sends it; a synchronization writes some of its blocks twice. */
export function deliver(store: ReplicaStore, delta: ModelDelta): void {
  const writer = store.begin(delta.header)
  if (delta.header.kind !== 'sync') {
    delta.batches.slice(0, 2).forEach((batch) => {
      writer.write(batch)
      writer.sync()
    })
    const outcome = send({ ...bound(writer), resume: writer.sync() }, delta)
    if (outcome.kind !== 'sealed') throw new Error(`diverged: ${outcome.diskIds.join()}`)
    return
  }
  for (const round of [0, 1]) {
    for (const disk of delta.disks) {
      const own = delta.batches.filter(({ diskId }) => diskId === disk.diskId)
      const indexes = own.flatMap((batch) => batch.blockIndexes)
      const wrong = new Map(indexes.map((index) => [index, Buffer.alloc(65_536, index + 1)]))
      const content = round === 0 ? { ...disk, blocks: wrong } : disk
      const batches = batchesOf(content, indexes)
      for (const batch of batches) writer.write({ ...batch, batch: batch.batch + round * batches.length })
      writer.sync()
    }
  }
  const outcome = writer.seal(delta.manifest)
  if (outcome.kind !== 'sealed') throw new Error(`diverged: ${outcome.diskIds.join()}`)
}

function interruptedDelivery(store: ReplicaStore, delta: ModelDelta): void {
  const known = store.get(testVm)?.newestSeq ?? 0
  if (known >= delta.header.seq) return
  const writer = store.begin(delta.header)
  for (const batch of delta.batches.slice(0, 1)) writer.write(batch)
  writer.sync()
  writer.close()
}

function bound(writer: ReturnType<ReplicaStore['begin']>) {
  return {
    write: writer.write.bind(writer),
    sync: writer.sync.bind(writer),
    seal: writer.seal.bind(writer),
    close: writer.close.bind(writer),
  }
}
