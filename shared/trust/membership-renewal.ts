import type { Membership } from './membership.ts'

/**
 * From when on a server may register again without giving up its identity: the last third of its membership. It keeps its
 * keys and its id, so nothing that hangs on them is touched.
 */
export function renewalDueAtMs({
  issuedAtMs,
  expiresAtMs,
}: Pick<Membership, 'issuedAtMs' | 'expiresAtMs'>): number {
  return expiresAtMs - Math.floor((expiresAtMs - issuedAtMs) / 3)
}
