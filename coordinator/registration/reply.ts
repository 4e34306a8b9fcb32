import type { IncomingMessage, ServerResponse } from 'node:http'
import { type ErrorDocument, errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ErrorCode } from '#shared/errors/table.ts'

export interface Refusal {
  readonly status: number
  readonly document: ErrorDocument
  /** False: a fault of this coordinator, of which the sender learns no details. */
  readonly known: boolean
}

const statusOf: Partial<Record<ErrorCode, number>> = {
  'request-invalid': 400,
  'not-found': 404,
  'registration-vault-unknown': 404,
  'server-name-taken': 409,
  'registration-rate-limited': 429,
}

/** Codes that tell about the coordinator's own files and paths: for its log only. */
const internalCodes: ReadonlySet<ErrorCode> = new Set([
  'internal',
  'disk-full',
  'permission-denied',
  'vault-key-missing',
  'secret-file-exposed',
  'secret-file-damaged',
])

export function refusalOf(error: unknown): Refusal {
  const document = errorDocument(error)
  if (error instanceof HotsiteError && !internalCodes.has(document.code))
    return { status: statusOf[document.code] ?? 403, document, known: true }
  const fault = new HotsiteError(
    'internal',
    'the coordinator could not carry out the registration; its log tells why',
  )
  return { status: 500, document: errorDocument(fault), known: false }
}

export function answer(response: ServerResponse, status: number, document: object): void {
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' })
  response.end(JSON.stringify(document))
}

/** What is left of the request is not read: it may be the reason for the refusal. */
export function answerRefusal(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  if (response.headersSent || response.destroyed) return
  response.once('finish', () => request.destroy())
  answer(response, refusal.status, refusal.document)
}
