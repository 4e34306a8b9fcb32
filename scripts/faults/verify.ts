/** What must hold after every run, looked up with stock tools and the guest's own arithmetic. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findViolations } from './model.ts'

/** Contents of one point as QEMU reads them: `qemu-img check` on each layer, `qemu-img convert` to raw. */
export function pointViolations(
  seed: number,
  layers: readonly string[],
): { readonly violations: readonly string[]; readonly disks: readonly Buffer[] } {
  const scratch = mkdtempSync(join(tmpdir(), 'hotsite-verify-'))
  try {
    const broken = layers.flatMap((layer) => {
      const { status, stdout, stderr } = spawnSync('qemu-img', ['check', '-f', 'qcow2', layer], {
        encoding: 'utf8',
      })
      return status === 0 ? [] : [`qemu-img check ${layer}: exit ${status} ${stdout}${stderr}`]
    })
    if (broken.length > 0) return { violations: broken, disks: [] }
    const disks = layers.map((layer, index) => {
      const raw = join(scratch, `${index}.raw`)
      execFileSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', layer, raw])
      return readFileSync(raw)
    })
    return { violations: findViolations(seed, disks), disks }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}
