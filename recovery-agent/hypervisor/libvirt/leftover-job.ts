import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { SnapshotDeps } from './running-snapshot.ts'

/**
 * A guest that an earlier life may have left frozen is thawed first. A backup job whose socket lies in our folder is one that we began and could not end: this life while libvirtd was away,
 * or an earlier one. Throws `vm-unknown` and what libvirt refuses; then the files stay, and tell the next attempt.
 */
export async function endLeftoverJob({ virsh, files, log }: SnapshotDeps, uuid: string): Promise<void> {
  if (!files.isAnyOf(uuid)) return
  const state = (await virsh.run(['domstate', uuid])).trim()
  if (files.mayBeFrozen(uuid) && state !== 'shut off') {
    await virsh.run(['domfsthaw', uuid])
    log.info('libvirt.guest-thawed', { vm: uuid })
  }
  const job = state === 'shut off' ? '' : await virsh.run(['backup-dumpxml', uuid]).catch(noJob)
  if (job.includes(files.socketPath(uuid))) {
    await virsh.run(['domjobabort', uuid])
    log.info('libvirt.leftover-job-ended', { vm: uuid })
  }
  files.removeOf(uuid)
}

function noJob(error: unknown): string {
  if (error instanceof HotsiteError && error.code === 'libvirt-failed') return ''
  throw error
}
