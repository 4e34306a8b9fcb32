/** What the tools of one run share. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { runScript } from '../processes.ts'
import { type SshServer, startSshServer } from '../ssh-server.ts'
import { makeTlsKeys } from '../tls-keys.ts'
import type { Job } from '../workload.ts'

export interface Site extends AsyncDisposable {
  readonly dir: string
  readonly sizeBytes: number
  /** Opened at the first call, one for all tools. */
  ssh(): Promise<SshServer>
  /** The folder of tls-keys.ts, made at the first call. */
  tlsKeys(): string
  /** An empty folder of this tool's own. */
  folder(tool: string): string
}

export function openSite(dir: string, sizeBytes: number): Site {
  let ssh: Promise<SshServer> | undefined
  let keys: string | undefined
  return {
    dir,
    sizeBytes,
    ssh() {
      ssh ??= startSshServer(join(dir, 'ssh'))
      return ssh
    },
    tlsKeys() {
      keys ??= makeTlsKeys(join(dir, 'tls'))
      return keys
    },
    folder(tool) {
      const path = join(dir, `tool-${tool}`)
      mkdirSync(path, { recursive: true })
      return path
    },
    async [Symbol.asyncDispose]() {
      await (await ssh)?.[Symbol.asyncDispose]()
    },
  }
}

/** W1: nothing. W2, W3: the disk as it was before the change, durable. */
export function startTarget({ phase, before, target }: Job): void {
  rmSync(target, { force: true })
  if (phase !== 'W1') runScript('cp --sparse=always "$1" "$2"; sync "$2"', [before, target])
}

/** Both raw. */
export function sameImage(a: string, b: string, format: 'raw' | 'qcow2' = 'raw'): boolean {
  try {
    runScript('qemu-img compare -f "$3" -F raw "$1" "$2" >/dev/null', [a, b, format])
    return true
  } catch {
    return false
  }
}
