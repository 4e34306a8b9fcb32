import { join } from 'node:path'

/** Where a coordinator listens and the command line looks when neither names a socket: one per user of the machine. */
export function defaultSocketPath(
  env: Readonly<Record<string, string | undefined>>,
  { platform, uid, homeDir }: { platform: NodeJS.Platform; uid: number; homeDir: string },
): string {
  if (platform === 'win32') return '\\\\.\\pipe\\hotsite-admin'
  const state = uid === 0 ? '/var/lib' : (env['XDG_STATE_HOME'] ?? join(homeDir, '.local', 'state'))
  return join(state, 'hotsite', 'coordinator', 'admin', 'hotsite.sock')
}
