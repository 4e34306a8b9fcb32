import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { vmsDir } from '#shared/folder/layout.ts'
import { writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { type AgentPair, startAgentPair } from '../agent-kit/agent-pair.ts'
import { ReplicatedVm, type VmDisk } from '../agent-kit/replicated-vm.ts'

export interface TestPair extends AsyncDisposable {
  readonly dir: string
  readonly pair: AgentPair
  readonly vm: ReplicatedVm
  readonly vmDir: string
  diskPath(disk: string): string
}

/** Two real agent processes and the folder of one VM with empty disks. The VM is off until somebody starts it. */
export async function testPair(
  disks: readonly VmDisk[],
  command: (vmDir: string) => readonly string[] = () => ['true'],
): Promise<TestPair> {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-truth-'))
  const vmDir = join(vmsDir(join(dir, 'fabric'), 'source-host'), 'vm')
  mkdirSync(vmDir, { recursive: true })
  writeFileSync(join(dir, 'fabric', 'fabric.yaml'), 'vmmServer: truth\n')
  for (const disk of disks) {
    writeFileSync(join(vmDir, `${disk.diskId}.img`), '')
    truncateSync(join(vmDir, `${disk.diskId}.img`), disk.sizeBytes)
  }
  writeVm(vmDir, {
    id: fabricVmId.parse('vm'),
    name: 'vm',
    generation: 1,
    operatingSystem: '',
    memoryBytes: 0,
    cpuCount: 1,
    disks: disks.map((disk, index) => ({
      id: diskId.parse(disk.diskId),
      name: disk.diskId,
      file: `${disk.diskId}.img`,
      boot: index === 0,
    })),
    nics: [],
    classification: null,
    command: [...command(vmDir)],
  })
  const pair = await startAgentPair({
    dir: join(dir, 'agents'),
    fabricRoot: join(dir, 'fabric'),
    sourceHost: 'source-host',
    targetHost: 'target-host',
  })
  return {
    dir,
    pair,
    vm: new ReplicatedVm(pair, 'vm', disks),
    vmDir,
    diskPath: (disk) => join(vmDir, `${disk}.img`),
    async [Symbol.asyncDispose]() {
      await pair[Symbol.asyncDispose]()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
