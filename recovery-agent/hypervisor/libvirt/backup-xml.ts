/** What `virsh backup-begin` is given: https://libvirt.org/formatbackup.html and formatcheckpoint.html. */
import type { DiskId } from '#shared/ids.ts'

export interface BackupDisk {
  readonly diskId: DiskId
  /** As libvirt calls it. */
  readonly target: string
  /** Where QEMU puts what the guest overwrites while the backup is read. */
  readonly scratchPath: string
  /** Only what was written since this checkpoint; undefined: everything. */
  readonly since: string | undefined
  /** A bitmap begins at this instant. */
  readonly isTracked: boolean
}

/** Pull mode: QEMU shows the disks over NBD as they were at the beginning. */
export function backupXml({
  socketPath,
  disks,
  others,
}: {
  readonly socketPath: string
  readonly disks: readonly BackupDisk[]
  /** Disks of the domain that are none of ours. */
  readonly others: readonly string[]
}): string {
  const each = disks.map(({ target, scratchPath, since }) => {
    const mode =
      since === undefined ? "backupmode='full'" : `backupmode='incremental' incremental='${escaped(since)}'`
    return (
      `<disk name='${escaped(target)}' backup='yes' type='file' exportname='${escaped(target)}' ` +
      `exportbitmap='${bitmapOf(target)}' ${mode}><scratch file='${escaped(scratchPath)}'/></disk>`
    )
  })
  const none = others.map((name) => `<disk name='${escaped(name)}' backup='no'/>`)
  return (
    `<domainbackup mode='pull'><server transport='unix' socket='${escaped(socketPath)}'/>` +
    `<disks>${[...each, ...none].join('')}</disks></domainbackup>`
  )
}

/** undefined: no disk can be tracked. */
export function checkpointXml(
  name: string,
  disks: readonly BackupDisk[],
  others: readonly string[],
): string | undefined {
  if (!disks.some(({ isTracked }) => isTracked)) return undefined
  const each = disks.map(
    ({ target, isTracked }) =>
      `<disk name='${escaped(target)}' checkpoint='${isTracked ? 'bitmap' : 'no'}'/>`,
  )
  const none = others.map((other) => `<disk name='${escaped(other)}' checkpoint='no'/>`)
  return `<domaincheckpoint><name>${escaped(name)}</name><disks>${[...each, ...none].join('')}</disks></domaincheckpoint>`
}

/** The name under which an export shows what changed. */
export function bitmapOf(target: string): string {
  return escaped(`hotsite-${target}`)
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;')
}
