/** Whether points are what they should be, in the judgement of QEMU. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { ReplicaStore } from '../port.ts'
import { type ModelDelta, type ModelDisk, testVm, writeRaw } from './model-vm.ts'

function qemuImg(...args: string[]): string {
  return execFileSync('qemu-img', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Throws what qemu-img prints when a file has an error or a leak. */
export function checkLayer(path: string): void {
  qemuImg('check', '-f', 'qcow2', path)
}

export function compareWithModel(
  path: string,
  format: 'raw' | 'qcow2',
  disk: ModelDisk,
  scratch: string,
): void {
  const raw = join(scratch, 'truth.raw')
  writeRaw(disk, raw)
  // `compare` forgives another size when the rest is zeros (its strict mode compares allocation as well).
  const sizeBytes = format === 'raw' ? statSync(path).size : virtualSize(path)
  if (sizeBytes !== disk.sizeBytes) throw new Error(`${path} has ${sizeBytes} bytes`)
  qemuImg('compare', '-f', format, '-F', 'raw', path, raw)
}

/** Bytes 24 to 31 of a qcow2 header. */
function virtualSize(path: string): number {
  const fd = openSync(path, 'r')
  const bytes = Buffer.alloc(8)
  readSync(fd, bytes, 0, 8, 24)
  closeSync(fd)
  return Number(bytes.readBigUInt64BE())
}

/** Every point listed: each disk is the model's of that point, in the judgement of `qemu-img compare`. Answers their seqs. */
export function comparePoints(
  store: ReplicaStore,
  history: ReadonlyMap<number, ModelDelta>,
  scratch: string,
): number[] {
  return store.points(testVm).map((point) => {
    for (const disk of historyOf(history, point.seq).disks) {
      compareWithModel(store.layerPath(testVm, point, disk.diskId), 'qcow2', disk, scratch)
    }
    return point.seq
  })
}

function historyOf(history: ReadonlyMap<number, ModelDelta>, seq: number): ModelDelta {
  const delta = history.get(seq)
  if (!delta) throw new Error(`point ${seq} was never sent`)
  return delta
}

/** The same, and each layer passes `qemu-img check`. */
export function verifyPoints(
  store: ReplicaStore,
  history: ReadonlyMap<number, ModelDelta>,
  scratch: string,
): number[] {
  for (const point of store.points(testVm)) {
    for (const { diskId } of historyOf(history, point.seq).disks) {
      checkLayer(store.layerPath(testVm, point, diskId))
    }
  }
  return comparePoints(store, history, scratch)
}
