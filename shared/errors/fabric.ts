import type { ErrorEntry } from './table.ts'

export const fabricErrors = {} as const satisfies Record<string, ErrorEntry>
