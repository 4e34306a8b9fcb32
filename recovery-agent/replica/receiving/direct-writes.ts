/**
 * Writes past the page cache (O_DIRECT, open(2)): a replica is written once and seldom read soon, so the copy into the
 * cache, the memory for it and the wait of a later sync for its way to the disk are all for nothing. The price is that
 * each write waits for the disk, so only large ones go this way, from whole pages to whole pages; what does not lie on
 * pages is copied there first. Where a file system refuses (tmpfs for one), files are written as usual.
 */
import { closeSync, constants, openSync, writevSync } from 'node:fs'
import { allocatePages, openPageOffset, PAGE_BYTES } from '#shared/memory-address.ts'

/** Smaller ones are faster through the cache. */
const MIN_BYTES = 64 << 10
const BOUNCE_BYTES = 1 << 20

const pageOffset = openPageOffset()

export class DirectWrites {
  /** undefined: not tried yet. null: refused. */
  #fd: number | null | undefined = process.platform === 'linux' ? undefined : null

  /** Where blocks are gathered that do not lie on pages. */
  #pages: Buffer | undefined

  /** How many bytes it wrote, from the front; the rest is for the caller. `fd`: the same file, open for writing. */
  write(fd: number, buffers: readonly Buffer[], offsetBytes: number): number {
    const total = buffers.reduce((sum, buffer) => sum + buffer.length, 0)
    const onPages = offsetBytes % PAGE_BYTES === 0 && buffers.every(({ length }) => length % PAGE_BYTES === 0)
    if (total < MIN_BYTES || !onPages || this.#fd === null) return 0
    try {
      this.#fd ??= openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_DIRECT)
      if (buffers.every((buffer) => pageOffset(buffer) === 0))
        return writevSync(this.#fd, buffers, offsetBytes)
      this.#pages ??= allocatePages(BOUNCE_BYTES, pageOffset)
      return writeCopies(this.#fd, { buffers, offsetBytes, pages: this.#pages })
    } catch (error) {
      if (!refusals.has((error as NodeJS.ErrnoException).code ?? '')) throw error
      this.close()
      this.#fd = null
      return 0
    }
  }

  close(): void {
    if (typeof this.#fd === 'number') closeSync(this.#fd)
    this.#fd = undefined
  }
}

/** Alignment that suits pages may not suit the device; and not every file system, or /proc, is there. */
const refusals = new Set(['EINVAL', 'EOPNOTSUPP', 'ENOTSUP', 'ENOENT', 'EACCES'])

function writeCopies(
  fd: number,
  { buffers, offsetBytes, pages }: { buffers: readonly Buffer[]; offsetBytes: number; pages: Buffer },
): number {
  let done = 0
  let filled = 0
  const flush = () => {
    const written = filled === 0 ? 0 : writevSync(fd, [pages.subarray(0, filled)], offsetBytes + done)
    const isWhole = written === filled
    done += written
    filled = 0
    return isWhole
  }
  for (const buffer of buffers) {
    for (let from = 0; from < buffer.length; ) {
      if (filled === pages.length && !flush()) return done
      const copied = buffer.copy(pages, filled, from)
      from += copied
      filled += copied
    }
  }
  flush()
  return done
}
