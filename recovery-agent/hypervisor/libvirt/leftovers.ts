/** Files that a snapshot needs while it is open: all in one folder of ours, so that a later life finds them. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export class LeftoverFiles {
  readonly dir: string

  constructor(dir: string) {
    this.dir = dir
    mkdirSync(dir, { recursive: true, mode: 0o711 })
  }

  socketPath(uuid: string): string {
    return join(this.dir, `${uuid}.sock`)
  }

  scratchPath(uuid: string, target: string): string {
    return join(this.dir, `${uuid}-${target.replaceAll(/[^\w.-]/g, '_')}.scratch`)
  }

  writeRequests(uuid: string, xml: readonly string[]): string[] {
    return xml.map((text, i) => {
      const path = join(this.dir, `${uuid}-${i}.xml`)
      writeFileSync(path, text, { mode: 0o600 })
      return path
    })
  }

  isAnyOf(uuid: string): boolean {
    return readdirSync(this.dir).some((name) => name.startsWith(uuid))
  }

  removeOf(uuid: string): void {
    for (const name of readdirSync(this.dir))
      if (name.startsWith(uuid)) rmSync(join(this.dir, name), { force: true })
  }

  /** Domains of which something lies here. */
  uuids(): string[] {
    const found = readdirSync(this.dir).flatMap((name) => /^[0-9a-f-]{36}/.exec(name)?.[0] ?? [])
    return [...new Set(found)]
  }
}
