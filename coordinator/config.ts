import { homedir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { type Endpoint, endpoint, loadConfig, logConfig, resolveFrom } from '#shared/config.ts'

import { defaultSocketPath } from './admin/socket-path.ts'
import { type BackupConfig, isSchedule } from './backup/schedule.ts'

const CHANNEL_PORT = 8443
const REGISTRATION_PORT = 8444

/** docs/operations.md lists the keys. Paths are relative to the file. */
export const coordinatorConfigSchema = z.strictObject({
  dataDir: z.string().min(1),
  /** Where agents connect to. */
  listen: endpoint.extend({ port: endpoint.shape.port.default(CHANNEL_PORT) }),
  /** Where servers register. */
  registration: endpoint.extend({ port: endpoint.shape.port.default(REGISTRATION_PORT) }).optional(),
  /** How servers reach this coordinator, when not by `listen` and `registration`: behind NAT, or listening on all addresses. */
  advertise: z
    .strictObject({
      host: z.string().min(1),
      port: endpoint.shape.port.optional(),
      registrationPort: endpoint.shape.port.optional(),
    })
    .optional(),
  admin: z.strictObject({ socket: z.string().min(1) }).optional(),
  /** Folders that a coordinator can be started on, made on the calendar. */
  backup: z
    .strictObject({
      enabled: z.boolean().default(true),
      /** Five fields as in cron: minute, hour, day of month, month, day of week. */
      schedule: z.string().refine(isSchedule, 'no schedule that cron knows').default('30 2 * * *'),
      keep: z.int().min(1).max(365).default(7),
      /** By default the folder backups in dataDir. */
      dir: z.string().min(1).optional(),
    })
    .prefault({}),
  log: logConfig.prefault({}),
})

export interface CoordinatorConfig {
  readonly dataDir: string
  readonly listen: Endpoint
  readonly registration: Endpoint
  readonly advertise?:
    | {
        readonly host: string
        readonly port?: number | undefined
        readonly registrationPort?: number | undefined
      }
    | undefined
  readonly admin: { readonly socket: string }
  readonly backup?: BackupConfig
  readonly log: z.infer<typeof logConfig>
}

/** Throws `config-invalid`. Paths in the result are absolute. */
export function loadCoordinatorConfig(path: string): CoordinatorConfig {
  const config = loadConfig(path, coordinatorConfigSchema)
  const dataDir = resolveFrom(path, config.dataDir)
  const { dir } = config.log
  return {
    dataDir,
    listen: config.listen,
    registration: config.registration ?? { host: config.listen.host, port: REGISTRATION_PORT },
    advertise: config.advertise,
    admin: { socket: config.admin ? resolveFrom(path, config.admin.socket) : standardSocket() },
    backup: {
      ...config.backup,
      dir: config.backup.dir === undefined ? join(dataDir, 'backups') : resolveFrom(path, config.backup.dir),
    },
    log: { ...config.log, dir: dir === undefined ? undefined : resolveFrom(path, dir) },
  }
}

/** What a registration file tells servers, once the listeners have their ports. */
export function advertisedAddresses(
  { listen, registration, advertise }: CoordinatorConfig,
  bound: { readonly channelPort: number; readonly registrationPort: number; readonly hostname: string },
): { channelAddresses: Endpoint[]; registrationUrls: Endpoint[] } {
  const reachable = (host: string) => (host === '0.0.0.0' || host === '::' ? bound.hostname : host)
  return {
    channelAddresses: [
      {
        host: advertise?.host ?? reachable(listen.host),
        port: advertise?.port ?? bound.channelPort,
      },
    ],
    registrationUrls: [
      {
        host: advertise?.host ?? reachable(registration.host),
        port: advertise?.registrationPort ?? bound.registrationPort,
      },
    ],
  }
}

function standardSocket(): string {
  return defaultSocketPath(process.env, {
    platform: process.platform,
    uid: process.getuid?.() ?? -1,
    homeDir: homedir(),
  })
}
