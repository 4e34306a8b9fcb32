/** The key file of a vault and its row, kept in step: the file is written first, so it is right after a crash between them. */
import type { VaultId } from '#shared/ids.ts'
import type { VaultKey } from '../registration/vault-key.ts'
import { listProtectedVms } from '../store/protected-vms.ts'
import { listVaults, setVaultKey } from '../store/vaults.ts'
import { applyEffect } from './apply-effect.ts'
import { emit } from './emit.ts'
import type { Engine } from './engine.ts'

/** Every membership and ticket made before is void: servers register again, and tickets are made anew for them. */
export async function recordNewKey(
  engine: Engine,
  vault: { readonly vaultId: VaultId; readonly name: string },
  key: VaultKey,
): Promise<void> {
  const { vaultId, name } = vault
  await engine.db.transaction().execute(async (tx) => {
    const publicKey = Buffer.from(key.publicKey).toString('base64')
    await setVaultKey(tx, vaultId, { generation: key.generation, publicKey })
    for (const { vm } of await listProtectedVms(tx))
      if (vm.vaultId === vaultId)
        await applyEffect(engine, tx, { ...vm, jobId: null }, { patch: { ticket: null } })
    const message = `the key of vault ${name} was regenerated; every server must register again`
    await emit(engine, tx, vaultId, { severity: 'warning', code: 'vault-key-regenerated', message })
  })
}

/** At the start. A file that is older than the row came from a backup: what the lost key signed since cannot be verified. */
export async function reconcileVaultKeys(
  engine: Engine,
  keyOf: (vaultId: VaultId) => VaultKey,
): Promise<void> {
  for (const vault of await listVaults(engine.db)) {
    const key = keyOf(vault.vaultId)
    const isSame = Buffer.from(key.publicKey).toString('base64') === vault.publicKey
    if (isSame && key.generation === vault.keyGeneration) continue
    if (key.generation > vault.keyGeneration) await recordNewKey(engine, vault, key)
    // The row keeps the highest generation there was, so that none is used twice.
    else
      await emit(engine, engine.db, vault.vaultId, {
        severity: 'critical',
        code: 'vault-key-outdated',
        message:
          `the key file of vault ${vault.name} has generation ${key.generation}, its servers may hold memberships of ` +
          `generation ${vault.keyGeneration}: put the newest key.json back and start again, or run ` +
          `"hotsite vault regenerate-key ${vault.name}" and register every server again`,
        eventId: `vault-key-outdated/${vault.keyGeneration}/${key.generation}`,
      })
  }
}
