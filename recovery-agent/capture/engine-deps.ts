import type { PayloadSlots } from '#shared/blocks/payload-slots.ts'
import type { Clock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import type { ServerId, VaultId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { Rng } from '#shared/rng.ts'
import type { PointManifest } from '#shared/trust/point-manifest.ts'
import type { DeltaBuffer } from '../buffer/buffer.ts'
import type { HostHypervisor } from '../hypervisor/port.ts'
import type { CaptureLimits } from './limits.ts'

export interface EngineDeps {
  readonly buffer: DeltaBuffer
  /** Closes a buffer whose file is damaged and answers an empty one; left out: there is no file to replace. */
  readonly replaceBuffer?: (damaged: DeltaBuffer, error: unknown) => DeltaBuffer
  readonly hypervisor: HostHypervisor
  readonly vaultId: VaultId
  readonly serverId: ServerId
  /** Encoded `Signed` of the manifest. */
  readonly sign: (manifest: PointManifest) => Uint8Array
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly limits: CaptureLimits
  /** Where payload of synchronizations is read into, if there is room; absent: into memory of its own. */
  readonly payloadMemory?: ((sizeBytes: number) => Buffer | undefined) | undefined
  /** The same memory, for payload of the newest delta; absent: none is kept. */
  readonly payloadSlots?: PayloadSlots | undefined
  readonly crashPoint: CrashPoint
}
