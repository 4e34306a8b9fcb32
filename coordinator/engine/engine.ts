import type { Kysely } from 'kysely'
import type { Clock } from '#shared/clock.ts'
import type { CrashPoint } from '#shared/crash-point.ts'
import type { VaultId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { Rng } from '#shared/rng.ts'
import type { CoordinatorLimits } from '../limits.ts'
import type { Database } from '../store/schema.ts'
import type { Bus } from './bus.ts'
import type { Connections } from './connections.ts'

/** What every part of the engine works with; made once by startCoordinator. */
export interface Engine {
  readonly db: Kysely<Database>
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly limits: CoordinatorLimits
  readonly bus: Bus
  readonly connections: Connections
  readonly crashPoint: CrashPoint
  /** The secret half of a vault's key; throws `vault-key-missing`. */
  vaultSecretKey(vaultId: VaultId): Uint8Array
  /** Whom the servers of a vault must refuse; the same object until it changes. */
  trustUpdate(vaultId: VaultId): CommandRequest<'trust.update'> | undefined
}
