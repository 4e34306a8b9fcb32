import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { mutate, repository } from '../mutation/mutate.ts'
import { copyForMutants } from './break.ts'
import { mutantCalled, mutants } from './mutants.ts'

describe('deliberate bugs', () => {
  for (const { name, mutations } of mutants) {
    it(`${name} still fits its sources`, () => {
      for (const mutation of mutations) {
        const source = readFileSync(join(repository, mutation.file), 'utf8')
        expect(mutate(source, mutation)).not.toBe(source)
      }
    })
  }
})

/** Found by one of the first two histories that meet them; the others by `./scripts/simulate --break all`. */
const quick = ['unacked-delta-collected', 'base-released-early', 'pinned-point-dropped', 'oldest-first']

describe('the simulation finds', () => {
  it.each(quick)(
    '%s',
    (name) => {
      using broken = copyForMutants()
      const mutant = mutantCalled(name)
      const { violation } = broken.tryMutant(mutant, { from: 1, seeds: mutant.seeds, processes: 1 })
      expect(mutant.breaks).toContain(violation?.invariant)
    },
    300_000,
  )
})
