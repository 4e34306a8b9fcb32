/**
 * Files that lie under each other's names: two layers swapped, one moved or renamed by a foreign hand. A file is known
 * by its content, tables and sample blocks alike, and gets its name back.
 */
import { dirname, join } from 'node:path'
import type { VmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'
import { isDiskFolder, journalSuffix, movedSuffix, partSuffix, repairSuffix } from '../names.ts'
import { dataRunsOf, openStored, readRun, runMemory } from '../proof/check-layer.ts'
import type { StoredLayer } from '../proof/stored-layers.ts'

/** Runs of up to 16 blocks that are hashed before a file is taken for a layer; the verification reads the rest. */
const SAMPLE_RUNS = 4

/** `damaged`: layers whose files are not what they should be. */
export function* restoreNames(
  context: ReplicaContext,
  vmId: VmId,
  damaged: readonly StoredLayer[],
): Generator<void, void> {
  const { crash, files, log } = context
  const wanted = damaged.filter(({ isKnown, inMerge }) => isKnown && !inMerge)
  const moves: { from: string; stored: StoredLayer }[] = []
  const taken = new Set<string>()
  for (const stored of wanted) {
    for (const from of candidates(context, vmId, { damaged, stored })) {
      if (taken.has(from) || !(yield* holds(context, stored, from))) continue
      taken.add(from)
      moves.push({ from, stored })
      break
    }
  }
  // Two steps, so that files can change places. What lies under the name goes aside and is looked at once more.
  for (const { from } of moves) files.rename(from, from + movedSuffix)
  crash('replica.names-aside')
  for (const { from, stored } of moves) {
    const { path } = stored
    if (files.exists(path)) files.rename(path, path + movedSuffix + movedSuffix)
    files.rename(from + movedSuffix, path)
    log.info('replica.file-put-back', { vmId, from, path })
  }
  for (const folder of new Set(moves.flatMap(({ from, stored }) => [dirname(from), dirname(stored.path)])))
    files.syncFolder(folder)
}

/** The other damaged layers' files first, then whatever has no name in the catalog. */
function candidates(
  { files, paths, catalog }: ReplicaContext,
  vmId: VmId,
  of: { damaged: readonly StoredLayer[]; stored: StoredLayer },
): string[] {
  const named = new Set(
    catalog
      .chain(vmId)
      .flatMap((member) => member.disks.map(({ diskId }) => paths.layer(vmId, diskId, member))),
  )
  const folder = paths.vmFolder(vmId)
  const strays = files
    .list(folder)
    .filter(isDiskFolder)
    .map((name) => join(folder, name))
    .flatMap((disk) => files.list(disk).map((name) => join(disk, name)))
    .filter((path) => !named.has(path) && !ownSuffixes.some((suffix) => path.endsWith(suffix)))
  const others = of.damaged.filter(({ path }) => path !== of.stored.path && files.exists(path))
  return [...others.map(({ path }) => path), ...strays]
}

const ownSuffixes = [partSuffix, journalSuffix, repairSuffix]

function* holds(context: ReplicaContext, stored: StoredLayer, path: string): Generator<void, boolean> {
  const opened = yield* openStored(context.files, { ...stored, path })
  if (opened.kind === 'damaged') return false
  using open = opened.open
  using memory = runMemory()
  const buffer = memory.bytes
  let sampled = 0
  for (const groupIndex of stored.groupIndexes()) {
    const group = stored.group(groupIndex)
    for (const run of dataRunsOf(open, groupIndex, { group, isWanted: () => true })) {
      let wrong = 0
      for (const { fault } of readRun(open, run, { group, buffer })) if (fault !== null) wrong++
      // Some rot is for the verification to name; nothing but rot is another file.
      if (wrong < run.count) return true
      if (++sampled >= SAMPLE_RUNS) return false
      yield
    }
  }
  return sampled === 0
}
