import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { describeIssues } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { adminLimits } from './limits.ts'
import type { Route, RouteInput } from './route.ts'

/** Everything a handler gets, checked against the schemas of its route. */
export async function readInput(
  request: IncomingMessage,
  route: Route,
  params: Record<string, string>,
  search: URLSearchParams,
  signal: AbortSignal,
): Promise<RouteInput<string, z.ZodObject, z.ZodObject>> {
  for (const [name, value] of Object.entries(params)) ensureName(name, value)
  const query = parse(route.query, Object.fromEntries(search))
  const body = parse(route.body, parseJson(await readBody(request)))
  return { params, query, body, signal }
}

function ensureName(name: string, value: string): void {
  if (value.length > adminLimits.maxNameCharacters)
    throw new HotsiteError(
      'request-invalid',
      `${name}: longer than ${adminLimits.maxNameCharacters} characters`,
    )
  for (const character of value) {
    if (character < ' ' || character === '\u007f')
      throw new HotsiteError('request-invalid', `${name}: contains a control character`)
  }
}

function parse(schema: z.ZodObject, value: unknown): Record<string, unknown> {
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw new HotsiteError('request-invalid', describeIssues(parsed.error))
  return parsed.data
}

function parseJson(text: string): unknown {
  if (text.trim() === '') return {}
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new HotsiteError('request-invalid', 'the request body is not JSON', { cause: error })
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw new HotsiteError('request-invalid', 'the request body is not a JSON object')
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let sizeBytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length
    if (sizeBytes > adminLimits.maxRequestBytes)
      throw new HotsiteError(
        'request-too-large',
        `the request is larger than ${adminLimits.maxRequestBytes} bytes`,
      )
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
