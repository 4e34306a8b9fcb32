/**
 * Where memory lies, for what wants it on whole pages (direct I/O). Where that cannot be told (no native binding for
 * this platform) memory counts as lying anywhere, which costs a copy and nothing else.
 */
import { createRequire } from 'node:module'

export const PAGE_BYTES = 4096

/** How far behind the start of a page it begins; undefined: not known. */
export type PageOffset = (memory: Uint8Array) => number | undefined

export function openPageOffset(): PageOffset {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    return (memory) => Number(BigInt(koffi.address(memory)) % BigInt(PAGE_BYTES))
  } catch {
    // No binary of the binding for this platform; see above.
    return () => undefined
  }
}

/** `sizeBytes` on whole pages, where that is possible. */
export function allocatePages(sizeBytes: number, pageOffset: PageOffset): Buffer {
  const memory = Buffer.allocUnsafeSlow(sizeBytes + PAGE_BYTES)
  const offset = pageOffset(memory) ?? 0
  return memory.subarray(PAGE_BYTES - offset, PAGE_BYTES - offset + sizeBytes)
}
