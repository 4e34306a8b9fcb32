import { join } from 'node:path'

/** Where the coordinator listens and the command line looks when nobody says otherwise. */
export function defaultSocketPath(
  env: Readonly<Record<string, string | undefined>>,
  { platform, uid }: { platform: NodeJS.Platform; uid: number },
): string {
  if (platform === 'win32') return '\\\\.\\pipe\\hotsite-admin'
  if (uid === 0) return '/run/hotsite/admin.sock'
  const runtime = env['XDG_RUNTIME_DIR']
  return runtime ? join(runtime, 'hotsite', 'admin.sock') : `/tmp/hotsite-${uid}/admin.sock`
}
