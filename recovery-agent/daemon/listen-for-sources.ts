import { type ListenOptions, listenChannels } from '#shared/channel/listen.ts'
import type { Channel } from '#shared/channel/port.ts'
import type { TlsIdentity } from '#shared/trust/tls-identity.ts'
import type { AgentOptions } from '../agent.ts'
import type { RaiseEvent } from '../reports/events.ts'
import type { Revocations } from '../state/revocations.ts'
import type { ReplicaServer } from '../stream/target/replica-server.ts'

export interface SourceListener extends AsyncDisposable {
  readonly port: number
  /** Ends the channels of servers that are revoked by now. From the return on, nothing of theirs is written. */
  dropRevoked(): Promise<void>
}

/** The port where source agents of the same vault bring their deltas. Disposing it waits for what is being written. */
export async function listenForSources({
  config,
  identity,
  clock,
  rng,
  log,
  overrides,
  tls,
  server,
  raise,
  isRevoked,
  payloadMemory,
}: AgentOptions & {
  readonly tls: TlsIdentity
  readonly server: ReplicaServer
  readonly raise: RaiseEvent
  readonly isRevoked: Revocations['isRevoked']
  readonly payloadMemory: ListenOptions['payloadMemory']
}): Promise<SourceListener> {
  const serving = new Map<Channel, Promise<void>>()
  const listener = await listenChannels({
    ...config.listen,
    tls,
    trust: (vaultId) => (vaultId === identity.vaultId ? { ...identity, isRevoked } : undefined),
    clock,
    rng,
    log,
    limits: overrides?.channelLimits,
    payloadMemory,
    onChannel(channel) {
      if (channel.peer.kind !== 'agent') {
        channel.close({ code: 'channel-wrong-peer', message: 'only agents send disk blocks' })
        return
      }
      const served = server
        .serve(channel)
        .catch((error) => log.error('serving a source failed', { peer: channel.peer.name, error }))
        .finally(() => serving.delete(channel))
      serving.set(channel, served)
    },
    onRefused: ({ code, message, remote }) =>
      raise({ severity: 'warning', code, message: `${message} (from ${remote})`, vmId: null }),
  })
  return {
    port: listener.port,
    async dropRevoked() {
      const theirs = [...serving].filter(([{ peer }]) => isRevoked(peer.serverId))
      for (const [{ peer }] of theirs) listener.dropServer(peer.serverId)
      await Promise.all(theirs.map(([, served]) => served))
    },
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]()
      await Promise.all(serving.values())
    },
  }
}
