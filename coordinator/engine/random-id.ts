import { intBelow, type Rng } from '#shared/rng.ts'

const digits = '0123456789abcdefghjkmnpqrstvwxyz'

/** "job-4f7x0c9kq2m1": 60 bits after the prefix, readable over the phone. */
export function randomId(prefix: string, rng: Rng): string {
  const tail = Array.from({ length: 12 }, () => digits.charAt(intBelow(rng, digits.length)))
  return `${prefix}-${tail.join('')}`
}
