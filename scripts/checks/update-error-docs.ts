/** Makes the tables of docs/errors.md anew from shared/errors. Run it after a code was added or its text was changed. */
import { readFileSync, writeFileSync } from 'node:fs'
import { withErrorTables } from './error-docs.ts'

const page = new URL('../../docs/errors.md', import.meta.url)
writeFileSync(page, withErrorTables(readFileSync(page, 'utf8')))
