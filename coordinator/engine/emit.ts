import type { ServerId, VaultId, VmId } from '#shared/ids.ts'
import { insertEvent } from '../store/events.ts'
import type { Db } from '../store/schema.ts'
import type { Engine } from './engine.ts'
import { randomId } from './random-id.ts'

/** Something an operator should see, once. */
export interface Notice {
  readonly severity: 'info' | 'warning' | 'critical'
  readonly code: string
  readonly message: string
  readonly vmId?: VmId
  readonly serverId?: ServerId
  /** Given: the same event is stored once, however often it is seen. */
  readonly eventId?: string
}

/** The one place where events begin: the row and the log line together. */
export async function emit(engine: Engine, db: Db, vaultId: VaultId, notice: Notice): Promise<void> {
  const { severity, code, message } = notice
  const isNew = await insertEvent(db, {
    vaultId,
    eventId: notice.eventId ?? randomId('event', engine.rng),
    atMs: engine.clock.now(),
    severity,
    code,
    message,
    vmId: notice.vmId ?? null,
    serverId: notice.serverId ?? null,
  })
  if (!isNew) return
  const level = ({ info: 'info', warning: 'warn', critical: 'error' } as const)[severity]
  engine.log[level]('event', { code, message, vaultId, vmId: notice.vmId, serverId: notice.serverId })
}
