/**
 * The one rule of what may be deleted from the buffer, applied after every durable change and at start, so that a
 * crash between a cursor and its deletions only postpones them (I2). A delta is garbage when
 *
 *   its VM is unknown (forgotten), or needs a synchronization (which replaces it), or
 *   its seq is at or below the acknowledged cursor, and no older point is owed for which it is needed (owed.ts), or
 *   it is unsealed and not being written: a capture that was abandoned or killed.
 *
 * A tree is garbage when no disk names it and no synchronization is building it. Garbage never comes back to life.
 */
import type { Sqlite } from '#shared/sqlite.ts'
import type { LeafStore } from '../tree/leaf-store.ts'
import type { DeltaRows } from './delta-rows.ts'

export interface BufferUse {
  /** Unsealed deltas that are being written. */
  readonly deltas: ReadonlySet<number>
  /** Trees that synchronizations are building. */
  readonly trees: ReadonlySet<string>
}

export interface Garbage {
  /** Deletes what was garbage when it began, one short transaction for each step. Run one at a time. */
  collect(inUse: BufferUse): Generator<void, void>
}

/** 8 KiB each. */
const PAGES_PER_TRANSACTION = 2048

export function openGarbage(
  db: Sqlite,
  {
    deltas,
    leaves,
    reading,
  }: {
    readonly deltas: DeltaRows
    readonly leaves: LeafStore
    readonly reading: <T>(read: () => T) => T
  },
): Garbage {
  const isNamed = db.prepare<[string]>('SELECT 1 FROM disks WHERE tree = ?')
  const deadTrees = (inUse: ReadonlySet<string>) =>
    leaves.names().filter((tree) => !inUse.has(tree) && !isNamed.get(tree))
  return {
    *collect(inUse) {
      // Both before the first step: what begins in between is not in `inUse`.
      const [abandonedDeltas, abandonedTrees] = reading(() => [
        deltas.dead(inUse.deltas),
        deadTrees(inUse.trees),
      ])
      for (const delta of abandonedDeltas) {
        for (let more = true; more; yield) more = deltas.deleteSome(delta)
      }
      for (const tree of abandonedTrees) {
        for (let more = true; more; yield) more = leaves.removeSome(tree, PAGES_PER_TRANSACTION)
      }
    },
  }
}
