import { dialAny } from '#shared/agent-link/dial-any.ts'
import { dialChannel } from '#shared/channel/dial.ts'
import { type Backoff, type ConnectionEvent, keepConnected } from '#shared/channel/keep-connected.ts'
import type { ChannelLimits } from '#shared/channel/limits.ts'
import type { Channel } from '#shared/channel/port.ts'
import type { Clock } from '#shared/clock.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { ServerId } from '#shared/ids.ts'
import type { Logger } from '#shared/log.ts'
import type { PeerAddress } from '#shared/messages/commands.ts'
import type { Rng } from '#shared/rng.ts'
import type { ServerIdentity } from '#shared/trust/identity-store.ts'
import { WayRates } from './compression-choice.ts'
import { PeerLink } from './peer-link.ts'

export interface LinkLease {
  readonly link: PeerLink
  release(): void
}

/** One channel for each target agent, kept for as long as some VM replicates to it. */
export interface PeerLinks extends AsyncDisposable {
  acquire(address: PeerAddress): LinkLease
  /** Whether compressing pays on the way to this agent, as far as it was learned in this life. */
  ratesTo(serverId: ServerId): WayRates
  /** Ends the channels to servers that are revoked by now. */
  dropRevoked(): void
}

export interface PeerLinksOptions {
  readonly identity: ServerIdentity
  readonly isRevoked: (serverId: ServerId) => boolean
  readonly onEvent: (event: ConnectionEvent) => void
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly backoff: Backoff
  readonly limits?: Partial<ChannelLimits> | undefined
  /** In place of a socket, for a simulation. */
  readonly dial?: typeof dialChannel | undefined
}

interface Lease {
  readonly address: PeerAddress
}

interface Entry {
  readonly link: PeerLink
  readonly leases: Set<Lease>
  readonly controller: AbortController
  readonly done: Promise<void>
}

export function createPeerLinks(options: PeerLinksOptions): PeerLinks {
  const entries = new Map<ServerId, Entry>()
  const ending = new Set<Promise<void>>()
  /** Outlives the connections: one for each agent that was ever a target here. */
  const rates = new Map<ServerId, WayRates>()

  function openEntry(serverId: ServerId, leases: Set<Lease>): Entry {
    const { clock, rng, backoff, onEvent } = options
    const log = options.log.with({ link: serverId })
    const link = new PeerLink({ clock, log })
    const controller = new AbortController()
    const { signal } = controller
    return {
      link,
      leases,
      controller,
      done: keepConnected({
        clock,
        rng,
        log,
        signal,
        backoff,
        onEvent,
        dial: (dialSignal) =>
          dialAny(addressesOf(leases), (address) => dialPeer(options, address, dialSignal)),
        onChannel: (channel) => link.serve(channel),
      }),
    }
  }

  function close(serverId: ServerId, entry: Entry): void {
    if (entries.get(serverId) === entry) entries.delete(serverId)
    entry.controller.abort(new Error('no VM replicates there any more'))
    ending.add(entry.done)
    void entry.done.then(() => ending.delete(entry.done))
  }

  return {
    acquire(address) {
      const lease = { address }
      // Dialling begins at once, so the first lease is there before the link.
      const entry = entries.get(address.serverId) ?? openEntry(address.serverId, new Set([lease]))
      entries.set(address.serverId, entry)
      entry.leases.add(lease)
      return {
        link: entry.link,
        release() {
          entry.leases.delete(lease)
          if (entry.leases.size === 0) close(address.serverId, entry)
        },
      }
    },
    ratesTo(serverId) {
      const known = rates.get(serverId) ?? new WayRates()
      rates.set(serverId, known)
      return known
    },
    dropRevoked() {
      for (const [serverId, { link }] of entries)
        if (options.isRevoked(serverId)) {
          const { code, message } = revokedPeer(serverId)
          link.drop({ code, message })
        }
    },
    async [Symbol.asyncDispose]() {
      for (const [serverId, entry] of entries) close(serverId, entry)
      await Promise.all(ending)
    },
  }
}

/** VMs may know different addresses of one agent, of which some are old: the one learned last is tried first. */
function addressesOf(leases: ReadonlySet<Lease>): readonly PeerAddress[] {
  const distinct = new Map<string, PeerAddress>()
  for (const { address } of [...leases].toReversed()) {
    const key = JSON.stringify([address.host, address.port, address.certificatePem])
    if (!distinct.has(key)) distinct.set(key, address)
  }
  return [...distinct.values()]
}

function revokedPeer(serverId: ServerId): HotsiteError {
  return new HotsiteError(
    'membership-revoked',
    `target agent ${serverId} was removed from the vault; nothing is sent to it`,
  )
}

async function dialPeer(
  options: PeerLinksOptions,
  address: PeerAddress,
  signal: AbortSignal,
): Promise<Channel> {
  const { identity, isRevoked, clock, log, limits, dial = dialChannel } = options
  if (isRevoked(address.serverId)) throw revokedPeer(address.serverId)
  return dial({
    host: address.host,
    port: address.port,
    pinnedCertificatePem: address.certificatePem,
    self: identity,
    vaultPublicKey: identity.vaultPublicKey,
    generation: identity.generation,
    isRevoked,
    expectPeer: { serverId: address.serverId, kind: 'agent' },
    clock,
    log,
    signal,
    limits,
  })
}
