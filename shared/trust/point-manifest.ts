/** The source's signed description of a recovery point: what the target's own hashes must come to (I3). */
import { decodeDocument, encodeDocument } from '../channel/codec.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import {
  type DiskId,
  diskId,
  type ServerId,
  serverId,
  type VaultId,
  type VmId,
  vaultId,
  vmId,
} from '../ids.ts'
import type { ServerKeys } from './keys.ts'
import { openSigned, peekSigned, signDocument } from './signed-document.ts'

export interface DiskRoot {
  readonly diskId: DiskId
  readonly sizeBytes: number
  /** BLAKE3-256 root of the disk's hash tree, 32 bytes. */
  readonly root: Uint8Array
  readonly changedBlocks: number
}

export interface PointManifest {
  readonly vaultId: VaultId
  readonly vmId: VmId
  readonly epoch: number
  readonly seq: number
  readonly capturedAtMs: number
  readonly consistency: 'crash' | 'application'
  readonly disks: readonly DiskRoot[]
  readonly sourceServerId: ServerId
  /** Empty, or why the writes of this point look unlike the VM's ordinary work: a hint, never a judgement. */
  readonly suspect: string
}

export function signManifest(manifest: PointManifest, keys: ServerKeys): Uint8Array {
  return signDocument('point-manifest', encodeDocument('pointManifest', manifest), keys.secretKey)
}

/** The manifest, verified with the key of the source. Throws `manifest-invalid`. */
export function openManifest(encoded: Uint8Array, publicKey: Uint8Array): PointManifest {
  try {
    return decode(openSigned('point-manifest', encoded, publicKey))
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new HotsiteError('manifest-invalid', `the manifest of a recovery point is refused: ${why}`, {
      cause: error,
    })
  }
}

/** For what lies in our own store and was verified when it came in. Throws `manifest-invalid`. */
export function readStoredManifest(encoded: Uint8Array): PointManifest {
  try {
    return decode(peekSigned('point-manifest', encoded))
  } catch (error) {
    throw new HotsiteError('manifest-invalid', 'a stored manifest cannot be read', { cause: error })
  }
}

function decode(document: Uint8Array): PointManifest {
  const raw = decodeDocument('pointManifest', document)
  if (raw.consistency !== 'crash' && raw.consistency !== 'application')
    throw new Error(`unknown consistency "${raw.consistency}"`)
  return {
    vaultId: vaultId.parse(raw.vaultId),
    vmId: vmId.parse(raw.vmId),
    epoch: raw.epoch,
    seq: raw.seq,
    capturedAtMs: raw.capturedAtMs,
    consistency: raw.consistency,
    disks: raw.disks.map((disk) => {
      if (disk.root.length !== 32) throw new Error(`the root of ${disk.diskId} is not 32 bytes`)
      return { ...disk, diskId: diskId.parse(disk.diskId) }
    }),
    sourceServerId: serverId.parse(raw.sourceServerId),
    suspect: raw.suspect,
  }
}
