import { adminErrors } from '#shared/errors/admin.ts'
import { generalErrors } from '#shared/errors/general.ts'
import { orchestrationErrors } from '#shared/errors/orchestration.ts'
import { trustErrors } from '#shared/errors/trust.ts'

/** What a caller does next depends only on this: the HTTP status and the CLI's exit code are derived from it. */
export type ErrorClass = 'invalid' | 'not-found' | 'refused' | 'unreachable' | 'failed'

const ofCode: Readonly<Record<string, ErrorClass>> = {
  'not-found': 'not-found',
  'request-invalid': 'invalid',
  'request-too-large': 'invalid',
  'config-invalid': 'invalid',
  'config-missing': 'invalid',
  'confirmation-needed': 'invalid',
  'usage-invalid': 'invalid',
  'file-unreadable': 'invalid',
  'file-exists': 'refused',
  'data-dir-in-use': 'refused',
  'data-version-unknown': 'failed',
  'credentials-version-unknown': 'invalid',
  'admin-socket-in-use': 'refused',
  'admin-socket-unreachable': 'unreachable',
  'coordinator-unreachable': 'unreachable',
  'vault-certificate-missing': 'refused',
  'name-ambiguous': 'invalid',
  'vm-ambiguous': 'invalid',
  'app-consistent-unsupported': 'invalid',
  'app-consistent-interval': 'invalid',
  'cloud-pair-itself': 'invalid',
  'start-time-invalid': 'invalid',
  'time-zone-unknown': 'invalid',
  'window-invalid': 'invalid',
  'point-damaged': 'refused',
  'agent-timeout': 'failed',
  'agent-answer-invalid': 'failed',
  'fence-failed': 'failed',
}

/** A code without a line of its own: what is unknown is not found, orchestration refuses, trust judges what it was given. */
export function classOfError(code: string): ErrorClass {
  const known = ofCode[code]
  if (known) return known
  if (/(^unknown-|-unknown$|-not-found$)/.test(code)) return 'not-found'
  if (/^(vault-certificate|credentials|key-pair)-/.test(code)) return 'invalid'
  if (code in generalErrors || code in adminErrors) return 'failed'
  if (code in orchestrationErrors || code in trustErrors) return 'refused'
  return 'failed'
}

export function httpStatusOf(code: string): 400 | 404 | 409 | 413 | 500 {
  if (code === 'request-too-large') return 413
  switch (classOfError(code)) {
    case 'invalid':
      return 400
    case 'not-found':
      return 404
    case 'refused':
      return 409
    case 'unreachable':
    case 'failed':
      return 500
  }
}
