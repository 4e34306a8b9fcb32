import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { mutate, repository } from '../mutation/mutate.ts'
import { mutants } from './mutants.ts'

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
