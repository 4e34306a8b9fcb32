/**
 * seed.json: what a seed holds and which of its parts are finished. Readable for people, and under an HMAC-SHA256 of
 * the seed key (HKDF, "hotsite seed manifest"), so that nothing in it can be changed on the way.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { HotsiteError } from '../../errors/hotsite-error.ts'
import { diskId, serverId, vaultId, vmId } from '../../ids.ts'
import { canonicalJson } from '../../trust/canonical-json.ts'

export const SEED_MANIFEST = 'seed.json'
export const SEED_VERSION = 1

export const seedPart = z.strictObject({
  file: z.string().regex(/^[a-z0-9-]+\.seed$/),
  bytes: z.int().positive(),
  diskId,
  /** Groups of 256 blocks: [firstGroup, endGroup). */
  firstGroup: z.int().nonnegative(),
  endGroup: z.int().positive(),
  blocks: z.int().nonnegative(),
  /** BLAKE3-256 over the leaves of its groups: whether the part still says what the disk says. */
  leavesHex: z.string().length(64),
})
export type SeedPart = z.infer<typeof seedPart>

export const seedManifest = z.strictObject({
  format: z.literal('hotsite-seed'),
  version: z.int(),
  vaultId,
  vmId,
  sourceServerId: serverId,
  /** Of the snapshot the last writing read. Parts kept from an earlier writing were found equal to it. */
  capturedAtMs: z.number(),
  /** false: the writing was interrupted, or goes on. */
  complete: z.boolean(),
  disks: z.array(z.strictObject({ diskId, sizeBytes: z.int().nonnegative() })),
  parts: z.array(seedPart),
})
export type SeedManifest = z.infer<typeof seedManifest>

export function encodeSeedManifest(manifest: SeedManifest, seedKey: Uint8Array): string {
  const document = { ...manifest, macHex: macOf(manifest, seedKey).toString('hex') }
  return `${JSON.stringify(document, null, 2)}\n`
}

/** Throws `seed-damaged`, `seed-key-wrong`. */
export function decodeSeedManifest(text: string, seedKey: Uint8Array): SeedManifest {
  const { macHex, manifest } = parse(text)
  const mac = Buffer.from(macHex, 'hex')
  const expected = macOf(manifest, seedKey)
  if (mac.length !== expected.length || !timingSafeEqual(mac, expected))
    throw new HotsiteError(
      'seed-key-wrong',
      `${SEED_MANIFEST} of VM ${manifest.vmId} was written with another key, or changed since`,
    )
  return manifest
}

function parse(text: string): { readonly macHex: string; readonly manifest: SeedManifest } {
  try {
    const { macHex, ...manifest } = seedManifest.extend({ macHex: z.string() }).parse(JSON.parse(text))
    if (manifest.version === SEED_VERSION) return { macHex, manifest }
    throw new Error(`its version is ${manifest.version}, this program reads ${SEED_VERSION}`)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new HotsiteError('seed-damaged', `${SEED_MANIFEST} cannot be read: ${why}`, { cause: error })
  }
}

function macOf(manifest: SeedManifest, seedKey: Uint8Array): Buffer {
  const key = Buffer.from(hkdfSync('sha256', seedKey, '', 'hotsite seed manifest', 32))
  return createHmac('sha256', key).update(canonicalJson(manifest)).digest()
}
