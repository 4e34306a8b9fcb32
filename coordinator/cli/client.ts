import { type IncomingMessage, request } from 'node:http'
import { createInterface } from 'node:readline'
import type { CallInput, CallReply, Operation } from '#coordinator/admin/routes.ts'
import type { JobView } from '#coordinator/admin/views.ts'
import { errorFromDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'

export interface Client {
  /** Throws what the coordinator refused with, or `admin-socket-unreachable`. */
  call<Name extends Operation>(name: Name, input?: CallInput<Name>): Promise<CallReply<Name>>
  /** The job now and after every change; ends with the job, or when the coordinator goes away. */
  watchJob(job: string, signal: AbortSignal): AsyncIterable<JobView>
}

/** The route table brings zod along, which takes longer to load than the rest of the command line: only when called. */
const loadRoutes = async () => ({
  ...(await import('#coordinator/admin/routes.ts')),
  ...(await import('#coordinator/admin/router.ts')),
})

export function createClient(socketPath: string): Client {
  return {
    async call(name, input = {}) {
      const { routes, fillPath } = await loadRoutes()
      const { method, path, reply } = routes[name]
      const { query, body } = input
      const search = new URLSearchParams(
        Object.entries(query ?? {}).map(([key, value]): [string, string] => [key, String(value)]),
      )
      const address = fillPath(path, input.params ?? {}) + (search.size > 0 ? `?${search}` : '')
      const response = await send({ socketPath, method, path: address, ...(body ? { body } : {}) })
      const text = await readText(response)
      if ((response.statusCode ?? 500) >= 300) throw refusal(text, response)
      if (reply.kind !== 'json') return undefined as CallReply<typeof name>
      const parsed = reply.schema.safeParse(parseJson(text, response))
      if (!parsed.success) throw foreignReply(response)
      return parsed.data as CallReply<typeof name>
    },

    async *watchJob(job, signal) {
      const { routes, fillPath } = await loadRoutes()
      const { method, path, reply } = routes.watchJob
      const response = await send({ socketPath, method, path: fillPath(path, { job }), signal })
      if (response.statusCode !== 200) throw refusal(await readText(response), response)
      try {
        for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY })) {
          const value = parseJson(line, response)
          if (isBrokenOff(value)) throw errorFromDocument(value.error)
          const parsed = reply.schema.safeParse(value)
          if (!parsed.success) throw foreignReply(response)
          yield parsed.data
        }
      } finally {
        // Whoever stops reading hangs up; otherwise the open answer would keep the process alive.
        response.destroy()
      }
    },
  }
}

interface Outgoing {
  readonly socketPath: string
  readonly method: string
  readonly path: string
  readonly body?: unknown
  readonly signal?: AbortSignal
}

function send({ socketPath, method, path, body, signal }: Outgoing): Promise<IncomingMessage> {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers =
    text === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath, method, path, headers, agent: false, ...(signal ? { signal } : {}) },
      resolve,
    )
    outgoing.on('error', (error: NodeJS.ErrnoException) => reject(connectionError(error, socketPath)))
    outgoing.end(text)
  })
}

function connectionError(error: NodeJS.ErrnoException, socketPath: string): Error {
  if (error.name === 'AbortError') return error
  if (error.code === 'EACCES' || error.code === 'EPERM')
    return new HotsiteError('permission-denied', `you may not use the admin socket ${socketPath}`, {
      cause: error,
    })
  const why =
    { ENOENT: 'nothing is there', ECONNREFUSED: 'nobody listens' }[error.code ?? ''] ?? error.message
  return new HotsiteError('admin-socket-unreachable', `no coordinator answers on ${socketPath}: ${why}`, {
    cause: error,
    details: { socketPath },
  })
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

interface Refusal {
  readonly code: string
  readonly message: string
  readonly details?: Record<string, unknown>
}

function isRefusal(value: unknown): value is Refusal {
  return typeof value === 'object' && value !== null && 'code' in value && 'message' in value
}

function isBrokenOff(value: unknown): value is { error: Refusal } {
  return (
    typeof value === 'object' &&
    value !== null &&
    !('jobId' in value) &&
    'error' in value &&
    isRefusal(value.error)
  )
}

function refusal(text: string, response: IncomingMessage): HotsiteError {
  const document = parseJson(text, response)
  return isRefusal(document) ? errorFromDocument(document) : foreignReply(response)
}

function parseJson(text: string, response: IncomingMessage): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw foreignReply(response)
  }
}

function foreignReply(response: IncomingMessage): HotsiteError {
  const version = response.headers['hotsite-version'] ?? 'unknown'
  return new HotsiteError(
    'coordinator-version-differs',
    `the coordinator (version ${version}) answered in an unknown form`,
  )
}
