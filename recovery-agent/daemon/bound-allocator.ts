/**
 * Bounds what the C library keeps of memory that was freed. glibc gives every thread an arena of its own and raises the size from
 * which memory is mapped by itself up to 32 MiB, so that blocks of payload end up between small things and none of it goes
 * back to the system (measured: 40 to 60 MiB of an agent). Elsewhere, or without the native binding, nothing happens.
 */
import { createRequire } from 'node:module'

/** mallopt(3), <malloc.h>. */
const M_MMAP_THRESHOLD = -3
const M_ARENA_MAX = -8

const ARENAS = 2
/** Slabs, payload and what SQLite keeps of it are of this size and more; smaller pieces pass too often to be mapped. */
const MAPPED_FROM_BYTES = 1 << 20

/** Takes about a millisecond of the arenas' time. */
const TRIM_EVERY_MS = 2_000

/** Before the first thread: those that are there keep their arena. Until it is disposed, what is free goes back now and then. */
export function boundAllocator(): Disposable {
  if (process.platform !== 'linux') return { [Symbol.dispose]() {} }
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const library = koffi.load(null)
    const mallopt = library.func('int mallopt(int param, int value)')
    mallopt(M_ARENA_MAX, ARENAS)
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    const trim = library.func('int malloc_trim(size_t pad)')
    const timer = setInterval(() => trim(0), TRIM_EVERY_MS).unref()
    return { [Symbol.dispose]: () => clearInterval(timer) }
  } catch {
    // No binary of the binding, or a C library without the call; see above.
    return { [Symbol.dispose]() {} }
  }
}
