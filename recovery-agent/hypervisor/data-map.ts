/**
 * Where a raw image holds data: lseek(2) with SEEK_DATA and SEEK_HOLE, 0.25 µs a call. Where the call is missing (no
 * native binding, another platform, a file system without it) everything counts as data, which is slower, never wrong.
 */
import { createRequire } from 'node:module'
import type { Extent } from './port.ts'

type Seek = (fd: number, offsetBytes: number, whence: number) => number

interface SeekBinding {
  readonly seek: Seek
  readonly errno: () => number
  readonly data: number
  readonly hole: number
}

/** "No data from here to the end", on Linux and macOS. */
const ENXIO = 6

export type DataMap = (fd: number, sizeBytes: number) => Extent[]

export const everythingAllocated: DataMap = (_fd, sizeBytes) => [{ offsetBytes: 0, lengthBytes: sizeBytes }]

export function openDataMap(): DataMap {
  const binding = loadBinding()
  return binding ? (fd, sizeBytes) => seekExtents(binding, fd, sizeBytes) : everythingAllocated
}

/** The first extent with data that ends above `offsetBytes`; null: none. */
export type NextData = (fd: number, offsetBytes: number, sizeBytes: number) => Extent | null

/** The same, asked step by step: for readers that look at a small part of a large disk. */
export function openNextData(): NextData {
  const binding = loadBinding()
  if (binding) return (fd, offsetBytes, sizeBytes) => seekNext(binding, { fd, offsetBytes, sizeBytes })
  return (_fd, offsetBytes, sizeBytes) =>
    offsetBytes < sizeBytes ? { offsetBytes: 0, lengthBytes: sizeBytes } : null
}

function seekNext(
  binding: SeekBinding,
  of: { readonly fd: number; readonly offsetBytes: number; readonly sizeBytes: number },
): Extent | null {
  const { fd, offsetBytes, sizeBytes } = of
  if (offsetBytes >= sizeBytes) return null
  const start = binding.seek(fd, offsetBytes, binding.data)
  if (start < 0 && binding.errno() === ENXIO) return null
  if (start < 0) return { offsetBytes, lengthBytes: sizeBytes - offsetBytes }
  if (start >= sizeBytes) return null
  const hole = binding.seek(fd, start, binding.hole)
  return { offsetBytes: start, lengthBytes: (hole < 0 ? sizeBytes : Math.min(hole, sizeBytes)) - start }
}

function loadBinding(): SeekBinding | undefined {
  const whence = { linux: { data: 3, hole: 4 }, darwin: { data: 4, hole: 3 } }[process.platform as string]
  if (!whence) return undefined
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    // null: the symbols of this very process, so the same for every C library.
    const seek = koffi.load(null).func('int64_t lseek(int fd, int64_t offset, int whence)') as unknown as Seek
    return { seek, errno: () => koffi.errno(), ...whence }
  } catch {
    // No binary of the binding for this platform: the fallback is correct without it.
    return undefined
  }
}

function seekExtents(binding: SeekBinding, fd: number, sizeBytes: number): Extent[] {
  const extents: Extent[] = []
  let offsetBytes = 0
  while (offsetBytes < sizeBytes) {
    const start = binding.seek(fd, offsetBytes, binding.data)
    if (start < 0) {
      if (binding.errno() === ENXIO) return extents
      return [...extents, { offsetBytes, lengthBytes: sizeBytes - offsetBytes }]
    }
    if (start >= sizeBytes) return extents
    const hole = binding.seek(fd, start, binding.hole)
    const end = hole < 0 ? sizeBytes : Math.min(hole, sizeBytes)
    extents.push({ offsetBytes: start, lengthBytes: end - start })
    offsetBytes = end
  }
  return extents
}
