/**
 * sync_file_range(2) with SYNC_FILE_RANGE_WRITE: the kernel begins to write a range to the disk and does not wait, so
 * that a later sync finds most of it done. It promises nothing: only the sync does. Where it is missing (another
 * platform, no native binding) nothing happens.
 */
import { createRequire } from 'node:module'

type WriteOut = (fd: number, offsetBytes: number, lengthBytes: number) => void

/** SYNC_FILE_RANGE_WRITE */
const BEGIN = 2

export function openWriteOut(): WriteOut {
  if (process.platform !== 'linux') return () => {}
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const range = koffi
      .load(null)
      .func('int sync_file_range(int fd, int64_t offset, int64_t length, uint flags)') as unknown as (
      fd: number,
      offsetBytes: number,
      lengthBytes: number,
      flags: number,
    ) => number
    return (fd, offsetBytes, lengthBytes) => {
      range(fd, offsetBytes, lengthBytes, BEGIN)
    }
  } catch {
    // No binary of the binding for this platform; see above.
    return () => {}
  }
}
