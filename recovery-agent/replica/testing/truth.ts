/** Whether points are what they should be, in the judgement of QEMU. */
import { execFileSync } from 'node:child_process'
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
  const info = JSON.parse(qemuImg('info', '-f', format, '--output=json', path)) as { 'virtual-size': number }
  const sectors = Math.ceil(disk.sizeBytes / 512)
  if (info['virtual-size'] !== sectors * 512) throw new Error(`${path} has ${info['virtual-size']} bytes`)
  qemuImg('compare', '-f', format, '-F', 'raw', path, raw)
}

/** Every point listed: each layer passes `qemu-img check`, each disk is the model's of that point. Answers their seqs. */
export function verifyPoints(
  store: ReplicaStore,
  history: ReadonlyMap<number, ModelDelta>,
  scratch: string,
): number[] {
  return store.points(testVm).map((point) => {
    const delta = history.get(point.seq)
    if (!delta) throw new Error(`point ${point.seq} was never sent`)
    for (const disk of delta.disks) {
      const path = store.layerPath(testVm, point, disk.diskId)
      checkLayer(path)
      compareWithModel(path, 'qcow2', disk, scratch)
    }
    return point.seq
  })
}
