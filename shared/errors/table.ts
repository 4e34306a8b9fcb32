import { adminErrors } from './admin.ts'
import { channelErrors } from './channel.ts'
import { fabricErrors } from './fabric.ts'
import { flowErrors } from './flow.ts'
import { generalErrors } from './general.ts'
import { orchestrationErrors } from './orchestration.ts'
import { replicationErrors } from './replication.ts'
import { seedErrors } from './seed.ts'
import { trustErrors } from './trust.ts'

export interface ErrorEntry {
  /** The likely cause, in one sentence. */
  readonly cause: string
  /** What the operator should do, in one sentence. */
  readonly action: string
  /** The same request may succeed later without anyone changing anything. */
  readonly retryable: boolean
}

/** The closed table of error codes. docs/errors.md is held against it by a test. */
export const errorTable = {
  ...generalErrors,
  ...trustErrors,
  ...channelErrors,
  ...replicationErrors,
  ...seedErrors,
  ...flowErrors,
  ...fabricErrors,
  ...orchestrationErrors,
  ...adminErrors,
} as const satisfies Record<string, ErrorEntry>

export type ErrorCode = keyof typeof errorTable
