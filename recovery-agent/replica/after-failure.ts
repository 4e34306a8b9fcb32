import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { catalogFileDamage } from './catalog/open-catalog.ts'
import { repairCatalog } from './catalog/repair-catalog.ts'
import { type ReplicaContext, storeError } from './context.ts'
import { forgetDamagedLeaves } from './healing/forget-leaves.ts'
import { restoreTreeAfter } from './healing/restore-tree.ts'

/**
 * What can be made good before the next attempt: a hash tree from the leaves of the layers, rows from the copy beside
 * them; leaves that are damaged go, and are learned from the file. Answers the error to give to whoever asked. Never throws.
 */
export function afterFailure(context: ReplicaContext, error: unknown): unknown {
  restoreTreeAfter(context, error)
  if (error instanceof HotsiteError && error.code === 'catalog-damaged') {
    forgetLeaves(context, error)
    repairCatalog(context)
  }
  return catalogFileDamage(context.paths.database, error) ?? storeError(context, error)
}

function forgetLeaves(context: ReplicaContext, error: unknown): void {
  try {
    forgetDamagedLeaves(context, error)
  } catch (failure) {
    context.log.error('replica.leaves-not-forgotten', { error: failure })
  }
}

/** A failover does not wait for somebody to ask again because of rows that were damaged and have been made good since. */
export function again<T>(attempt: () => T): T {
  try {
    return attempt()
  } catch (error) {
    if (!isMadeGood(error)) throw error
    return attempt()
  }
}

/** The same, step by step. */
export function* stepsAgain<T>(begin: () => Generator<void, T>): Generator<void, T> {
  try {
    return yield* begin()
  } catch (error) {
    if (!isMadeGood(error)) throw error
    return yield* begin()
  }
}

function isMadeGood(error: unknown): boolean {
  return error instanceof HotsiteError && error.code === 'catalog-damaged'
}
