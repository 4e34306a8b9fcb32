import type { Channel, ChannelClosed } from '#shared/channel/port.ts'
import type { ServerId, VaultId } from '#shared/ids.ts'

/** The agents whose channel this coordinator holds, now. */
export interface Connections {
  get(vaultId: VaultId, serverId: ServerId): Channel | undefined
  isConnected(vaultId: VaultId, serverId: ServerId): boolean
  add(channel: Channel): void
  /** Only if it is still the one in use. */
  remove(channel: Channel): void
  list(): readonly Channel[]
  /** Drops every channel the filter names. */
  drop(which: (channel: Channel) => boolean, reason: ChannelClosed): void
}

export function createConnections(): Connections {
  const channels = new Map<string, Channel>()
  const keyOf = (vaultId: VaultId, serverId: ServerId) => `${vaultId}/${serverId}`
  const keyOfChannel = ({ peer }: Channel) => keyOf(peer.vaultId, peer.serverId)
  return {
    get: (vaultId, serverId) => channels.get(keyOf(vaultId, serverId)),
    isConnected: (vaultId, serverId) => channels.has(keyOf(vaultId, serverId)),
    add: (channel) => channels.set(keyOfChannel(channel), channel),
    remove(channel) {
      const key = keyOfChannel(channel)
      if (channels.get(key) === channel) channels.delete(key)
    },
    list: () => [...channels.values()],
    drop(which, reason) {
      for (const channel of channels.values()) if (which(channel)) channel.close(reason)
    },
  }
}
