/** docs/operations.md lists exactly the keys that the daemons read, with the defaults they have. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { z } from 'zod'
import { coordinatorConfigSchema } from '#coordinator/config.ts'
import { providerConfig } from '#provider-agent/config.ts'
import { agentConfigSchema } from '#recovery-agent/config.ts'

const page = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')

/** What the second column says: "required", a default, or nothing. */
function documented(file: string): ReadonlyMap<string, string> {
  const section = page.split(`### ${file}\n`)[1]?.split(/\n##/)[0] ?? ''
  return new Map(
    [...section.matchAll(/^\| `([\w.]+)` \| (.*?) ?\| /gm)].map(([, key = '', cell = '']) => [
      key,
      cell.replaceAll('`', ''),
    ]),
  )
}

const node = z.looseObject({
  properties: z.record(z.string(), z.unknown()).optional(),
  oneOf: z.array(z.unknown()).optional(),
  required: z.array(z.string()).optional(),
  default: z.unknown().optional(),
})

function keysOf(schema: unknown, path = '', inherited: unknown = undefined): [string, string][] {
  const { properties, oneOf, required = [], default: own } = node.parse(schema)
  const given = own ?? inherited
  if (oneOf) return oneOf.flatMap((one) => keysOf(one, path, given))
  return Object.entries(properties ?? {}).flatMap(([name, child]) => {
    const at = path === '' ? name : `${path}.${name}`
    const fromAbove = z.record(z.string(), z.unknown()).safeParse(given).data?.[name]
    const shape = node.parse(child)
    if (shape.properties || shape.oneOf) return keysOf(child, at, fromAbove)
    const standard = shape.default ?? fromAbove
    return [[at, standard !== undefined ? String(standard) : required.includes(name) ? 'required' : '']]
  })
}

it.each([
  ['coordinator.yaml', coordinatorConfigSchema],
  ['provider.yaml', providerConfig],
  ['agent.yaml', agentConfigSchema],
])('%s', (file, schema: z.ZodType) => {
  const real = new Map(keysOf(z.toJSONSchema(schema, { io: 'input' })))
  expect(real.size).toBeGreaterThan(5)
  expect(Object.fromEntries(documented(file))).toEqual(Object.fromEntries(real))
})
