import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { z } from 'zod'
import { type ErrorDocument, errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { httpStatusOf } from './error-class.ts'
import { redact } from './redact.ts'

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = `${JSON.stringify(value)}\n`
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

/** Only what was written for a caller to read goes out; an unforeseen failure is told by its id in the log (I15). */
export function publicError(error: unknown, requestId: string): ErrorDocument {
  const document = errorDocument(error)
  if (document.code === 'internal' && !(error instanceof HotsiteError))
    return {
      ...document,
      message: `the coordinator failed; its log tells more under request ${requestId}`,
      details: { requestId },
    }
  return redact(document) as ErrorDocument
}

export function sendError(response: ServerResponse, error: unknown, requestId: string): void {
  const document = publicError(error, requestId)
  if (!response.headersSent) {
    // What is left of a refused request is not read: the connection cannot serve another one.
    if (!response.req.complete) response.setHeader('connection', 'close')
    sendJson(response, httpStatusOf(document.code), document)
    return
  }
  // A stream that breaks off says why in its last line.
  response.end(`${JSON.stringify({ error: document })}\n`)
}

/** One JSON document a line, at the pace of the reader. */
export async function sendLines(
  response: ServerResponse,
  items: AsyncIterable<unknown>,
  schema: z.ZodType,
  signal: AbortSignal,
): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8' })
  response.flushHeaders()
  for await (const item of items) {
    if (signal.aborted) break
    if (!response.write(`${JSON.stringify(schema.parse(item))}\n`)) await once(response, 'drain', { signal })
  }
  response.end()
}
