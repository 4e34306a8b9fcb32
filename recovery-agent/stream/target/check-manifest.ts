import type { DeltaHeader, SignedManifest } from '#recovery-agent/replica/port.ts'
import type { Peer } from '#shared/channel/port.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { openManifest } from '#shared/trust/point-manifest.ts'

/** The manifest, signed by this peer and about this very delta; otherwise `manifest-invalid`. */
export function checkManifest(encoded: Uint8Array, header: DeltaHeader, source: Peer): SignedManifest {
  const manifest = openManifest(encoded, source.publicKey)
  const pairs = [
    ['vault', manifest.vaultId, source.vaultId],
    ['source', manifest.sourceServerId, source.serverId],
    ['VM', manifest.vmId, header.vmId],
    ['epoch', manifest.epoch, header.epoch],
    ['point', manifest.seq, header.seq],
    ['capture time', manifest.capturedAtMs, header.capturedAtMs],
    ['consistency', manifest.consistency, header.consistency],
    ['disks', describeDisks(manifest.disks), describeDisks(header.disks)],
  ] as const
  for (const [what, signed, sent] of pairs) {
    if (signed !== sent) {
      throw new HotsiteError(
        'manifest-invalid',
        `the manifest is signed for ${what} ${signed}, not for ${sent}`,
      )
    }
  }
  return {
    encoded,
    roots: manifest.disks.map(({ diskId, sizeBytes, root }) => ({ diskId, sizeBytes, root })),
    suspect: manifest.suspect,
  }
}

function describeDisks(disks: readonly { diskId: string; sizeBytes: number }[]): string {
  return disks
    .map(({ diskId, sizeBytes }) => `${diskId}/${sizeBytes}`)
    .sort()
    .join(' ')
}
