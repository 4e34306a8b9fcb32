import type { ErrorEntry } from './table.ts'

export const trustErrors = {} as const satisfies Record<string, ErrorEntry>
