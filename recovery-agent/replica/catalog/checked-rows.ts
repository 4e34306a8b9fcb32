/**
 * Rows of replica.db that were held against their checksum once, in memory until this store changes them. What turns on
 * the disk meanwhile is found before anything is made of it: whoever serves or proves a point, or copies its rows,
 * looks again (`lookAgain`), and every change holds what it changes against the checksum first.
 */
import type { VmId } from '#shared/ids.ts'
import type { Sqlite } from '#shared/sqlite.ts'
import { type CatalogSums, type CoveredRows, type SumKind, sumKinds } from './catalog-sums.ts'

export class CheckedRows {
  readonly #db: Sqlite
  readonly #sums: CatalogSums
  readonly #known = new Map<string, unknown>()
  /** What the open transaction changed: its checksum is written with the commit, its rows are nobody's memory until then. */
  #changed: Map<VmId, Set<SumKind>> | undefined

  constructor(db: Sqlite, sums: CatalogSums) {
    this.#db = db
    this.#sums = sums
  }

  /** Throws `catalog-damaged`. The answer is shared: nobody alters it. */
  read<T>(vmId: VmId, kind: SumKind, made: (rows: CoveredRows) => T): T {
    const key = keyOf(vmId, kind)
    if (this.#changed?.get(vmId)?.has(kind)) return made(this.#sums.rows(vmId, kind))
    if (this.#known.has(key)) return this.#known.get(key) as T
    const value = made(this.#sums.ensure(vmId, kind))
    this.#known.set(key, value)
    return value
  }

  /**
   * Rows and checksum in one transaction. What is damaged is not made good by it: throws `catalog-damaged` instead, also
   * when it is another kind of the VM's rows. Committed, the change would be in no copy yet (catalog-copy.ts), and lost
   * when the copy takes the place of the damaged rows.
   */
  change(vmId: VmId, kind: SumKind, work: () => void): void {
    const changed = this.#changed
    if (!changed) {
      this.transaction(() => this.change(vmId, kind, work))
      return
    }
    const kinds = changed.get(vmId) ?? this.#soundKinds(vmId)
    changed.set(vmId, kinds.add(kind))
    this.#known.delete(keyOf(vmId, kind))
    work()
  }

  /** None is changed yet; each was held against its checksum. */
  #soundKinds(vmId: VmId): Set<SumKind> {
    for (const kind of sumKinds) this.#sums.ensure(vmId, kind)
    return new Set()
  }

  transaction<T>(work: () => T): T {
    if (this.#changed) return this.#db.transaction(work)()
    const changed = new Map<VmId, Set<SumKind>>()
    this.#changed = changed
    try {
      return this.#db
        .transaction(() => {
          const result = work()
          for (const [vmId, kinds] of changed) for (const kind of kinds) this.#sums.update(vmId, kind)
          return result
        })
        .immediate()
    } finally {
      this.#changed = undefined
    }
  }

  /** The next read of each kind holds the rows against their checksum. */
  lookAgain(vmId: VmId): void {
    for (const kind of sumKinds) this.#known.delete(keyOf(vmId, kind))
  }
}

function keyOf(vmId: VmId, kind: SumKind): string {
  return `${kind} ${vmId}`
}
