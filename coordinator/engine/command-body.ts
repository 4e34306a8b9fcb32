import { z } from 'zod'
import type { OutboxRow } from '../store/outbox.ts'
import type { Engine } from './engine.ts'
import { seedKeyBase64 } from './seed-keys.ts'

const document = z.record(z.string(), z.unknown())

/**
 * The request as it goes to the agent: the row's own text, and for seeds the key, which no row holds. Throws
 * `seed-key-lost`.
 */
export async function commandBody(engine: Engine, row: OutboxRow): Promise<Buffer> {
  if (row.kind !== 'seed.export' && row.kind !== 'seed.import') return Buffer.from(row.request)
  const keyBase64 = await seedKeyBase64(engine, engine.db, row)
  return Buffer.from(JSON.stringify({ ...document.parse(JSON.parse(row.request)), keyBase64 }))
}
