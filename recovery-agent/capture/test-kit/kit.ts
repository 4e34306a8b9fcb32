import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import { fabricVmId, serverId, vaultId, vmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'
import type { EngineDeps } from '../engine-deps.ts'
import { defaultCaptureLimits } from '../limits.ts'
import { openCaptureEngine } from '../open-engine.ts'
import type { CaptureEngine } from '../port.ts'
import { FileHypervisor } from './file-hypervisor.ts'
import { ModelTarget, type Replication } from './model-target.ts'

export const vm = vmId.parse('vm-1')
export const sourceVm = { vmId: vm, fabricVmId: fabricVmId.parse('fabric-1'), epoch: 1 }

export interface CaptureKit extends AsyncDisposable {
  readonly dir: string
  readonly dataDir: string
  readonly hypervisor: FileHypervisor
  readonly publicKey: Uint8Array
  readonly deps: Omit<EngineDeps, 'buffer'>
  /** An engine on the kit's folder; `changes` replace dependencies. */
  open(changes?: Partial<EngineDeps>): Promise<CaptureEngine>
  /** A VM with these disks, added; nothing is synchronized yet. */
  start(disks: readonly number[], changes?: Partial<EngineDeps>): Promise<Replication>
}

export function captureKit(): CaptureKit {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-capture-'))
  const dataDir = join(dir, 'data')
  const hypervisor = new FileHypervisor(dir)
  const keys = generateKeys()
  const deps: Omit<EngineDeps, 'buffer'> = {
    hypervisor,
    vaultId: vaultId.parse('vault-1'),
    serverId: serverId.parse('server-1'),
    sign: (manifest) => signManifest(manifest, keys),
    clock: systemClock,
    rng: systemRng,
    log: silentLog,
    limits: defaultCaptureLimits,
    crashPoint: noCrash,
  }
  const engines: CaptureEngine[] = []
  const open = async (changes: Partial<EngineDeps> = {}) => {
    const engine = await openCaptureEngine({ ...deps, ...changes, dataDir })
    engines.push(engine)
    return engine
  }
  return {
    dir,
    dataDir,
    hypervisor,
    publicKey: keys.publicKey,
    deps,
    open,
    async start(disks, changes) {
      disks.forEach((sizeBytes, i) => {
        hypervisor.addDisk(`disk-${i}`, sizeBytes)
      })
      const engine = await open(changes)
      const replication = { engine, target: new ModelTarget(), vmId: vm, publicKey: keys.publicKey }
      await engine.add(sourceVm, 'initial')
      return replication
    },
    async [Symbol.asyncDispose]() {
      for (const engine of engines) await engine[Symbol.asyncDispose]()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
