import { z } from 'zod'
import { loadConfig, resolveFrom } from '#shared/config.ts'

/** What registration takes from the configuration of a provider or an agent; the daemon itself checks the rest. */
const registrationPart = z.looseObject({
  name: z.string().min(1).optional(),
  dataDir: z.string().min(1),
  hypervisor: z.looseObject({ host: z.string().min(1).optional() }).optional(),
})

export interface ServerFacts {
  readonly dataDir?: string
  readonly name?: string | undefined
  readonly host?: string | undefined
}

/** Throws `config-invalid`. The folder comes back absolute. */
export function serverFacts(configPath: string): ServerFacts {
  const { dataDir, name, hypervisor } = loadConfig(configPath, registrationPart)
  return { dataDir: resolveFrom(configPath, dataDir), name, host: hypervisor?.host }
}
