import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * Whether a tool the tests take their truth from is installed. `describe.skipIf(!hasTool('qemu-img'))` leaves a check
 * out on a developer's machine; in CI leaving one out is a failure.
 */
export function hasTool(name: string, env: NodeJS.ProcessEnv = process.env): boolean {
  // Service users often lack the sbin folders, where e2fsck lives.
  const folders = [...(env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'].filter(Boolean)
  if (folders.some((folder) => isExecutable(join(folder, name)))) return true
  if (env['CI']) throw new Error(`${name} is not installed, and in CI no check may be left out`)
  return false
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
