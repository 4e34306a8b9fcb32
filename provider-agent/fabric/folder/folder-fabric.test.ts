import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hostDir, hostPath, vmPath } from '#shared/folder/layout.ts'
import { countingGuest, makeTestFabric, type TestFabric, until } from '#shared/folder/testing/test-fabric.ts'
import { readRun } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { type FabricSubject, fabricConformance, type GuestKind } from '../conformance.ts'
import type { Fabric } from '../port.ts'
import { openFolderFabric } from './folder-fabric.ts'

const sh = (script: string) => ['sh', '-c', script]
const guests: Record<GuestKind, string[]> = {
  healthy: [...countingGuest],
  silent: sh('while :; do sleep 1; done'),
  stubborn: sh('trap "" TERM; while :; do : >"$HOTSITE_VM_HEARTBEAT"; sleep 0.05; done'),
  crashing: sh('echo no boot device; exit 1'),
}

const networks = ['lan', 'island'].map((name) => ({ name, logicalNetwork: 'corp', subnets: [] }))
const never = new AbortController().signal

const makeFabric = () => {
  const made = makeTestFabric({ clouds: [{ name: 'gold', hosts: ['host1', 'host2'] }], networks })
  made.addHost('host1', { networks: ['lan'], memoryBytes: 2 ** 30, cpuCount: 4 })
  made.addHost('host2')
  return made
}
const open = ({ root, clock }: TestFabric) => openFolderFabric({ root, clock, log: silentLog })

fabricConformance('folder', async (): Promise<FabricSubject> => {
  const made = makeFabric()
  const overlays = join(made.root, 'overlays')
  mkdirSync(overlays)
  return {
    fabric: open(made),
    host: 'host1',
    cloud: 'gold',
    network: 'lan',
    unreachableNetwork: 'island',
    guest: (kind) => ({ command: guests[kind] }),
    patienceMs: 10_000,
    disk(id) {
      const path = join(overlays, `${id}.img`)
      writeFileSync(path, Buffer.alloc(131_072))
      return { diskId: diskId.parse(id), path, format: 'raw', sizeBytes: 131_072 }
    },
    reopen: () => open(made),
    [Symbol.asyncDispose]: () => made[Symbol.asyncDispose](),
  }
})

describe('folder fabric', () => {
  let made: TestFabric
  let fabric: Fabric
  beforeEach(() => {
    made = makeFabric()
    fabric = open(made)
  })
  afterEach(() => made[Symbol.asyncDispose]())

  test('capacity comes from host.yaml, and from the machine where it is absent', async () => {
    const { hosts } = await fabric.inventory()
    expect(hosts[0]).toMatchObject({ name: 'host1', memoryBytes: 2 ** 30, cpuCount: 4, networks: ['lan'] })
    expect(hosts[1]?.networks).toEqual(['lan', 'island'])
    expect(hosts[1]?.memoryBytes).toBeGreaterThan(2 ** 28)
  })

  test('an unknown key is an error that names file and key', async () => {
    writeFileSync(hostPath(made.root, 'host1'), 'memoryByte: 5\n')
    await expect(fabric.inventory()).rejects.toMatchObject({
      code: 'config-invalid',
      message: expect.stringMatching(/host1\/host\.yaml.*memoryByte/),
    })
  })

  test('a broken vm.yaml hides its own VM only, and its fence is not taken for done', async () => {
    const good = made.addVm({ name: 'good' })
    const broken = made.addVm({ name: 'broken' })
    writeFileSync(vmPath(broken.dir), `${readFileSync(vmPath(broken.dir), 'utf8')}nonsense: 1\n`)
    expect((await fabric.inventory()).vms.map((vm) => vm.name)).toEqual(['good'])
    expect((await fabric.observe(good.file.id)).exists).toBe(true)
    await expect(fabric.fence(broken.file.id, 2, 'x')).rejects.toMatchObject({ code: 'config-invalid' })
  })

  test('one id in two folders is refused by name', async () => {
    const first = made.addVm({ name: 'first' })
    made.addVm({ name: 'copy', file: { id: first.file.id } })
    await expect(fabric.start(first.file.id, 1000, never)).rejects.toMatchObject({
      code: 'vm-ambiguous',
      message: expect.stringMatching(/copy.*first/),
    })
  })

  test('two VMs of one name get folders of their own, and names cannot leave the folder', async () => {
    const disk = join(made.root, 'd.img')
    writeFileSync(disk, 'data')
    const define = (id: string, name: string) =>
      fabric.define({
        fabricVmId: fabricVmId.parse(id),
        name,
        host: 'host2',
        description: {
          fabricVmId: fabricVmId.parse(id),
          name,
          host: '',
          generation: 1,
          operatingSystem: '',
          memoryBytes: 0,
          cpuCount: 1,
          disks: [],
          nics: [],
          classification: null,
          driverSettings: { command: ['true'] },
        },
        disks: [{ diskId: diskId.parse('d'), path: disk, format: 'raw', sizeBytes: 4 }],
        nics: [],
      })
    await define('a1', '../../x')
    await define('a2', '../../x')
    expect(readdirSync(join(hostDir(made.root, 'host2'), 'vms'))).toEqual(['_.._.._x', '_.._.._x-a2'])
    await expect(define('a1', 'y').then(() => made.vm(fabricVmId.parse('a1')).dir)).resolves.toContain('_x')
  })

  test('a program that is not there: the shell names it', async () => {
    const vm = made.addVm({ name: 'wrong', command: ['/nowhere/guest'] })
    await expect(fabric.start(vm.file.id, 5_000, never)).rejects.toMatchObject({
      code: 'vm-start-failed',
      message: expect.stringContaining('/nowhere/guest'),
    })
  })

  test('the guest gets its disks and its folder, and nothing of the environment of the daemon', async () => {
    process.env['HOTSITE_TEST_SECRET'] = 'secret'
    const vm = made.addVm({
      name: 'env',
      command: sh('env; pwd; : >"$HOTSITE_VM_HEARTBEAT"; exec sleep 60'),
    })
    await fabric.start(vm.file.id, 5_000, never)
    const log = readFileSync(join(vm.dir, 'guest.log'), 'utf8')
    expect(log).not.toContain('secret')
    expect(log).toContain(`HOTSITE_VM_DIR=${vm.dir}\n`)
    expect(log).toContain(`\n${vm.dir}\n`)
    const disks = JSON.parse(/^HOTSITE_VM_DISKS=(.*)$/m.exec(log)?.[1] ?? '')
    expect(disks[1]).toEqual({ id: 'd1', name: 'disk 1', path: join(vm.dir, 'disk1.img') })
  })

  test('the leader ended, its children live: the VM is running until all are gone', async () => {
    const vm = made.addVm({
      name: 'orphans',
      command: sh(': >"$HOTSITE_VM_HEARTBEAT"; sleep 60 & sleep 60 & sleep 0.2'),
    })
    await fabric.start(vm.file.id, 5_000, never)
    const leader = readRun(vm.dir)?.pid ?? 0
    await until('the leader ends', () => (made.table.find(leader)?.state ?? 'dead') === 'dead')
    expect((await fabric.observe(vm.file.id)).power).toBe('running')
    expect((await fabric.stop(vm.file.id)).power).toBe('off')
  })

  test('a VM that ends by itself is a change', async () => {
    const vm = made.addVm({ name: 'short', command: sh(': >"$HOTSITE_VM_HEARTBEAT"; sleep 0.3') })
    await fabric.start(vm.file.id, 5_000, never)
    await fabric.inventory()
    await fabric.changed(AbortSignal.timeout(5_000))
    expect((await fabric.inventory()).vms[0]?.observation.power).toBe('off')
  })
})
