/** What every driver of Fabric must do (DESIGN §8). */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { diskId, type FabricVmId, fabricVmId } from '#shared/ids.ts'
import type { CommandRequest, OverlayDisk } from '#shared/messages/commands.ts'
import type { Fabric } from './port.ts'

/**
 * healthy: gives heartbeats, shuts down when asked. silent: runs, no heartbeat. stubborn: does not shut down.
 * crashing: ends at once, saying "no boot device".
 */
export type GuestKind = 'healthy' | 'silent' | 'stubborn' | 'crashing'

export interface FabricSubject extends AsyncDisposable {
  readonly fabric: Fabric
  readonly host: string
  readonly cloud: string
  readonly network: string
  /** A network of the fabric that `host` does not reach. */
  readonly unreachableNetwork: string
  /** `driverSettings` of such a guest. */
  guest(kind: GuestKind): Record<string, unknown>
  /** The longest that a healthy guest takes to come up, or to shut down. */
  readonly patienceMs: number
  /** A new disk with content. */
  disk(id: string): OverlayDisk
  /** The daemon after a restart. */
  reopen(): Fabric
}

const never = new AbortController().signal

export function fabricConformance(name: string, make: () => Promise<FabricSubject>): void {
  describe(`Fabric: ${name}`, () => {
    let subject: FabricSubject
    let fabric: Fabric
    let heartbeatMs: number
    const id: FabricVmId = fabricVmId.parse('3f1c')
    beforeEach(async () => {
      subject = await make()
      fabric = subject.fabric
      heartbeatMs = subject.patienceMs
    })
    afterEach(() => subject[Symbol.asyncDispose]())

    const definition = (kind: GuestKind, network: string | null = subject.network) => {
      const disks = [subject.disk('d0'), subject.disk('d1')]
      const request: CommandRequest<'vm.define'> = {
        fabricVmId: id,
        name: 'Orders (replica)',
        host: subject.host,
        description: {
          fabricVmId: fabricVmId.parse('source'),
          name: 'orders',
          host: 'elsewhere',
          generation: 2,
          operatingSystem: 'Debian',
          memoryBytes: 64 * 1024 * 1024,
          cpuCount: 2,
          disks: disks.map(({ diskId: disk, sizeBytes }, index) => ({
            diskId: disk,
            name: `disk ${index}`,
            sizeBytes,
            boot: index === 0,
          })),
          nics: [{ name: 'eth0', network: 'source network' }],
          classification: null,
          driverSettings: subject.guest(kind),
        },
        disks,
        nics: [{ name: 'eth0', network }],
      }
      return request
    }
    const vmInInventory = async (of = fabric) => (await of.inventory()).vms.find((vm) => vm.fabricVmId === id)

    test('the inventory names the host, its cloud and the networks it reaches', async () => {
      const inventory = await fabric.inventory()
      expect(inventory.clouds.find((cloud) => cloud.name === subject.cloud)?.hosts).toContain(subject.host)
      const host = inventory.hosts.find((other) => other.name === subject.host)
      expect(host?.networks).toContain(subject.network)
      expect(host?.networks).not.toContain(subject.unreachableNetwork)
      expect(host?.memoryBytes).toBeGreaterThan(0)
      expect(host?.cpuCount).toBeGreaterThan(0)
      expect(host?.freeDiskBytes).toBeGreaterThan(0)
      expect(inventory.networks.map((network) => network.name)).toContain(subject.unreachableNetwork)
    })

    test('a VM that is not there: observed as absent, stopped and removed without complaint, never started', async () => {
      const absent = { exists: false, power: 'off', heartbeatAgeMs: null, nics: [], fenced: false }
      expect(await fabric.observe(id)).toEqual(absent)
      expect(await fabric.stop(id)).toEqual(absent)
      expect(await fabric.shutDown(id, 1000, never)).toEqual(absent)
      expect(await fabric.remove(id)).toEqual(absent)
      expect(await fabric.screenshot(id)).toBeNull()
      await expect(fabric.start(id, heartbeatMs, never)).rejects.toMatchObject({ code: 'vm-unknown' })
    })

    test('define, start, shut down, remove: each answers with what it saw, each may be repeated', async () => {
      const request = definition('healthy')
      const nics = [{ name: 'eth0', network: subject.network }]
      const off = { exists: true, power: 'off', heartbeatAgeMs: null, nics, fenced: false }
      expect(await fabric.define(request)).toEqual(off)
      expect(await fabric.define(request)).toEqual(off)
      expect(await vmInInventory()).toMatchObject({
        name: 'Orders (replica)',
        host: subject.host,
        cloud: subject.cloud,
        generation: 2,
        operatingSystem: 'Debian',
        disks: [
          { diskId: 'd0', name: 'disk 0', boot: true, sizeBytes: request.disks[0]?.sizeBytes },
          { diskId: 'd1', name: 'disk 1', boot: false, sizeBytes: request.disks[1]?.sizeBytes },
        ],
        nics,
        observation: off,
      })

      const started = await fabric.start(id, heartbeatMs, never)
      expect(started).toMatchObject({ exists: true, power: 'running', nics, fenced: false })
      expect(started.heartbeatAgeMs).toBeLessThanOrEqual(heartbeatMs)
      expect(await fabric.start(id, heartbeatMs, never)).toMatchObject({ power: 'running' })
      expect(await fabric.define(request)).toMatchObject({ power: 'running' })
      await expect(fabric.remove(id)).rejects.toMatchObject({ code: 'vm-running' })

      expect(await fabric.shutDown(id, heartbeatMs, never)).toEqual(off)
      expect(await fabric.shutDown(id, heartbeatMs, never)).toEqual(off)
      expect((await fabric.start(id, heartbeatMs, never)).power).toBe('running')
      expect(await fabric.stop(id)).toEqual(off)
      expect(await fabric.stop(id)).toEqual(off)
      expect((await fabric.remove(id)).exists).toBe(false)
      expect((await fabric.remove(id)).exists).toBe(false)
      expect(await vmInInventory()).toBeUndefined()
    })

    test('defining again replaces disks and NICs, while the VM is off', async () => {
      const request = definition('healthy')
      await fabric.define(request)
      await fabric.start(id, heartbeatMs, never)
      const changed = { ...request, disks: [subject.disk('d2')], nics: [{ name: 'eth0', network: null }] }
      await expect(fabric.define(changed)).rejects.toMatchObject({ code: 'vm-running' })
      await fabric.stop(id)
      expect((await fabric.define(changed)).nics).toEqual([{ name: 'eth0', network: null }])
      expect((await vmInInventory())?.disks.map((disk) => disk.diskId)).toEqual(['d2'])
      expect((await fabric.start(id, heartbeatMs, never)).power).toBe('running')
    })

    test('an unknown host and a missing disk are refused', async () => {
      const request = definition('healthy')
      await expect(fabric.define({ ...request, host: 'nowhere' })).rejects.toMatchObject({
        code: 'host-unknown',
      })
      const missing: OverlayDisk = { ...subject.disk('d3'), diskId: diskId.parse('d3'), path: '/nowhere/d3' }
      await expect(fabric.define({ ...request, disks: [missing] })).rejects.toMatchObject({
        code: 'disk-missing',
      })
      expect((await fabric.observe(id)).exists).toBe(false)
    })

    test('I8: a VM that runs without a sign of life is no success', async () => {
      await fabric.define(definition('silent'))
      await expect(fabric.start(id, 300, never)).rejects.toMatchObject({ code: 'heartbeat-missing' })
      expect(await fabric.observe(id)).toMatchObject({ power: 'running', heartbeatAgeMs: null })
    })

    test('a guest that ends at once: the error carries what it said last', async () => {
      await fabric.define(definition('crashing'))
      await expect(fabric.start(id, heartbeatMs, never)).rejects.toMatchObject({
        code: 'vm-start-failed',
        message: expect.stringContaining('no boot device'),
      })
      expect((await fabric.observe(id)).power).toBe('off')
    })

    test('a guest that does not shut down is left running, and power off works', async () => {
      await fabric.define(definition('stubborn'))
      await fabric.start(id, heartbeatMs, never)
      await expect(fabric.shutDown(id, 300, never)).rejects.toMatchObject({ code: 'shutdown-timeout' })
      expect((await fabric.observe(id)).power).toBe('running')
      expect((await fabric.stop(id)).power).toBe('off')
    })

    test('a NIC on a network out of reach: not started, and observed as connected to nothing', async () => {
      const defined = await fabric.define(definition('healthy', subject.unreachableNetwork))
      expect(defined.nics).toEqual([{ name: 'eth0', network: null }])
      await expect(fabric.start(id, heartbeatMs, never)).rejects.toMatchObject({
        code: 'network-unreachable',
      })
      expect((await fabric.observe(id)).power).toBe('off')
    })

    test('I5: a fence powers off, outlives the daemon and a redefinition, and holds until it is lifted', async () => {
      await fabric.define(definition('healthy'))
      await fabric.start(id, heartbeatMs, never)
      expect(await fabric.fence(id, 7, 'runs at the other site')).toMatchObject({
        power: 'off',
        fenced: true,
      })
      expect((await fabric.fence(id, 6, 'late repeat')).fenced).toBe(true)
      const later = subject.reopen()
      const start = later.start(id, heartbeatMs, never)
      await expect(start).rejects.toMatchObject({
        code: 'vm-fenced',
        message: expect.stringContaining('runs at the other site'),
      })
      expect((await later.define(definition('healthy'))).fenced).toBe(true)
      expect(await later.unfence(id)).toMatchObject({ fenced: false, power: 'off' })
      expect((await later.unfence(id)).fenced).toBe(false)
      expect((await later.start(id, heartbeatMs, never)).power).toBe('running')
    })

    test('a fence does not wait for a start that waits for its heartbeat', async () => {
      await fabric.define(definition('silent'))
      const start = fabric.start(id, 60_000, never)
      const outcome = expect(start).rejects.toMatchObject({ code: 'vm-fenced' })
      while ((await fabric.observe(id)).power === 'off') await new Promise(setImmediate)
      expect((await fabric.fence(id, 2, 'newer elsewhere')).power).toBe('off')
      await outcome
    })

    test('VMs outlive the daemon', async () => {
      await fabric.define(definition('healthy'))
      await fabric.start(id, heartbeatMs, never)
      const later = subject.reopen()
      expect((await later.observe(id)).power).toBe('running')
      expect((await later.stop(id)).power).toBe('off')
    })

    test('a change is told, once, and the wait for one can be ended', async () => {
      await fabric.inventory()
      const told = fabric.changed(AbortSignal.timeout(heartbeatMs))
      await fabric.define(definition('healthy'))
      await told
      await fabric.inventory()
      const nothing = new AbortController()
      const waiting = fabric.changed(nothing.signal)
      nothing.abort(new Error('enough'))
      await expect(waiting).rejects.toThrow()
    })
  })
}
