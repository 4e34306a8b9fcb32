import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { errorTable } from '#shared/errors/table.ts'
import { errorAreas, withErrorTables } from './error-docs.ts'

const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
const owners = new Map<string, string[]>()
for (const [area, entries] of Object.entries(errorAreas))
  for (const code of Object.keys(entries)) owners.set(code, [...(owners.get(code) ?? []), area])

it('docs/errors.md is what the table says; "node scripts/checks/update-error-docs.ts" makes it so', () => {
  expect(page).toBe(withErrorTables(page))
})

it('every code of the table is on the page, in a row of its own', () => {
  const documented = [...page.matchAll(/^\| `([^`]+)` \|/gm)].map(([, code]) => code)
  expect(documented.sort()).toEqual(Object.keys(errorTable).sort())
})

it('a code belongs to one area: a second entry would silently replace the first', () => {
  expect([...owners].filter(([, areas]) => areas.length > 1)).toEqual([])
})

it('codes are kebab-case; cause and action are whole sentences', () => {
  for (const [code, { cause, action }] of Object.entries(errorTable)) {
    expect(code).toMatch(/^[a-z]+(-[a-z0-9]+)*$/)
    for (const sentence of [cause, action])
      expect([code, sentence]).toEqual([code, expect.stringMatching(/^["`A-Z].+\.$/)])
  }
})
