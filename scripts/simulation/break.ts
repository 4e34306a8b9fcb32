/** Runs histories of a mutant until one of them shows a violation. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applyMutations, copySources } from '../mutation/mutate.ts'
import type { Mutant } from './mutants.ts'
import type { Summary } from './report.ts'

export interface Catch {
  readonly mutant: string
  /** The first violation that was found; undefined: none. */
  readonly violation: Summary['violations'][number] | undefined
  readonly seconds: number
}

export interface BrokenSources extends Disposable {
  /** From seed `from` on, `seeds` of them at most. Throws when the histories cannot be run at all. */
  tryMutant(
    mutant: Mutant,
    options: { readonly from: number; readonly seeds: number; readonly processes: number },
  ): Catch
}

/** One copy of the sources for all mutants. */
export function copyForMutants(): BrokenSources {
  const base = mkdtempSync(join(tmpdir(), 'hotsite-mutants-'))
  const dir = copySources(join(base, 'hotsite'))
  return {
    tryMutant(mutant, { from, seeds, processes }) {
      const undo = applyMutations(dir, mutant.mutations)
      try {
        const entry = join(dir, 'scripts', 'simulation', 'main.ts')
        const options = [
          '--json',
          '--until-violation',
          '--from',
          from,
          '--seeds',
          seeds,
          '--processes',
          processes,
        ]
        const { stdout, stderr } = spawnSync(process.execPath, [entry, ...options.map(String)], {
          encoding: 'utf8',
          cwd: dir,
        })
        if (!stdout.startsWith('{')) throw new Error(`the mutant ${mutant.name} does not run: ${stderr}`)
        const { violations, seconds } = JSON.parse(stdout) as Summary
        return { mutant: mutant.name, violation: violations[0], seconds }
      } finally {
        undo()
      }
    },
    [Symbol.dispose]: () => rmSync(base, { recursive: true, force: true }),
  }
}
