import { z } from 'zod'
import type { CoordinatorService } from './service.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** Replies go out through their schema: a field it does not name never leaves the coordinator (I15). */
export type Reply =
  | { readonly kind: 'json'; readonly status: 200 | 201 | 202; readonly schema: z.ZodType }
  | { readonly kind: 'nothing'; readonly status: 204 }
  /** Newline-delimited JSON for as long as there is something to say. */
  | { readonly kind: 'lines'; readonly status: 200; readonly schema: z.ZodType }

type Listed<Value> = Value extends readonly (infer Item)[] ? readonly Item[] : Value
export type ReplyValue<R extends Reply> = R extends { kind: 'json'; schema: infer Schema extends z.ZodType }
  ? Listed<z.output<Schema>>
  : R extends { kind: 'lines'; schema: infer Schema extends z.ZodType }
    ? AsyncIterable<z.output<Schema>>
    : undefined

/** '/v1/vms/{vm}/points/{point}' → 'vm' | 'point' */
export type ParamName<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? Name | ParamName<Rest>
  : never

export interface RouteInput<Path extends string, Query extends z.ZodObject, Body extends z.ZodObject> {
  readonly params: Readonly<Record<ParamName<Path>, string>>
  readonly query: z.output<Query>
  readonly body: z.output<Body>
  /** Aborts when the caller hangs up or the coordinator stops. */
  readonly signal: AbortSignal
}

/** One entry of the table the router, the OpenAPI description and the CLI's client are made from. */
export interface Route<
  Path extends string = string,
  Query extends z.ZodObject = z.ZodObject,
  Body extends z.ZodObject = z.ZodObject,
  R extends Reply = Reply,
> {
  readonly method: Method
  readonly path: Path
  readonly summary: string
  readonly query: Query
  readonly body: Body
  readonly reply: R
  handle(service: CoordinatorService, input: RouteInput<Path, Query, Body>): Promise<ReplyValue<R>>
}

export const nothing = z.strictObject({})

export function route<
  const Path extends string,
  const R extends Reply,
  Query extends z.ZodObject = typeof nothing,
  Body extends z.ZodObject = typeof nothing,
>(
  definition: Pick<Route<Path, Query, Body, R>, 'method' | 'path' | 'summary' | 'reply'> & {
    query?: Query
    body?: Body
    handle: (service: CoordinatorService, input: RouteInput<Path, Query, Body>) => Promise<ReplyValue<R>>
  },
): Route<Path, Query, Body, R> {
  // An absent schema is `nothing`, which is what the type parameters' defaults say.
  return { query: nothing, body: nothing, ...definition } as unknown as Route<Path, Query, Body, R>
}

export const ok = <Schema extends z.ZodType>(schema: Schema) =>
  ({ kind: 'json', status: 200, schema }) as const
export const created = <Schema extends z.ZodType>(schema: Schema) =>
  ({ kind: 'json', status: 201, schema }) as const
/** A job was started: the reply is the job as it is now. */
export const accepted = <Schema extends z.ZodType>(schema: Schema) =>
  ({ kind: 'json', status: 202, schema }) as const
export const lines = <Schema extends z.ZodType>(schema: Schema) =>
  ({ kind: 'lines', status: 200, schema }) as const
export const noContent = { kind: 'nothing', status: 204 } as const
