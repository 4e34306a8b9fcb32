/** Whether points are what they should be, in the judgement of QEMU. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import type { ReplicaStore } from '../port.ts'
import { type ModelDelta, type ModelDisk, testVm, writeRaw } from './model-vm.ts'

type Command = readonly string[]

/** All of them from one shell: to start a program costs this process, with all its memory, more than it costs the program. */
function qemuImg(commands: readonly Command[]): void {
  const quoted = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`
  const lines = commands.map((words) => `qemu-img ${words.map(quoted).join(' ')} || exit`)
  execFileSync('sh', ['-c', lines.join('\n')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

const check = (path: string): Command => ['check', '-f', 'qcow2', path]

/** Throws what qemu-img prints when a file has an error or a leak. */
export function checkLayer(path: string): void {
  qemuImg([check(path)])
}

export function compareWithModel(
  path: string,
  format: 'raw' | 'qcow2',
  disk: ModelDisk,
  scratch: string,
): void {
  if (format === 'raw') compareBytes(path, disk)
  else qemuImg([comparison(path, disk, join(scratch, 'truth.raw'))])
}

/** What a raw file holds needs nobody to read it. */
function compareBytes(path: string, disk: ModelDisk): void {
  const bytes = readFileSync(path)
  if (bytes.length !== disk.sizeBytes) throw new Error(`${path} has ${bytes.length} bytes`)
  const zeros = Buffer.alloc(BLOCK_BYTES)
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES)
    const truth = disk.blocks.get(at / BLOCK_BYTES) ?? zeros
    if (!block.equals(truth.subarray(0, block.length))) throw new Error(`${path} differs at byte ${at}`)
  }
}

/** `compare` forgives another size when the rest is zeros (its strict mode compares allocation as well). */
function comparison(path: string, disk: ModelDisk, raw: string): Command {
  const sizeBytes = virtualSize(path)
  if (sizeBytes !== disk.sizeBytes) throw new Error(`${path} has ${sizeBytes} bytes`)
  writeRaw(disk, raw)
  return ['compare', '-f', 'qcow2', '-F', 'raw', path, raw]
}

/** Bytes 24 to 31 of a qcow2 header. */
export function virtualSize(path: string): number {
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
  qemuImg(comparisons(store, history, scratch))
  return store.points(testVm).map(({ seq }) => seq)
}

function comparisons(
  store: ReplicaStore,
  history: ReadonlyMap<number, ModelDelta>,
  scratch: string,
): Command[] {
  return store.points(testVm).flatMap((point) =>
    historyOf(history, point.seq).disks.map((disk) => {
      const raw = join(scratch, `truth-${point.seq}-${disk.diskId}.raw`)
      return comparison(store.layerPath(testVm, point, disk.diskId), disk, raw)
    }),
  )
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
  const points = store.points(testVm)
  const checks = points.flatMap((point) =>
    historyOf(history, point.seq).disks.map(({ diskId }) => check(store.layerPath(testVm, point, diskId))),
  )
  qemuImg([...checks, ...comparisons(store, history, scratch)])
  return points.map(({ seq }) => seq)
}
