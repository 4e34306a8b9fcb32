import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { FoundDomain } from './hosts.ts'
import { isPng, pngOfPpm } from './png.ts'

/** null: the domain has no display. Throws `libvirt-unreachable`. */
export async function takeScreenshot({ host, uuid }: FoundDomain): Promise<Buffer | null> {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-screenshot-'))
  try {
    const path = join(dir, 'screen')
    await host.virsh.run(['screenshot', uuid, path])
    const bytes = readFileSync(path)
    return isPng(bytes) ? bytes : (pngOfPpm(bytes) ?? null)
  } catch (error) {
    if (errorDocument(error).code === 'libvirt-failed') return null
    throw error
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
