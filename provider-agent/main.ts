import { systemClock } from '#shared/clock.ts'
import { lockDataDir } from '#shared/data-dir.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { openLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { identityPath, loadIdentity } from '#shared/trust/identity-store.ts'
import { programVersion } from '#shared/version.ts'
import { loadProviderConfig } from './config.ts'
import { startProvider } from './provider.ts'

/**
 * The provider daemon, until the signal. Throws `config-invalid`, `data-dir-in-use`, `not-registered`,
 * `data-version-unknown` before it does anything.
 */
export async function runProvider(configPath: string, signal: AbortSignal): Promise<void> {
  const config = loadProviderConfig(configPath)
  using _lock = lockDataDir(config.dataDir)
  const identity = loadIdentity(config.dataDir)
  if (identity.kind !== 'provider') {
    throw new HotsiteError(
      'not-registered',
      `${identityPath(config.dataDir)} is the identity of an ${identity.kind}, not of a provider`,
    )
  }
  await using log = openLog('provider', config.log)
  const provider = startProvider({ config, identity, clock: systemClock, rng: systemRng, log })
  log.info('provider started', {
    name: config.name,
    serverId: identity.serverId,
    version: programVersion,
    fabric: config.fabric.driver,
    pid: process.pid,
  })
  try {
    await provider.run(signal)
  } finally {
    log.info('provider stopped')
  }
}
