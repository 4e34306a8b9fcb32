/**
 * fallocate(2) with PUNCH_HOLE, which gives room inside a file back. Where it is missing (another platform, no native
 * binding, a file system without it) nothing happens: the clusters are reused by a later merge.
 */
import { createRequire } from 'node:module'

type PunchHole = (fd: number, offsetBytes: number, lengthBytes: number) => void

/** FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */
const PUNCH_MODE = 0x01 | 0x02

export function openPunchHole(): PunchHole {
  if (process.platform !== 'linux') return () => {}
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const fallocate = koffi
      .load(null)
      .func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as unknown as (
      fd: number,
      mode: number,
      offsetBytes: number,
      lengthBytes: number,
    ) => number
    return (fd, offsetBytes, lengthBytes) => {
      fallocate(fd, PUNCH_MODE, offsetBytes, lengthBytes)
    }
  } catch {
    // No binary of the binding for this platform; see above.
    return () => {}
  }
}
