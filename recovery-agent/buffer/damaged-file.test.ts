/** Every byte of the file's header, https://www.sqlite.org/fileformat.html#the_database_header: all of them mean something. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { defined } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type FabricVmId, vmId } from '#shared/ids.ts'
import { openBuffer } from './buffer.ts'
import { isFileDamage } from './damaged-file.ts'
import type { VmRow } from './vm-rows.ts'

const HEADER_BYTES = 100
/** The lowest, and the highest, which makes of a number one that never was. */
const FLIPS = [0x01, 0x80]
const row: VmRow = {
  vmId: vmId.parse('vm-1'),
  fabricVmId: 'fabric-1' as FabricVmId,
  epoch: 2,
  sealedSeq: 7,
  ackedSeq: 6,
  ackedCapturedAtMs: 1234.5,
  needsSync: null,
  ackedLayout: 'disk-0/65536',
  owed: [],
}

it('a flipped bit in the header leaves what was written, or is named as damage', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-buffer-'))
  try {
    const [sound, path] = [join(dir, 'sound.db'), join(dir, 'buffer.db')]
    const written = openBuffer(sound)
    written.vms.put(row)
    written.close()
    const bytes = readFileSync(sound)
    const outcomes = { same: 0, replaced: 0, named: 0 }
    for (let at = 0; at < HEADER_BYTES; at++) {
      for (const flip of FLIPS) {
        const damaged = Buffer.from(bytes)
        damaged[at] = defined(damaged[at], 'a byte of the header') ^ flip
        writeFileSync(path, damaged)
        outcomes[outcomeOf(path, `byte ${at}, bit ${flip}`)] += 1
      }
    }
    expect(outcomes.same).toBeGreaterThan(0)
    expect(outcomes.replaced).toBeGreaterThan(20)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}, 120_000)

function outcomeOf(path: string, what: string): 'same' | 'replaced' | 'named' {
  const buffer = openBuffer(path)
  try {
    if (buffer.damage) {
      expect(buffer.damage.code, what).toBe('buffer-damaged')
      expect(buffer.vms.all(), what).toEqual([])
      return 'replaced'
    }
    expect(buffer.vms.get(row.vmId), what).toEqual(row)
    return 'same'
  } catch (error) {
    const isNamed = isFileDamage(error) || (error instanceof HotsiteError && error.code === 'buffer-damaged')
    if (!isNamed) throw new Error(what, { cause: error })
    return 'named'
  } finally {
    buffer.close()
  }
}
