/** What the tour claims is looked up outside the daemons: bytes on disk, counters a guest left, files of the coordinator. */
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { compareWithRaw } from './compare.ts'

export interface PointName {
  readonly epoch: number
  readonly seq: number
}

/** The sealed file of one disk at a point: `<epoch>-<seq>.qcow2`, numbers padded (docs/replication.md). */
export function layerFile(replicaDir: string, vmId: string, diskId: string, point: PointName): string {
  const dir = join(replicaDir, vmId, diskId)
  const found = readdirSync(dir).find((file) => {
    const [, epoch, seq] = /^(\d+)-(\d+)\.qcow2$/.exec(file) ?? []
    return Number(epoch) === point.epoch && Number(seq) === point.seq
  })
  if (!found) throw new Error(`no layer of point ${point.epoch}.${point.seq} in ${dir}`)
  return join(dir, found)
}

export function hasQemuImg(): boolean {
  return spawnSync('qemu-img', ['--version'], { stdio: 'ignore' }).status === 0
}

/** True when the point's layer, read through its chain, equals the raw disk byte for byte. */
export function isIdentical(layer: string, rawDisk: string): boolean {
  if (!hasQemuImg()) return compareWithRaw(layer, rawDisk)
  try {
    execFileSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', layer, rawDisk], { stdio: 'ignore' })
    return true
  } catch (error) {
    if ((error as { status?: number }).status === 1) return false
    throw error
  }
}

/** Counters a guest found on its disks when it started last: the line `recovered n0=…, n1=…` of its log. */
export function recoveredCounters(vmDir: string): { n0: number; n1: number; torn: boolean } {
  const lines = readFileSync(join(vmDir, 'guest.log'), 'utf8').split('\n')
  for (const line of lines.reverse()) {
    const [, n0, n1, torn] = /recovered n0=(\d+), n1=(\d+), torn=(true|false)/.exec(line) ?? []
    if (n0 !== undefined) return { n0: Number(n0), n1: Number(n1), torn: torn === 'true' }
  }
  throw new Error(`the guest in ${vmDir} left no line about what it recovered`)
}

/** Every order record on a guest's disk begins with it (scripts/workload/records.ts). */
const diskMarker = Buffer.from('HSORDER1')

/** Bytes of files under `dir` that hold disk content: 4 KiB for each record marker found. 0 proves that none came by. */
export function diskBytesIn(dir: string): number {
  let found = 0
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const content = readFileSync(join(entry.parentPath, entry.name))
    for (let at = content.indexOf(diskMarker); at >= 0; at = content.indexOf(diskMarker, at + 1))
      found += 4096
  }
  return found
}

export function folderBytes(dir: string): number {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
}
