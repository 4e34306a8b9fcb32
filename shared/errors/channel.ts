import type { ErrorEntry } from './table.ts'

export const channelErrors = {} as const satisfies Record<string, ErrorEntry>
