/** nbdcopy: pulled from qemu-nbd, or pushed to nbdkit; with TLS 1.3 and certificates of both sides, or plain. */
import { truncateSync, writeFileSync } from 'node:fs'
import { freePort } from '../../lab-kit/configs.ts'
import { runTimed, type Server, startServer } from '../processes.ts'
import type { Job, Tool } from '../workload.ts'
import { type Site, sameImage, startTarget } from './site.ts'

interface Way {
  readonly name: string
  readonly tls: boolean
  readonly push: boolean
}

const ways = {
  pullTls: { name: 'nbdcopy-tls', tls: true, push: false },
  pushTls: { name: 'nbdcopy-push-tls', tls: true, push: true },
  push: { name: 'nbdcopy', tls: false, push: true },
} as const satisfies Record<string, Way>

export const openNbdcopyTls = (site: Site): Promise<Tool> => openNbdcopy(site, ways.pullTls)
export const openNbdcopyPushTls = (site: Site): Promise<Tool> => openNbdcopy(site, ways.pushTls)
export const openNbdcopyPlain = (site: Site): Promise<Tool> => openNbdcopy(site, ways.push)

async function openNbdcopy(site: Site, way: Way): Promise<Tool> {
  const keys = way.tls ? site.tlsKeys() : ''
  let server: Server | undefined
  let uri = ''
  const finish = async () => {
    await server?.[Symbol.asyncDispose]()
    server = undefined
  }
  return {
    name: way.name,
    workloads: [way.tls ? 'W1-encrypted' : 'W1-plain'],
    encrypted: way.tls,
    async prepare(job) {
      startTarget(job)
      writeFileSync(job.target, '')
      truncateSync(job.target, job.sizeBytes)
      const port = await freePort()
      uri = way.tls ? `nbds://localhost:${port}/?tls-certificates=${keys}` : `nbd://127.0.0.1:${port}/`
      server = await startServer(
        way.push ? nbdkit(port, job.target, keys) : qemuNbd(port, job.source, keys),
        port,
      )
    },
    pids: () => (server ? [server.pid] : []),
    run: (job) => runTimed(copyScript, [...(way.push ? [job.source, uri] : [uri, job.target]), job.target]),
    identical: async (job) => sameImage(job.target, job.source),
    finish,
    [Symbol.asyncDispose]: finish,
  }
}

const copyScript = 'nbdcopy --flush --destination-is-zero "$1" "$2" && sync "$3"'

function nbdkit(port: number, target: string, keys: string): string[] {
  const tls = keys ? ['--tls=require', `--tls-certificates=${keys}`, '--tls-verify-peer'] : []
  return ['nbdkit', '-f', '-i', '127.0.0.1', '-p', String(port), ...tls, 'file', target]
}

function qemuNbd(port: number, source: Job['source'], keys: string): string[] {
  const tls = `--object tls-creds-x509,id=t,endpoint=server,dir=${keys},verify-peer=yes --tls-creds t`.split(
    ' ',
  )
  const where = ['-b', '127.0.0.1', '-p', String(port)]
  return ['qemu-nbd', '-t', '-r', '-e', '16', '-f', 'raw', ...where, ...(keys ? tls : []), source]
}
