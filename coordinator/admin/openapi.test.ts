import { expect, it } from 'vitest'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { openApiDocument } from './openapi.ts'
import { policyPatch } from './policy-patch.ts'
import { routes } from './routes.ts'

type Json = Record<string, unknown>
const document = JSON.parse(JSON.stringify(openApiDocument(routes, '1.2.3'))) as Json
const paths = document['paths'] as Record<string, Record<string, Json>>

function* walk(value: unknown, at = '#'): Generator<[string, Json]> {
  if (value === null || typeof value !== 'object') return
  if (!Array.isArray(value)) yield [at, value as Json]
  for (const [key, inner] of Object.entries(value)) yield* walk(inner, `${at}/${key}`)
}

function resolvePointer(pointer: string): unknown {
  return pointer
    .slice(2)
    .split('/')
    .reduce<unknown>((at, key) => (at as Json | undefined)?.[key], document)
}

it('has what OpenAPI 3.1 requires of a document', () => {
  expect(document['openapi']).toMatch(/^3\.1\.\d+$/)
  expect(document['info']).toMatchObject({ title: expect.any(String), version: '1.2.3' })
  const known = ['openapi', 'info', 'servers', 'paths', 'components']
  expect(Object.keys(document).filter((key) => !known.includes(key))).toEqual([])
  for (const path of Object.keys(paths)) expect(path).toMatch(/^\/[a-z0-9{}/_-]*$/i)
  const names = Object.keys((document['components'] as { schemas: Json }).schemas)
  for (const name of names) expect(name).toMatch(/^[a-zA-Z0-9._-]+$/)
})

it('describes every route, once, with its parameters and replies', () => {
  const ids: unknown[] = []
  for (const [name, route] of Object.entries(routes)) {
    const operation = paths[route.path]?.[route.method.toLowerCase()] ?? {}
    ids.push(operation['operationId'])
    expect(operation).toMatchObject({ operationId: name, summary: route.summary })
    const parameters = (operation['parameters'] ?? []) as { name: string; in: string; required: boolean }[]
    const inPath = parameters.filter((parameter) => parameter.in === 'path')
    expect(inPath.every((parameter) => parameter.required)).toBe(true)
    expect(inPath.map((parameter) => `{${parameter.name}}`)).toEqual(route.path.match(/\{\w+\}/g) ?? [])
    const responses = operation['responses'] as Record<string, Json>
    expect(Object.keys(responses)).toEqual([String(route.reply.status), 'default'])
    for (const response of Object.values(responses))
      expect(response['description']).toEqual(expect.any(String))
  }
  expect(new Set(ids).size).toBe(ids.length)
  const described = Object.values(paths).flatMap((path) => Object.keys(path))
  expect(described.length).toBe(Object.keys(routes).length)
})

it('every reference resolves, and no schema moves the base of references', () => {
  let references = 0
  for (const [at, node] of walk(document)) {
    expect([at, '$id' in node, '$schema' in node]).toEqual([at, false, false])
    const target = node['$ref']
    if (typeof target !== 'string') continue
    references += 1
    expect([at, target, resolvePointer(target) !== undefined]).toEqual([at, target, true])
  }
  expect(references).toBeGreaterThan(50)
})

it('every schema uses keywords and types of JSON Schema 2020-12', () => {
  const types = ['string', 'number', 'integer', 'boolean', 'object', 'array', 'null']
  const schemas = (document['components'] as { schemas: Record<string, Json> }).schemas
  for (const [at, node] of walk(schemas)) {
    if (typeof node['type'] === 'string') expect([at, types.includes(node['type'])]).toEqual([at, true])
    expect([at, 'nullable' in node]).toEqual([at, false])
  }
  const required = schemas['Vm']?.['required']
  expect(required).toContain('dataAgeMs')
  expect(schemas['PairCloudsRequest']?.['required']).toEqual(['source', 'target', 'policy'])
})

it('a policy patch has the fields of the policy and fills nothing in', () => {
  expect(Object.keys(policyPatch.shape)).toEqual(Object.keys(replicationPolicy.shape))
  expect(policyPatch.parse({})).toEqual({})
  expect(policyPatch.safeParse({ retentionPoints: undefined }).success).toBe(false)
})
