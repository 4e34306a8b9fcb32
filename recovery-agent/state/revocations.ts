import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId } from '#shared/ids.ts'
import type { CommandRequest } from '#shared/messages/commands.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import type { AgentState } from './agent-state.ts'

/** Servers that were removed from the vault, as the coordinator last said: refused as peers, with it or without (I12). */
export interface Revocations {
  readonly isRevoked: (serverId: ServerId) => boolean
  /** Persisted before it returns. Throws `membership-generation` for a list of another vault key than our membership's. */
  replace(update: CommandRequest<'trust.update'>): void
}

export function openRevocations(
  state: Pick<AgentState, 'revokedServers' | 'saveRevokedServers'>,
  identity: Pick<ServerIdentity, 'generation'>,
): Revocations {
  let revoked = new Set(state.revokedServers())
  return {
    isRevoked: (serverId) => revoked.has(serverId),
    replace({ revokedServerIds, generation }) {
      // It would leave out servers of our generation, whose memberships we still accept.
      if (generation !== identity.generation)
        throw new HotsiteError(
          'membership-generation',
          `a list of removed servers for generation ${generation} of the vault key; this server is of ${identity.generation}`,
        )
      state.saveRevokedServers(revokedServerIds)
      revoked = new Set(revokedServerIds)
    },
  }
}
