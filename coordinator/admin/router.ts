import type { Method, Route } from './route.ts'

export type Match =
  | {
      readonly kind: 'route'
      readonly name: string
      readonly route: Route
      readonly params: Record<string, string>
    }
  /** The path exists, the method does not fit. */
  | { readonly kind: 'method'; readonly allowed: readonly Method[] }
  | { readonly kind: 'none' }

/** `rawPath` is still percent-encoded: a name may hold a slash, as in "vmm-a/gold". */
export function matchRoute(table: Readonly<Record<string, Route>>, method: string, rawPath: string): Match {
  const segments = rawPath.split('/')
  const allowed: Method[] = []
  for (const [name, route] of Object.entries(table)) {
    const params = matchPath(route.path.split('/'), segments)
    if (!params) continue
    if (route.method === method) return { kind: 'route', name, route, params }
    allowed.push(route.method)
  }
  return allowed.length > 0 ? { kind: 'method', allowed } : { kind: 'none' }
}

function matchPath(template: readonly string[], segments: readonly string[]): Record<string, string> | null {
  if (template.length !== segments.length) return null
  const params: Record<string, string> = {}
  for (const [index, part] of template.entries()) {
    const segment = segments[index] ?? ''
    if (!part.startsWith('{')) {
      if (part !== segment) return null
      continue
    }
    const value = decode(segment)
    if (value === null || value === '') return null
    params[part.slice(1, -1)] = value
  }
  return params
}

function decode(segment: string): string | null {
  try {
    return decodeURIComponent(segment)
  } catch {
    return null
  }
}

/** The address of a route for these parameters: the inverse of `matchRoute`. */
export function fillPath(template: string, params: Readonly<Record<string, string>>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ''))
}
