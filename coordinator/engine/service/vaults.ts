import { X509Certificate } from 'node:crypto'
import type { Endpoint } from '#shared/config.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { vaultId } from '#shared/ids.ts'
import { checkVaultCertificate, thumbprintOf } from '#shared/trust/vault-certificate.ts'
import type { CoordinatorService } from '../../admin/service.ts'
import type { VaultView } from '../../admin/views.ts'
import { issueVaultCredentials } from '../../registration/credentials.ts'
import { ensureVaultKey, regenerateVaultKey } from '../../registration/vault-key.ts'
import { findVault, insertVault, listVaults, setVaultCertificate, type VaultRow } from '../../store/vaults.ts'
import { emit } from '../emit.ts'
import type { Engine } from '../engine.ts'
import { randomId } from '../random-id.ts'
import { recordNewKey } from '../vault-keys.ts'
import type { VaultTrusts } from '../vault-trust.ts'
import { resolveVault } from './resolve.ts'

export interface VaultServiceInput {
  readonly engine: Engine
  readonly trusts: VaultTrusts
  readonly dataDir: string
  /** What a registration file tells servers; known once the listeners have their ports. */
  readonly addresses: () => {
    readonly registrationUrls: readonly Endpoint[]
    readonly channelAddresses: readonly Endpoint[]
    readonly coordinatorCertificatePem: string
  }
}

type VaultService = Pick<
  CoordinatorService,
  'createVault' | 'listVaults' | 'showVault' | 'setVaultCertificate' | 'issueCredentials' | 'regenerateKey'
>

export function vaultService(input: VaultServiceInput): VaultService {
  const { engine, trusts, dataDir } = input
  const { db, clock } = engine
  const again = async (id: VaultRow['vaultId']) => {
    const vault = await findVault(db, id)
    if (!vault) throw new HotsiteError('vault-unknown', `there is no vault ${id}`)
    return vaultView(vault)
  }
  return {
    async createVault({ name, region, subscription, certificatePem }) {
      const known = await listVaults(db)
      if (known.some((vault) => vault.name === name))
        throw new HotsiteError('vault-name-taken', `there is a vault "${name}" already`)
      // Checked before anything is made: a vault with a certificate that breaks a rule is not half created.
      const certificate =
        certificatePem === undefined ? null : checkVaultCertificate(certificatePem, clock.now())
      const id = vaultId.parse(randomId('vault', engine.rng))
      const key = ensureVaultKey({ dataDir, vaultId: id, nowMs: clock.now() })
      const vault: VaultRow = {
        vaultId: id,
        name,
        region,
        subscription,
        createdAtMs: clock.now(),
        keyGeneration: key.generation,
        publicKey: Buffer.from(key.publicKey).toString('base64'),
        certificatePem: certificate?.pem ?? null,
      }
      await db.transaction().execute(async (tx) => {
        await insertVault(tx, vault)
        const message = `vault ${name} was created`
        await emit(engine, tx, id, { severity: 'info', code: 'vault-created', message })
      })
      await trusts.reload()
      return vaultView(vault)
    },
    listVaults: async () => (await listVaults(db)).map(vaultView),
    showVault: async (name) => vaultView(await resolveVault(db, name)),
    async setVaultCertificate(name, text) {
      const vault = await resolveVault(db, name)
      const { pem, thumbprint } = checkVaultCertificate(bytesOf(text), clock.now())
      await db.transaction().execute(async (tx) => {
        await setVaultCertificate(tx, vault.vaultId, pem)
        const message = `vault ${vault.name} has the certificate ${thumbprint} from now on`
        await emit(engine, tx, vault.vaultId, { severity: 'info', code: 'vault-certificate-set', message })
      })
      return again(vault.vaultId)
    },
    async issueCredentials(name) {
      const vault = await resolveVault(db, name)
      return issueVaultCredentials({
        key: trusts.key(vault.vaultId),
        vaultName: vault.name,
        vaultCertificatePem: vault.certificatePem,
        nowMs: clock.now(),
        ...input.addresses(),
      })
    },
    async regenerateKey(name) {
      const vault = await resolveVault(db, name)
      await regenerate(input, vault)
      return again(vault.vaultId)
    },
  }
}

async function regenerate({ engine, trusts, dataDir }: VaultServiceInput, vault: VaultRow): Promise<void> {
  const { vaultId: id } = vault
  const nowMs = engine.clock.now()
  const key = regenerateVaultKey({ dataDir, vaultId: id, nowMs, previousGeneration: vault.keyGeneration })
  engine.crashPoint('vault-key-written')
  await recordNewKey(engine, vault, key)
  await trusts.reload()
  engine.connections.drop(({ peer }) => peer.vaultId === id, {
    code: 'membership-generation',
    message: 'the vault key was regenerated',
  })
  engine.bus.notify()
}

/** PEM as text, or DER in base64. */
function bytesOf(certificate: string): string | Uint8Array {
  return certificate.includes('-----BEGIN') ? certificate : Buffer.from(certificate, 'base64')
}

function vaultView(vault: VaultRow): VaultView {
  return {
    vaultId: vault.vaultId,
    name: vault.name,
    region: vault.region,
    subscription: vault.subscription,
    createdAtMs: vault.createdAtMs,
    keyGeneration: vault.keyGeneration,
    publicKeyBase64: vault.publicKey,
    certificate: vault.certificatePem === null ? null : certificateView(vault.certificatePem),
  }
}

/** Also of one that has expired since: it is shown, not judged. */
function certificateView(pem: string): NonNullable<VaultView['certificate']> {
  const certificate = new X509Certificate(pem)
  return {
    subject: certificate.subject.split('\n').toReversed().join(', '),
    thumbprintSha256: thumbprintOf(certificate),
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
  }
}
