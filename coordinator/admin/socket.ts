import { chmodSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { adminLimits } from './limits.ts'
import { openApiDocument } from './openapi.ts'
import { sendError, sendJson, sendLines } from './reply.ts'
import { readInput } from './request.ts'
import type { Route } from './route.ts'
import { matchRoute } from './router.ts'
import { routes } from './routes.ts'
import type { CoordinatorService } from './service.ts'
import { prepareSocketPlace } from './socket-place.ts'

export interface AdminSocketOptions {
  readonly service: CoordinatorService
  /** A Unix socket in a folder of mode 0700 (made if absent), or `\\.\pipe\<name>` on Windows. */
  readonly socketPath: string
  readonly log: Logger
  readonly version: string
}

/**
 * The admin API: HTTP over a local socket. Throws `admin-socket-in-use`, `admin-socket-exposed` and
 * `admin-socket-path-unusable`. Disposal ends the streams, lets running requests finish and removes the socket.
 */
export async function startAdminSocket(options: AdminSocketOptions): Promise<AsyncDisposable> {
  await prepareSocketPlace(options.socketPath)
  const stopping = new AbortController()
  const server = createServer(
    { requestTimeout: adminLimits.requestTimeoutMs, connectionsCheckingInterval: 5_000 },
    createHandler(options, stopping.signal),
  )
  server.maxConnections = adminLimits.maxConnections
  await listen(server, options.socketPath)
  server.on('error', (error) => options.log.error('admin socket error', { error }))
  options.log.info('admin socket listening', { socketPath: options.socketPath })
  return { [Symbol.asyncDispose]: () => close(server, stopping) }
}

function createHandler({ service, log, version }: AdminSocketOptions, stopping: AbortSignal) {
  const table: Readonly<Record<string, Route>> = routes
  const description = openApiDocument(table, version)
  let requests = 0

  return (request: IncomingMessage, response: ServerResponse): void => {
    requests += 1
    const requestId = `r${requests}`
    const hangUp = new AbortController()
    response.once('close', () => hangUp.abort())
    response.setHeader('hotsite-version', version)
    const signal = AbortSignal.any([hangUp.signal, stopping])
    answer({ request, response, service, table, description, signal }).catch((error: unknown) => {
      if (hangUp.signal.aborted) return
      if (stopping.aborted && response.headersSent) {
        response.end()
        return
      }
      if (!(error instanceof HotsiteError) || error.code === 'internal')
        log.error('admin request failed', { requestId, method: request.method, url: request.url, error })
      else
        log.debug('admin request refused', {
          requestId,
          method: request.method,
          url: request.url,
          code: error.code,
        })
      sendError(response, error, requestId)
    })
  }
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly service: CoordinatorService
  readonly table: Readonly<Record<string, Route>>
  readonly description: unknown
  readonly signal: AbortSignal
}

async function answer({ request, response, service, table, description, signal }: Exchange): Promise<void> {
  const [rawPath = '/', search = ''] = (request.url ?? '/').split('?', 2)
  const method = request.method ?? 'GET'
  if (rawPath === '/openapi.json' && method === 'GET') return sendJson(response, 200, description)
  const match = matchRoute(table, method, rawPath)
  if (match.kind === 'none')
    throw new HotsiteError('not-found', `no such address: ${method} ${rawPath}; GET /openapi.json lists them`)
  if (match.kind === 'method') {
    response.setHeader('allow', match.allowed.join(', '))
    throw new HotsiteError('request-invalid', `${rawPath} takes ${match.allowed.join(', ')}, not ${method}`)
  }
  const { reply } = match.route
  const input = await readInput(request, match.route, match.params, new URLSearchParams(search), signal)
  const value: unknown = await match.route.handle(service, input)
  switch (reply.kind) {
    case 'nothing':
      response.writeHead(204).end()
      return
    case 'json':
      return sendJson(response, reply.status, reply.schema.parse(value))
    case 'lines':
      return await sendLines(response, value as AsyncIterable<unknown>, reply.schema, signal)
  }
}

function listen(server: Server, socketPath: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        error.code === 'EADDRINUSE'
          ? new HotsiteError('admin-socket-in-use', `another coordinator took ${socketPath}`, {
              cause: error,
            })
          : error,
      )
    })
    server.listen(socketPath, () => {
      if (process.platform !== 'win32') chmodSync(socketPath, 0o600)
      resolve()
    })
  })
}

async function close(server: Server, stopping: AbortController): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  stopping.abort()
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), adminLimits.closeGraceMs)
  await closed
  clearTimeout(cut)
}
