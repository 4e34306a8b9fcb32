import { mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { writeFileDurably } from '../durable-file.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'

/** Durable, and never readable by others, not even for an instant (I15). Folders on the way are made with mode 0700. */
export function writeSecretFile(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  // A leftover of a crash keeps its own mode when it is opened again; a new file gets ours.
  rmSync(`${path}.tmp`, { force: true })
  writeFileDurably(path, content, 0o600)
}

/** undefined: there is no such file. Throws `secret-file-exposed` when group or others may read or write it. */
export function readSecretFile(path: string): string | undefined {
  try {
    // Windows has access lists instead of these bits; the installer sets them on the folder.
    const mode = statSync(path).mode & 0o777
    if (process.platform !== 'win32' && mode & 0o077) {
      const shown = mode.toString(8).padStart(4, '0')
      throw new HotsiteError('secret-file-exposed', `${path} has mode ${shown}; it must be 0600`, {
        details: { path, mode: shown },
      })
    }
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/** For a secret file that cannot be parsed. The content, and a parser's message quoting it, stay out of the error. */
export function damagedSecretFile(path: string, problem: string): HotsiteError {
  return new HotsiteError('secret-file-damaged', `${path} cannot be used: ${problem}`, { details: { path } })
}

/** The JSON object in `text`, or undefined. */
export function parseSecretJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
