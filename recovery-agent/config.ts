import { hostname } from 'node:os'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { endpoint, loadConfig, logConfig, resolveFrom } from '#shared/config.ts'

/** The port the product we follow uses for replication between hosts. */
export const DEFAULT_LISTEN_PORT = 8084

const hypervisor = z.discriminatedUnion('driver', [
  z.strictObject({
    driver: z.literal('folder'),
    /** The folder that holds fabric.yaml. */
    root: z.string(),
    /** This host, as fabric.yaml calls it. */
    host: z.string(),
    /** The longest a VM may stand still for a snapshot (I11). */
    freezeLimitMs: z.int().positive().default(2_000),
  }),
  z.strictObject({
    driver: z.literal('libvirt'),
    /** The connection, as libvirt has it. */
    uri: z.string().default('qemu:///system'),
    /** This host, as the fabric calls it. */
    host: z.string(),
    /** Sockets and scratch files of snapshots; QEMU must be able to write there. `<dataDir>/scratch` if absent. */
    scratchDir: z.string().optional(),
    /** The longest a guest may be frozen for an application-consistent point (I11). */
    quiesceLimitMs: z.int().min(100).default(5_000),
  }),
])

export const agentConfigSchema = z.strictObject({
  name: z.string().min(1),
  dataDir: z.string(),
  /** Where replicas/ and overlays/ go; dataDir if absent. */
  replicaDir: z.string().optional(),
  hypervisor,
  listen: endpoint.default({ host: '0.0.0.0', port: DEFAULT_LISTEN_PORT }),
  /** How other agents reach this one, if not by its host name and the listening port. */
  advertise: endpoint.optional(),
  /** Between attempts to reach the coordinator and other agents. */
  reconnect: z
    .strictObject({ minMs: z.int().positive().default(1_000), maxMs: z.int().positive().default(30_000) })
    .default({ minMs: 1_000, maxMs: 30_000 }),
  /** What deltas that wait for their target may fill. */
  bufferMaxBytes: z
    .int()
    .min(64 * 2 ** 20)
    .default(8 * 2 ** 30),
  log: logConfig.default({ level: 'info' }),
})

export type AgentConfig = z.infer<typeof agentConfigSchema> & { readonly replicaDir: string }

/** Throws `config-invalid`. Paths come back absolute. */
export function loadAgentConfig(path: string): AgentConfig {
  return resolveAgentConfig(loadConfig(path, agentConfigSchema), path)
}

function withPaths(config: z.infer<typeof hypervisor>, path: string): z.infer<typeof hypervisor> {
  if (config.driver === 'folder') return { ...config, root: resolveFrom(path, config.root) }
  const { scratchDir } = config
  return scratchDir === undefined ? config : { ...config, scratchDir: resolveFrom(path, scratchDir) }
}

/** For callers that make the configuration themselves; `path` is where relative paths start. */
export function resolveAgentConfig(config: z.input<typeof agentConfigSchema>, path: string): AgentConfig {
  const parsed = agentConfigSchema.parse(config)
  const dataDir = resolveFrom(path, parsed.dataDir)
  const replicaDir = parsed.replicaDir ? resolveFrom(path, parsed.replicaDir) : dataDir
  const { dir } = parsed.log
  return {
    ...parsed,
    dataDir,
    replicaDir,
    hypervisor: withPaths(parsed.hypervisor, path),
    log: dir ? { ...parsed.log, dir: resolve(dirname(resolve(path)), dir) } : parsed.log,
  }
}

/** What peers are told to dial. A wildcard is no address: then it is the name of this machine. */
export function advertisedEndpoint(config: AgentConfig, boundPort: number): { host: string; port: number } {
  if (config.advertise) return config.advertise
  const wildcard = config.listen.host === '0.0.0.0' || config.listen.host === '::'
  return { host: wildcard ? hostname() : config.listen.host, port: boundPort }
}
