/** Runs histories of a mutant until one of them shows a violation. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applyMutations, copySources } from '../mutation/mutate.ts'
import type { Mutant } from './mutants.ts'
import { planHistory } from './plan.ts'
import type { Summary } from './report.ts'
import { crashNames } from './world.ts'

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

/** The first seeds whose histories meet what the bug needs to show. */
function seedsFor({ meets }: Mutant, from: number, count: number): number[] {
  const seeds: number[] = []
  for (let seed = from; seeds.length < count; seed++)
    if (!meets || meets(planHistory(seed, crashNames))) seeds.push(seed)
  return seeds
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
          '--list',
          seedsFor(mutant, from, seeds).join(),
          '--processes',
          processes,
        ]
        const { stdout, stderr } = spawnSync(process.execPath, [entry, ...options.map(String)], {
          encoding: 'utf8',
          cwd: dir,
        })
        if (!stdout.startsWith('{')) throw new Error(`the mutant ${mutant.name} does not run: ${stderr}`)
        const { violations, seconds } = JSON.parse(stdout) as Summary
        const [violation] = violations
        if (violation && /Cannot read properties|is not a function|is not defined/.test(violation.what))
          throw new Error(`the mutant ${mutant.name} is no program any more: ${violation.what}`)
        return { mutant: mutant.name, violation, seconds }
      } finally {
        undo()
      }
    },
    [Symbol.dispose]: () => rmSync(base, { recursive: true, force: true }),
  }
}
