import type { ErrorEntry } from './table.ts'

export const orchestrationErrors = {} as const satisfies Record<string, ErrorEntry>
