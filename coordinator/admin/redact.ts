const secretKey = /(secret|token|password|passphrase|private.?key|credential)/i
const secretText = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g

/** The last line of defence of I15 for what no schema describes: the details and the text of an error. */
export function redact(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(secretText, '[removed]')
  if (Array.isArray(value)) return value.map(redact)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, secretKey.test(key) ? '[removed]' : redact(inner)]),
  )
}
