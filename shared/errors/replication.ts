import type { ErrorEntry } from './table.ts'

export const replicationErrors = {} as const satisfies Record<string, ErrorEntry>
