/** Two vaults, a registration listener over real TLS and a server's data folder, made anew for every test. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createTcpServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterEach, beforeAll, beforeEach } from 'vitest'
import { type Clock, systemClock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import { vaultId } from '#shared/ids.ts'
import { type RegisterServerOptions, registerServer } from '#shared/trust/register.ts'
import { registrationServerName } from '#shared/trust/registration-protocol.ts'
import {
  dayMs,
  type MadeCertificate,
  makeCertificate,
  makeIssuedCertificate,
} from '#shared/trust/testing/offending-certificates.ts'
import { makeTlsIdentity, type TlsIdentity } from '#shared/trust/tls-identity.ts'
import { issueVaultCredentials } from '../credentials.ts'
import {
  type RegistrationListener,
  type RegistrationListenerOptions,
  startRegistrationListener,
} from '../listener.ts'
import { ensureVaultKey } from '../vault-key.ts'
import { collectingLog, MemoryTrustSource } from './memory-trust-source.ts'

export const idA = vaultId.parse('vault-a')
export const idB = vaultId.parse('vault-b')
export const channelAddresses = [{ host: 'coordinator.example', port: 8443 }]

/** Set before each test. */
export interface RegistrationSite {
  tls: TlsIdentity
  /** Self-signed, of vault A. */
  pairA: MadeCertificate
  /** Issued by an authority the coordinator does not know, of vault B. */
  pairB: MadeCertificate
  /** Of no vault, with the subject name of A's. */
  stranger: MadeCertificate
  dir: string
  dataDir: string
  vaults: MemoryTrustSource
  listener: RegistrationListener
  logLines: string[]
}

/** Registers the hooks of the calling test file. */
export function useRegistrationSite(): RegistrationSite {
  const site = {} as RegistrationSite
  beforeAll(async () => {
    const validity = {
      notBefore: new Date(Date.now() - 30 * dayMs),
      notAfter: new Date(Date.now() + 30 * dayMs),
    }
    site.tls = await makeTlsIdentity('coordinator')
    site.pairA = await makeCertificate(validity)
    site.pairB = await makeIssuedCertificate({ ...validity, name: 'issued' })
    site.stranger = await makeCertificate(validity)
  })
  beforeEach(async () => {
    site.dir = mkdtempSync(join(tmpdir(), 'hotsite-registration-'))
    site.dataDir = join(site.dir, 'server')
    site.logLines = []
    site.vaults = new MemoryTrustSource()
    for (const [id, pair] of [
      [idA, site.pairA],
      [idB, site.pairB],
    ] as const) {
      const key = ensureVaultKey({ dataDir: site.dir, vaultId: id, nowMs: Date.now() })
      site.vaults.vaults.push({ vaultId: id, name: id, certificatePem: pair.certificatePem, key })
    }
    site.listener = await startListener(site)
  })
  afterEach(async () => {
    await site.listener[Symbol.asyncDispose]()
    rmSync(site.dir, { recursive: true, force: true })
  })
  return site
}

type ListenerChoice = Partial<Pick<RegistrationListenerOptions, 'clock' | 'port' | 'limits'>>

export function startListener(
  site: RegistrationSite,
  choice: ListenerChoice = {},
): Promise<RegistrationListener> {
  return startRegistrationListener({
    host: '127.0.0.1',
    port: 0,
    tls: site.tls,
    channelAddresses,
    vaults: site.vaults,
    clock: systemClock,
    log: collectingLog(site.logLines),
    ...choice,
  })
}

export async function restartListener(site: RegistrationSite, choice: ListenerChoice): Promise<void> {
  await site.listener[Symbol.asyncDispose]()
  site.listener = await startListener(site, choice)
}

/** A credentials file of vault A as it is now. */
export function credentialsFile(
  site: RegistrationSite,
  options: { nowMs?: number; addresses?: { host: string; port: number }[]; pin?: string } = {},
): { path: string; token: string } {
  const vault = site.vaults.vaults[0]
  if (!vault) throw new Error('no vault')
  const { content } = issueVaultCredentials({
    key: vault.key,
    vaultName: 'Contoso',
    vaultCertificatePem: vault.certificatePem,
    registrationUrls: options.addresses ?? [site.listener.address],
    channelAddresses,
    coordinatorCertificatePem: options.pin ?? site.tls.certificatePem,
    nowMs: options.nowMs ?? Date.now(),
  })
  const path = join(site.dir, `credentials-${randomUUID()}.json`)
  writeFileSync(path, content)
  return { path, token: String(JSON.parse(content).token) }
}

export function pem(pair: MadeCertificate): { pem: string } {
  return { pem: pair.privateKeyPem + pair.certificatePem }
}

export function register(site: RegistrationSite, options: Partial<RegisterServerOptions> = {}) {
  return registerServer({
    credentialsPath: options.credentialsPath ?? credentialsFile(site).path,
    keyAndCertificate: pem(site.pairA),
    kind: 'agent',
    name: 'host-1',
    host: 'host-1.example',
    dataDir: site.dataDir,
    clock: systemClock,
    timeoutMs: 10_000,
    ...options,
  })
}

/** The error a registration ends with, as a document; `internal` when it succeeds. */
export async function refusal(site: RegistrationSite, options: Partial<RegisterServerOptions> = {}) {
  const error = await register(site, options).then(
    () => undefined,
    (caught: unknown) => caught,
  )
  const document = errorDocument(error)
  return { ...document, text: JSON.stringify(document) }
}

export function clockOff(byMs: number): Clock {
  return { ...systemClock, now: () => Date.now() + byMs }
}

/** Sends bytes over an accepted TLS connection and collects what comes back until it ends. */
export function raw(
  site: RegistrationSite,
  text: string,
  servername = registrationServerName,
): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect({
      ...site.listener.address,
      ca: site.tls.certificatePem,
      cert: site.pairA.certificatePem,
      key: site.pairA.privateKeyPem,
      servername,
      checkServerIdentity: () => undefined,
    })
    socket.on('data', (data: Buffer) => {
      answer += data.toString()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(answer))
    socket.write(text)
  })
}

export async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('not a TCP address')
  return address.port
}

export async function unusedPort(): Promise<number> {
  const server = createTcpServer()
  const port = await listen(server)
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}
