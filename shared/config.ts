import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { HotsiteError } from './errors/hotsite-error.ts'
import type { ErrorCode } from './errors/table.ts'

const unreadable: ReadonlyMap<string, ErrorCode> = new Map([
  ['ENOENT', 'config-missing'],
  ['EACCES', 'permission-denied'],
])

/** Reads a daemon's YAML configuration. Use `z.strictObject`, so that an unknown key is an error that names it. */
export function loadConfig<Schema extends z.ZodType>(path: string, schema: Schema): z.infer<Schema> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const code = unreadable.get((error as NodeJS.ErrnoException).code ?? '') ?? 'config-invalid'
    const message = `cannot read the configuration ${path}: ${(error as Error).message}`
    throw new HotsiteError(code, message, { cause: error })
  }
  const document = parseDocument(text)
  const problem = document.errors[0]
  if (problem) throw new HotsiteError('config-invalid', `${path}: ${problem.message}`)
  const parsed = schema.safeParse(document.toJS())
  if (!parsed.success) throw new HotsiteError('config-invalid', `${path}: ${describeIssues(parsed.error)}`)
  return parsed.data
}

/** "listen.port: expected number, received string; unknown key "lisen"" */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .map((issue) => (issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message))
    .join('; ')
}

/** Paths in a configuration are relative to the file that names them. */
export function resolveFrom(configPath: string, path: string): string {
  return resolve(dirname(resolve(configPath)), path)
}

export const logConfig = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
  dir: z.string().optional(),
})

export const endpoint = z.strictObject({ host: z.string(), port: z.int().min(0).max(65535) })
export type Endpoint = z.infer<typeof endpoint>
