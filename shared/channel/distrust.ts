/** Asked at every heartbeat: a membership may end, and a server may be removed, while its channel stands. */
import type { Clock } from '../clock.ts'
import type { Established, VaultTrust } from './handshake.ts'
import type { ChannelClosed } from './port.ts'

export interface DistrustInput {
  readonly established: Established
  /** As it is now; undefined: the vault is gone. */
  readonly trust: () => VaultTrust | undefined
  readonly clock: Clock
}

export function distrustOf({ established, trust, clock }: DistrustInput): () => ChannelClosed | undefined {
  const { peer, validUntilMs } = established
  const generationThen = trust()?.generation
  return () => {
    if (clock.now() >= validUntilMs)
      return {
        code: 'membership-expired',
        message: `the membership of ${peer.name} or of this side has expired`,
      }
    const current = trust()
    if (!current || current.isRevoked(peer.serverId))
      return { code: 'membership-revoked', message: `${peer.name} was removed from the vault` }
    if (current.generation !== generationThen)
      return { code: 'membership-generation', message: 'the vault key was regenerated' }
    return undefined
  }
}
