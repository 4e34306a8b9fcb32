import { z } from 'zod'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { adminLimits } from './limits.ts'
import type { Route } from './route.ts'
import {
  cloudView,
  credentialsView,
  errorView,
  eventView,
  jobView,
  pointView,
  serverView,
  statusView,
  vaultView,
  vmView,
} from './views.ts'

type Json = Record<string, unknown>

const views = {
  Error: errorView,
  Vault: vaultView,
  Credentials: credentialsView,
  Server: serverView,
  Cloud: cloudView,
  ReplicationPolicy: replicationPolicy,
  Vm: vmView,
  Point: pointView,
  Job: jobView,
  Event: eventView,
  Status: statusView,
}

/** The OpenAPI 3.1 description (https://spec.openapis.org/oas/v3.1.1.html) of a route table. */
export function openApiDocument(table: Readonly<Record<string, Route>>, version: string): Json {
  const { replies, bodies } = collectSchemas(table)
  const paths: Record<string, Json> = {}
  for (const [name, route] of Object.entries(table)) {
    const path = paths[route.path] ?? {}
    path[route.method.toLowerCase()] = operation(name, route, replies, bodies)
    paths[route.path] = path
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'Hotsite coordinator',
      version,
      description:
        'Served over the admin socket of the coordinator. Times are milliseconds since 1970, sizes are bytes.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [
      { url: 'http://hotsite', description: 'curl --unix-socket "$HOTSITE_SOCKET" http://hotsite/v1/status' },
    ],
    paths,
    components: { schemas: { ...componentSchemas(replies, 'output'), ...componentSchemas(bodies, 'input') } },
  }
}

type Names = Map<z.ZodType, string>

function collectSchemas(table: Readonly<Record<string, Route>>): { replies: Names; bodies: Names } {
  const replies: Names = new Map(Object.entries(views).map(([name, schema]) => [schema, name]))
  const bodies: Names = new Map()
  for (const [name, route] of Object.entries(table)) {
    const base = name.charAt(0).toUpperCase() + name.slice(1)
    if (route.reply.kind !== 'nothing' && !replies.has(route.reply.schema))
      replies.set(route.reply.schema, `${base}Reply`)
    if (takesBody(route) && !bodies.has(route.body)) bodies.set(route.body, `${base}Request`)
  }
  return { replies, bodies }
}

/** A request may leave out what has a default; a reply never does: the two sides are described apart. */
function componentSchemas(names: Names, io: 'input' | 'output'): Json {
  const registry = z.registry<{ id: string }>()
  for (const [schema, id] of names) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, { io, uri: reference })
  return Object.fromEntries(Object.entries(schemas).map(([id, schema]) => [id, withoutIdentity(schema)]))
}

function operation(name: string, route: Route, replies: Names, bodies: Names): Json {
  return {
    operationId: name,
    summary: route.summary,
    ...parameters(route),
    ...(takesBody(route)
      ? {
          requestBody: {
            required: !route.body.safeParse({}).success,
            content: { 'application/json': { schema: { $ref: reference(bodies.get(route.body) ?? '') } } },
          },
        }
      : {}),
    responses: {
      [route.reply.status]: success(route, replies),
      default: {
        description:
          'What happened, the likely cause and what to do. 400 invalid, 404 not found, 409 refused, 500 failed.',
        content: { 'application/json': { schema: { $ref: reference('Error') } } },
      },
    },
  }
}

function success(route: Route, replies: Names): Json {
  if (route.reply.kind === 'nothing') return { description: 'Done.' }
  const type = route.reply.kind === 'lines' ? 'application/x-ndjson' : 'application/json'
  return {
    description: route.reply.status === 202 ? 'The job that was started.' : route.summary,
    content: { [type]: { schema: { $ref: reference(replies.get(route.reply.schema) ?? '') } } },
  }
}

function parameters(route: Route): Json {
  const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    description: 'Name or id, percent-encoded',
    schema: { type: 'string', minLength: 1, maxLength: adminLimits.maxNameCharacters },
  }))
  const query = z.toJSONSchema(route.query, { io: 'input' })
  const inQuery = Object.entries(query.properties ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: query.required?.includes(name) ?? false,
    schema,
  }))
  const all = [...inPath, ...inQuery]
  return all.length > 0 ? { parameters: all } : {}
}

function takesBody(route: Route): boolean {
  return Object.keys(route.body.shape).length > 0
}

function reference(id: string): string {
  return `#/components/schemas/${id}`
}

/** Inside one document the place of a schema is its identity; a `$id` would move the base of every reference. */
function withoutIdentity(schema: object): Json {
  const { $id: _, $schema: __, ...rest } = schema as Json
  return rest
}
