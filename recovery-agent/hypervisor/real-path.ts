import { realpathSync } from 'node:fs'

/** Without links. A file that is gone is named by its path at the most. */
export function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
