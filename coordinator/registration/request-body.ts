import type { IncomingMessage } from 'node:http'
import { describeIssues } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type RegistrationRequest, registrationRequest } from '#shared/trust/registration-protocol.ts'
import { registrationLimits } from '#shared/trust/trust-limits.ts'

/** Reads, bounds and checks the body. Throws `request-invalid`; never quotes the body, which holds the token (I15). */
export async function readRequest(request: IncomingMessage): Promise<RegistrationRequest> {
  const text = await readBounded(request, registrationLimits.maxRequestBytes)
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    throw new HotsiteError('request-invalid', 'the registration request is not JSON')
  }
  const parsed = registrationRequest.safeParse(document)
  if (parsed.success) return parsed.data
  throw new HotsiteError(
    'request-invalid',
    `the registration request is not valid: ${describeIssues(parsed.error)}`,
  )
}

async function readBounded(request: IncomingMessage, maxBytes: number): Promise<string> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  // Leaving the loop must not destroy the connection: the refusal still has to be sent.
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    sizeBytes += part.length
    if (sizeBytes > maxBytes)
      throw new HotsiteError('request-invalid', `the registration request is larger than ${maxBytes} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
