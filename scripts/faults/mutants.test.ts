import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { mutate, repository } from '../mutation/mutate.ts'
import { mutants } from './mutants.ts'

describe('mutants of the chaos runs', () => {
  for (const [name, mutations] of Object.entries(mutants)) {
    for (const mutation of mutations) {
      it(`${name} still fits ${mutation.file}`, () => {
        const source = readFileSync(join(repository, mutation.file), 'utf8')
        expect(mutate(source, mutation)).not.toBe(source)
      })
    }
  }
})
