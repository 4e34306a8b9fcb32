import { isNoRoom } from './no-room.ts'
import { type ErrorCode, errorTable } from './table.ts'

export interface HotsiteErrorOptions {
  readonly cause?: unknown
  /** Facts for the operator and for programs: names, sizes, ids. Never secrets (I15). */
  readonly details?: Readonly<Record<string, unknown>>
}

/**
 * Every error a user can meet. `message` says what happened, in this case; the table adds the likely cause
 * and what to do. `details` is JSON.
 */
export class HotsiteError extends Error {
  override readonly name = 'HotsiteError'
  readonly code: ErrorCode
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message: string, options: HotsiteErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.details = options.details ?? {}
  }

  get possibleCause(): string {
    return errorTable[this.code].cause
  }

  /** What the operator should do. */
  get hint(): string {
    return errorTable[this.code].action
  }

  /** True when the same request may succeed later without anyone changing anything. */
  get retryable(): boolean {
    return errorTable[this.code].retryable
  }
}

/** The form an error takes on the wire, in a job step and in an admin reply. */
export interface ErrorDocument {
  readonly code: ErrorCode
  readonly message: string
  readonly possibleCause: string
  readonly recommendedAction: string
  readonly retryable: boolean
  readonly details: Readonly<Record<string, unknown>>
}

export function errorDocument(error: unknown): ErrorDocument {
  const known = error instanceof HotsiteError ? error : wrapUnknown(error)
  return {
    code: known.code,
    message: known.message,
    possibleCause: known.possibleCause,
    recommendedAction: known.hint,
    retryable: known.retryable,
    details: known.details,
  }
}

/** An error that arrived as a document. A code this version does not know becomes `internal`. */
export function errorFromDocument(document: {
  code: string
  message: string
  details?: Record<string, unknown>
}): HotsiteError {
  const code = document.code in errorTable ? (document.code as ErrorCode) : 'internal'
  return new HotsiteError(code, document.message, { details: document.details ?? {} })
}

function wrapUnknown(error: unknown): HotsiteError {
  if (isNoRoom(error)) return new HotsiteError('disk-full', error.message, { cause: error })
  if (error instanceof Error && 'code' in error) {
    if (error.code === 'EACCES' || error.code === 'EPERM')
      return new HotsiteError('permission-denied', error.message, { cause: error })
  }
  return new HotsiteError('internal', error instanceof Error ? error.message : String(error), {
    cause: error,
  })
}
