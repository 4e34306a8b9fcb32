import { HotsiteError } from './hotsite-error.ts'
import { isNoRoom } from './no-room.ts'

/** `disk-full`: what found no room, and in which folder; neither the system nor SQLite names one. */
export function diskFull(what: string, dir: string, cause: Error): HotsiteError {
  return new HotsiteError('disk-full', `no room left in ${dir} for ${what}: ${cause.message}`, {
    cause,
    details: { dir },
  })
}

/** The same for an error of a full disk; every other as it is. */
export function namingFullDisk(error: unknown, { what, dir }: { what: string; dir: string }): unknown {
  return isNoRoom(error) ? diskFull(what, dir, error) : error
}
