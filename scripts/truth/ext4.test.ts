/**
 * Done when: an ext4 image on it passes `e2fsck -fn` after journal replay. The "VM" is a qemu-storage-daemon that serves
 * its raw disk through FUSE; the kernel mounts ext4 on a loop device over that and writes with a journal. So the process
 * that is suspended for the capture is the one that writes the image, as with a hypervisor.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { findVm } from '#shared/folder/layout.ts'
import { signalVm, startProgram, waitUntilOff } from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import { readRun } from '#shared/folder/vm-file.ts'
import { fabricVmId } from '#shared/ids.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { type TestPair, testPair } from './test-pair.ts'

const sizeBytes = 48 * 2 ** 20
const rounds = 5
const path = `${process.env['PATH']}:/usr/sbin:/sbin`
const run = (command: string, ...args: readonly string[]) =>
  execFileSync(command, args, { encoding: 'utf8', env: { ...process.env, PATH: path } }).trim()

/** Mounting takes root and FUSE; in CI both are there, and leaving this out is a failure. */
function canMount(): boolean {
  const possible = process.getuid?.() === 0 && existsSync('/dev/fuse') && existsSync('/dev/loop-control')
  if (!possible && process.env['CI'])
    throw new Error('root, /dev/fuse and loop devices are needed, and in CI no check may be left out')
  return (
    possible &&
    ['qemu-storage-daemon', 'fusermount3', 'mke2fs', 'e2fsck', 'qemu-img'].every((tool) => hasTool(tool))
  )
}

const storageDaemon = (vmDir: string) => [
  'qemu-storage-daemon',
  '--blockdev',
  `driver=file,node-name=file0,filename=${join(vmDir, 'disk0.img')},cache.direct=off`,
  '--blockdev',
  'driver=raw,node-name=raw0,file=file0',
  '--export',
  `type=fuse,id=export0,node-name=raw0,mountpoint=${join(vmDir, 'disk0.fuse')},writable=on`,
]

interface MountedGuest extends AsyncDisposable {
  readonly mountPoint: string
}

async function mountGuest(test: TestPair): Promise<MountedGuest> {
  const vm = findVm({ root: join(test.dir, 'fabric'), hosts: ['source-host'], id: fabricVmId.parse('vm') })
  if (!vm) throw new Error('the VM of the test is not in its fabric')
  const table = openProcessTable()
  const served = join(vm.dir, 'disk0.fuse')
  writeFileSync(served, '')
  await startProgram(vm, table, systemClock)
  if (!(await waitUntil(() => statSync(served).size === sizeBytes, 20_000)))
    throw new Error('the storage daemon serves nothing')
  const loop = run('losetup', '-f', '--show', served)
  const mountPoint = join(test.dir, 'mnt')
  mkdirSync(mountPoint)
  run('mount', loop, mountPoint)
  return {
    mountPoint,
    async [Symbol.asyncDispose]() {
      run('umount', mountPoint)
      run('losetup', '-d', loop)
      signalVm(readRun(vm.dir), table, 'SIGTERM')
      await waitUntilOff({ vm, table, clock: systemClock, timeoutMs: 10_000 })
    },
  }
}

/** Files made, grown, synced, renamed and removed until told to stop: work for the journal at every instant. */
function startChurn(mountPoint: string): { stop(): Promise<void> } {
  let stopping = false
  const work = (async () => {
    for (let n = 0; !stopping; n++) {
      const file = join(mountPoint, `file-${n % 40}`)
      appendFileSync(file, `line ${n}\n`.repeat(1 + (n % 300)))
      if (n % 7 === 0) rmSync(file)
      if (n % 5 === 0) mkdirSync(join(mountPoint, `dir-${n % 60}`), { recursive: true })
      if (n % 11 === 0) syncFile(join(mountPoint, 'journal-of-the-application'), n)
      await systemClock.sleep(2)
    }
  })()
  return {
    stop() {
      stopping = true
      return work
    },
  }
}

function syncFile(file: string, n: number): void {
  const fd = openSync(file, 'w')
  writeSync(fd, `${n}\n`)
  fsyncSync(fd)
  closeSync(fd)
}

it.skipIf(!canMount())(
  'a journaled file system under load is clean at every recovery point once its journal is replayed',
  async () => {
    await using test = await testPair([{ diskId: 'disk0', sizeBytes }], storageDaemon)
    run('mke2fs', '-q', '-t', 'ext4', '-F', test.diskPath('disk0'))
    await using guest = await mountGuest(test)
    const churn = startChurn(guest.mountPoint)
    try {
      await test.vm.start({ retentionPoints: rounds })
      for (let round = 0; round < rounds; round++) await test.vm.copyNow()
    } finally {
      await churn.stop()
    }
    const points = await test.vm.points()
    expect(points.length).toBe(rounds + 1)
    let replayed = 0
    for (const { seq } of points) {
      const raw = join(test.dir, `${seq}.raw`)
      run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', test.vm.layer(seq, 'disk0'), raw)
      if (/needs_recovery/.test(run('dumpe2fs', '-h', raw))) replayed += 1
      spawnSync('e2fsck', ['-y', '-E', 'journal_only', raw], { env: { ...process.env, PATH: path } })
      const { status, stdout } = spawnSync('e2fsck', ['-fn', raw], {
        encoding: 'utf8',
        env: { ...process.env, PATH: path },
      })
      expect({ status, stdout: status === 0 ? '' : stdout }, `point ${seq}`).toEqual({
        status: 0,
        stdout: '',
      })
    }
    // Otherwise the file system was at rest and the test shows nothing.
    expect(replayed).toBeGreaterThan(0)
  },
  180_000,
)
