/** Files that a snapshot needs while it is open: all in one folder of ours, so that a later life finds them. */
import { chownSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export class LeftoverFiles {
  readonly dir: string

  constructor(dir: string) {
    this.dir = dir
    mkdirSync(dir, { recursive: true, mode: 0o711 })
  }

  /** QEMU makes its sockets and scratch files here itself. Nothing to do unless we may give files away. */
  giveTo(owner: { readonly uid: number; readonly gid: number } | undefined): void {
    if (!owner || process.getuid?.() !== 0) return
    const { uid, gid } = statSync(this.dir)
    if (uid !== owner.uid || gid !== owner.gid) chownSync(this.dir, owner.uid, owner.gid)
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

  /** Written before a guest is frozen, and gone when it was seen to go on. */
  markFrozen(uuid: string): void {
    writeFileSync(this.#frozenPath(uuid), '')
  }

  unmarkFrozen(uuid: string): void {
    rmSync(this.#frozenPath(uuid), { force: true })
  }

  mayBeFrozen(uuid: string): boolean {
    return existsSync(this.#frozenPath(uuid))
  }

  #frozenPath(uuid: string): string {
    return join(this.dir, `${uuid}.frozen`)
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
