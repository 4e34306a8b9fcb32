/**
 * The folder driver with a tracker: it reports the extents that a change log names since the last released snapshot, and
 * scans a disk that has no log. Two phases (I2): a snapshot notes where the logs stood before its instant, under the seq
 * it may be released by; only release() moves the base there. The notes are in a file before the snapshot is handed out,
 * so a restart between the two finds them.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { openFolderHypervisor } from '#recovery-agent/hypervisor/folder/folder-hypervisor.ts'
import type { HypervisorConfig, openHypervisor as openOwn } from '#recovery-agent/hypervisor/open.ts'
import type { HostHypervisor, Snapshot, SnapshotDisk } from '#recovery-agent/hypervisor/port.ts'
import { assert } from '#shared/assert.ts'
import { findVm } from '#shared/folder/layout.ts'
import { disksOf } from '#shared/folder/vm-file.ts'
import { type DiskId, type FabricVmId, fabricVmId } from '#shared/ids.ts'
import { changesBetween, type LogPosition, logPosition } from './change-log.ts'

/** Snapshots not released yet; the oldest note is dropped above that, which costs a repeated read, never a change. */
const MAX_NOTES = 1_000

const positions = z.record(z.string(), z.strictObject({ id: z.string(), endBytes: z.int() }))
const trackerFile = z.strictObject({
  /** Where each disk's log stood at the last released snapshot. */
  base: positions,
  notes: z.array(z.strictObject({ seq: z.int(), positions })),
})
type FolderConfig = Extract<HypervisorConfig, { readonly driver: 'folder' }>
type TrackerFile = z.infer<typeof trackerFile>

export const openHypervisor: typeof openOwn = (config, context) => {
  assert(config.driver === 'folder', 'only the folder driver has no tracker of its own')
  return trackChanges(openFolderHypervisor({ ...config, ...context }), config, context.dataDir)
}

function trackChanges(inner: HostHypervisor, config: FolderConfig, dataDir: string): HostHypervisor {
  const dir = join(dataDir, 'tracker')
  mkdirSync(dir, { recursive: true })
  const pathsOf = (id: FabricVmId): Map<DiskId, string> => {
    const vm = findVm({ root: config.root, hosts: [config.host], id })
    return new Map(vm ? disksOf(vm).map(({ diskId, path }) => [diskId, path]) : [])
  }
  return {
    recover: () => inner.recover(),
    disks: (vm) => inner.disks(vm),

    async openSnapshot(request) {
      const { fabricVmId, seq } = request
      const paths = pathsOf(fabricVmId)
      const before = standing(paths)
      const snapshot = await inner.openSnapshot(request)
      try {
        const tracker = readTracker(dir, fabricVmId)
        if (seq !== undefined) writeTracker(dir, fabricVmId, noted(tracker, seq, before))
        return withChanges(snapshot, { paths, base: tracker.base })
      } catch (error) {
        snapshot.close()
        throw error
      }
    },

    async release(vm, seq) {
      const tracker = readTracker(dir, vm)
      const note = tracker.notes.find((candidate) => candidate.seq === seq)
      if (note) {
        const notes = tracker.notes.filter((candidate) => candidate.seq > seq)
        writeTracker(dir, vm, { base: note.positions, notes })
      }
      await inner.release(vm, seq)
    },
  }
}

function standing(paths: ReadonlyMap<DiskId, string>): Record<string, LogPosition> {
  const entries = [...paths].flatMap(([diskId, path]) => {
    const position = logPosition(path)
    return position ? [[diskId, position] as const] : []
  })
  return Object.fromEntries(entries)
}

/** A repeated seq replaces: the earlier snapshot of that seq came to nothing. */
function noted(tracker: TrackerFile, seq: number, before: Record<string, LogPosition>): TrackerFile {
  const others = tracker.notes.filter((note) => note.seq !== seq)
  return { ...tracker, notes: [...others, { seq, positions: before }].slice(-MAX_NOTES) }
}

function withChanges(
  snapshot: Snapshot,
  { paths, base }: { paths: ReadonlyMap<DiskId, string>; base: TrackerFile['base'] },
): Snapshot {
  const disks = snapshot.disks.map((disk) => {
    const path = paths.get(disk.diskId)
    return path === undefined ? disk : { ...disk, changes: changesOf(disk, path, base[disk.diskId]) }
  })
  return { ...snapshot, disks }
}

/** The log is read after the instant, so nothing that the snapshot holds is missing. */
function changesOf(disk: SnapshotDisk, path: string, base: LogPosition | undefined): SnapshotDisk['changes'] {
  const now = logPosition(path)
  if (!now) return disk.changes
  if (!base) return { kind: 'scan', reason: 'no snapshot was released since tracking began' }
  if (base.id !== now.id || base.endBytes > now.endBytes)
    return { kind: 'scan', reason: 'this is not the log that the base was noted in' }
  return { kind: 'tracked', extents: changesBetween(path, base.endBytes, now.endBytes) }
}

const trackerPath = (dir: string, vm: FabricVmId) => join(dir, `${encodeURIComponent(vm)}.json`)

function readTracker(dir: string, vm: FabricVmId): TrackerFile {
  let text: string
  try {
    text = readFileSync(trackerPath(dir, vm), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { base: {}, notes: [] }
    throw error
  }
  return trackerFile.parse(JSON.parse(text))
}

/** Whether a snapshot was released since the tracking of a disk began, so that the next one is not scanned. */
export function trackerKnows(request: { dataDir: string; vm: string; disk: string; path: string }): boolean {
  const { base } = readTracker(join(request.dataDir, 'tracker'), fabricVmId.parse(request.vm))
  const known = base[request.disk]
  return known !== undefined && known.id === logPosition(request.path)?.id
}

/** Renamed but not synced: it outlives processes, and no benchmark cuts the power. */
function writeTracker(dir: string, vm: FabricVmId, tracker: TrackerFile): void {
  const path = trackerPath(dir, vm)
  writeFileSync(`${path}.tmp`, JSON.stringify(tracker))
  renameSync(`${path}.tmp`, path)
}
