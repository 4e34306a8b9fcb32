/** A vault, servers and listeners for tests of the channel and of what runs on it. Real TLS on loopback. */
import { systemClock } from '../clock.ts'
import { serverId, type VaultId, vaultId } from '../ids.ts'
import { silentLog } from '../log.ts'
import { systemRng } from '../rng.ts'
import { generateKeys, type ServerKeys } from '../trust/keys.ts'
import { issueMembership, type Membership } from '../trust/membership.ts'
import { makeTlsIdentity } from '../trust/tls-identity.ts'
import { type DialOptions, dialChannel } from './dial.ts'
import type { VaultTrust } from './handshake.ts'
import { type ChannelEvent, type ChannelListener, type ListenOptions, listenChannels } from './listen.ts'
import type { Channel, ServerKind } from './port.ts'

export interface TestServer {
  readonly membership: Uint8Array
  readonly keys: ServerKeys
}

export interface TestVault {
  readonly vaultId: VaultId
  readonly keys: ServerKeys
  readonly revoked: Set<string>
  /** Makes a server of the vault; `changes` replaces fields of its membership. */
  server(name: string, kind?: ServerKind, changes?: Partial<Membership>): TestServer
  trustFor(server: TestServer): VaultTrust
}

export function testVault(name = 'vault-a'): TestVault {
  const keys = generateKeys()
  const id = vaultId.parse(name)
  const revoked = new Set<string>()
  return {
    vaultId: id,
    keys,
    revoked,
    server(serverName, kind = 'agent', changes = {}) {
      const own = generateKeys()
      const issuedAtMs = systemClock.now()
      const membership: Membership = {
        vaultId: id,
        serverId: serverId.parse(serverName),
        kind,
        name: serverName,
        publicKey: own.publicKey,
        issuedAtMs,
        expiresAtMs: issuedAtMs + 3_600_000,
        generation: 1,
        ...changes,
      }
      return { membership: issueMembership(membership, keys.secretKey), keys: own }
    },
    trustFor: (server) => ({
      vaultPublicKey: keys.publicKey,
      membership: server.membership,
      keys: server.keys,
      isRevoked: (id) => revoked.has(id),
      generation: 1,
    }),
  }
}

export interface TestListener extends AsyncDisposable {
  readonly listener: ChannelListener
  readonly channels: Channel[]
  readonly events: ChannelEvent[]
  /** The n-th channel accepted (0 is the first), waiting for it. */
  channel(index: number): Promise<Channel>
  /** The first event with the code, waiting for it. */
  event(code: string): Promise<ChannelEvent>
  dialOptions(self: TestServer, changes?: Partial<DialOptions>): DialOptions
  dial(self: TestServer, changes?: Partial<DialOptions>): Promise<Channel>
}

export async function testListener(
  vault: TestVault,
  changes: Partial<ListenOptions> = {},
): Promise<TestListener> {
  const tls = changes.tls ?? (await makeTlsIdentity('test listener'))
  const trust = vault.trustFor(vault.server('listener', 'coordinator'))
  const channels: Channel[] = []
  const events: ChannelEvent[] = []
  const stop = new AbortController()
  const listener = await listenChannels({
    host: '127.0.0.1',
    port: 0,
    tls,
    trust: (id) => (id === vault.vaultId ? trust : undefined),
    clock: systemClock,
    rng: systemRng,
    log: silentLog,
    onChannel: (channel) => channels.push(channel),
    onRefused: (event) => events.push(event),
    ...changes,
  })
  const dialOptions = (self: TestServer, dialChanges: Partial<DialOptions> = {}): DialOptions => ({
    host: '127.0.0.1',
    port: listener.port,
    pinnedCertificatePem: tls.certificatePem,
    self,
    vaultPublicKey: vault.keys.publicKey,
    clock: systemClock,
    log: silentLog,
    signal: stop.signal,
    ...dialChanges,
  })
  return {
    listener,
    channels,
    events,
    channel: (index) => eventually(() => channels[index], `channel ${index}`),
    event: (code) => eventually(() => events.find((event) => event.code === code), `event ${code}`),
    dialOptions,
    dial: (self, dialChanges) => dialChannel(dialOptions(self, dialChanges)),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await listener[Symbol.asyncDispose]()
    },
  }
}

/** Waits until `look` finds something; fails after ten seconds with what was waited for. */
export async function eventually<T>(look: () => T | undefined | false, what: string): Promise<T> {
  const deadline = performance.now() + 10_000
  for (;;) {
    const found = look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await systemClock.sleep(2)
  }
}
