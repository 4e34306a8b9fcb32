import { z } from 'zod'
import { loadConfig, resolveFrom } from '#shared/config.ts'

/** What registration takes from the configuration of a provider or an agent; the daemon itself checks the rest. */
const registrationPart = z.looseObject({
  dataDir: z.string().min(1),
  name: z.string().min(1).optional(),
  vmmServer: z.string().min(1).optional(),
  host: z.string().min(1).optional(),
})

export interface ServerFacts {
  readonly dataDir?: string
  readonly name?: string | undefined
  readonly host?: string | undefined
}

export function serverFacts(configPath: string): ServerFacts {
  const { dataDir, name, vmmServer, host } = loadConfig(configPath, registrationPart)
  return { dataDir: resolveFrom(configPath, dataDir), name: name ?? vmmServer, host }
}
