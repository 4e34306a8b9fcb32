import { listenChannels } from '#shared/channel/listen.ts'
import type { TlsIdentity } from '#shared/trust/tls-identity.ts'
import type { AgentOptions } from './agent.ts'
import type { RaiseEvent } from './events.ts'
import type { ReplicaServer } from './stream/target/replica-server.ts'

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
}: AgentOptions & {
  readonly tls: TlsIdentity
  readonly server: ReplicaServer
  readonly raise: RaiseEvent
}): Promise<AsyncDisposable & { readonly port: number }> {
  const serving = new Set<Promise<void>>()
  const listener = await listenChannels({
    ...config.listen,
    tls,
    trust: (vaultId) => (vaultId === identity.vaultId ? { ...identity, isRevoked: () => false } : undefined),
    clock,
    rng,
    log,
    limits: overrides?.channelLimits,
    onChannel(channel) {
      if (channel.peer.kind !== 'agent') {
        channel.close({ code: 'channel-wrong-peer', message: 'only agents send disk blocks' })
        return
      }
      const served = server
        .serve(channel)
        .catch((error) => log.error('serving a source failed', { peer: channel.peer.name, error }))
        .finally(() => serving.delete(served))
      serving.add(served)
    },
    onRefused: ({ code, message, remote }) =>
      raise({ severity: 'warning', code, message: `${message} (from ${remote})`, vmId: null }),
  })
  return {
    port: listener.port,
    async [Symbol.asyncDispose]() {
      await listener[Symbol.asyncDispose]()
      await Promise.all(serving)
    },
  }
}
