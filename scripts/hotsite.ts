/** Where the command line meets the three daemons; each is loaded only when it is the one to run. */
import { readFileSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'

// Stripping the types of every file again costs 0.2 s a start (measured); a folder that cannot be written is ignored.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/hotsite', import.meta.url)))
const { runCli } = await import('#coordinator/cli/main.ts')

const manifest: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
const version =
  typeof manifest === 'object' && manifest !== null && 'version' in manifest
    ? String(manifest.version)
    : 'unknown'

// A reader that goes away, as in "hotsite event list | head -1", is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

process.exitCode = await runCli({
  arguments: process.argv.slice(2),
  terminal: { out: process.stdout, err: process.stderr, in: process.stdin, env: process.env },
  version,
  daemons: {
    coordinator: async (config, signal) =>
      (await import('#coordinator/main.ts')).runCoordinator(config, signal),
    provider: async (config, signal) => (await import('#provider-agent/main.ts')).runProvider(config, signal),
    agent: async (config, signal) => (await import('#recovery-agent/main.ts')).runAgent(config, signal),
  },
})
