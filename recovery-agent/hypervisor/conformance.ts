/** What every driver of HostHypervisor must do (DESIGN §8). */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type FabricVmId, fabricVmId } from '#shared/ids.ts'
import type { Extent, HostHypervisor, Snapshot } from './port.ts'

/** A VM of two disks and the means to move it. */
export interface HypervisorSubject extends AsyncDisposable {
  readonly hypervisor: HostHypervisor
  readonly vm: FabricVmId
  readonly sizesBytes: readonly [number, number]
  /** The VM is off: puts bytes onto a disk that is all zeros otherwise. */
  write(diskIndex: 0 | 1, offsetBytes: number, bytes: Buffer): void
  /** Starts a guest that writes n = 1, 2, 3 … to disk 0 and then to disk 1, 8 bytes little-endian at `counterOffsetBytes`. */
  start(): Promise<void>
  stop(): Promise<void>
  readonly counterOffsetBytes: number
  /** Waits until the guest has written again, from now. */
  progress(): Promise<void>
  /** The agent after a restart that gave it no time to close anything. */
  laterLife(): HostHypervisor
}

export function hypervisorConformance(name: string, make: () => Promise<HypervisorSubject>): void {
  describe(`HostHypervisor: ${name}`, () => {
    let subject: HypervisorSubject
    beforeEach(async () => {
      subject = await make()
      await subject.hypervisor.recover()
    })
    afterEach(() => subject[Symbol.asyncDispose]())

    const open = (hold: 'brief' | 'long' = 'brief') =>
      subject.hypervisor.openSnapshot({ fabricVmId: subject.vm, hold })
    const counters = (snapshot: Snapshot) => {
      const cells = snapshot.disks.map((disk) => {
        const cell = Buffer.alloc(8)
        disk.read(cell, subject.counterOffsetBytes)
        return Number(cell.readBigUInt64LE())
      })
      return { n0: cells[0] ?? Number.NaN, n1: cells[1] ?? Number.NaN }
    }

    test('names the disks of a VM with their sizes, in a fixed order', async () => {
      const disks = await subject.hypervisor.disks(subject.vm)
      expect(disks.map((disk) => disk.sizeBytes)).toEqual(subject.sizesBytes)
      const snapshot = await open()
      expect(snapshot.disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes }))).toEqual(
        disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
      )
      snapshot.close()
    })

    test('a VM that is not there is a coded error', async () => {
      const unknown = fabricVmId.parse('nobody')
      await expect(subject.hypervisor.disks(unknown)).rejects.toMatchObject({ code: 'vm-unknown' })
      await expect(
        subject.hypervisor.openSnapshot({ fabricVmId: unknown, hold: 'brief' }),
      ).rejects.toMatchObject({ code: 'vm-unknown' })
    })

    test.each(['brief', 'long'] as const)(
      'VM off, %s: every byte as written, the rest zeros',
      async (hold) => {
        const bytes = Buffer.alloc(100_000, 'hotsite')
        subject.write(0, 12_345, bytes)
        subject.write(1, subject.sizesBytes[1] - 10, Buffer.from('0123456789'))
        const snapshot = await open(hold)
        const [first, second] = snapshot.disks.map((disk) => readByMap(disk))
        const expected = [Buffer.alloc(subject.sizesBytes[0]), Buffer.alloc(subject.sizesBytes[1])] as const
        bytes.copy(expected[0], 12_345)
        expected[1].write('0123456789', subject.sizesBytes[1] - 10)
        expect(first?.equals(expected[0])).toBe(true)
        expect(second?.equals(expected[1])).toBe(true)
        const pastEnd = Buffer.alloc(20, 0xff)
        snapshot.disks[1]?.read(pastEnd, subject.sizesBytes[1] - 5)
        expect(pastEnd.toString('latin1')).toBe(`56789${'\0'.repeat(15)}`)
        expect(snapshot.freezeMs()).toBe(0)
        expect(snapshot.close()).toEqual({ intact: true })
      },
    )

    test('VM running: all disks at one instant, and the instant stands until the close', async () => {
      await subject.start()
      let earlier = 0
      for (let round = 0; round < 5; round++) {
        await subject.progress()
        const snapshot = await open()
        const { n0, n1 } = counters(snapshot)
        expect(n0).toBeGreaterThan(earlier)
        expect(n0 === n1 || n0 === n1 + 1).toBe(true)
        expect(counters(snapshot)).toEqual({ n0, n1 })
        expect(snapshot.close()).toEqual({ intact: true })
        earlier = n0
      }
    })

    test('a long snapshot stands while the VM goes on writing', async () => {
      subject.write(1, 200_000, Buffer.from('old'))
      await subject.start()
      await subject.progress()
      const snapshot = await open('long')
      const before = counters(snapshot)
      expect(before.n0 === before.n1 || before.n0 === before.n1 + 1).toBe(true)
      await subject.progress()
      await subject.progress()
      expect(counters(snapshot)).toEqual(before)
      const cell = Buffer.alloc(3)
      snapshot.disks[1]?.read(cell, 200_000)
      expect(cell.toString()).toBe('old')
      expect(snapshot.close()).toEqual({ intact: true })
    })

    test('closing twice lets go once; the VM runs on', async () => {
      await subject.start()
      const snapshot = await open()
      const first = snapshot.close()
      await subject.progress()
      expect(snapshot.close()).toEqual(first)
      const freezeMs = snapshot.freezeMs()
      await subject.progress()
      expect(snapshot.freezeMs()).toBe(freezeMs)
    })

    test('an agent that died with a snapshot open: its next life lets the VM go and takes another', async () => {
      await subject.start()
      await open()
      await open('long').catch(() => {})
      const later = subject.laterLife()
      await later.recover()
      await subject.progress()
      const snapshot = await later.openSnapshot({ fabricVmId: subject.vm, hold: 'long' })
      expect(snapshot.close()).toEqual({ intact: true })
    })

    test('release may be repeated and names any seq', async () => {
      await subject.hypervisor.release(subject.vm, 1)
      await subject.hypervisor.release(subject.vm, 1)
      await subject.hypervisor.release(subject.vm, 0)
    })
  })
}

/** Reads only what `allocated` names and takes zeros for granted elsewhere, as the capture does. */
function readByMap(disk: {
  readonly sizeBytes: number
  readonly allocated: readonly Extent[]
  read(target: Buffer, offsetBytes: number): void
}): Buffer {
  const image = Buffer.alloc(disk.sizeBytes)
  let end = 0
  for (const { offsetBytes, lengthBytes } of disk.allocated) {
    expect(offsetBytes).toBeGreaterThanOrEqual(end)
    end = offsetBytes + lengthBytes
    expect(end).toBeLessThanOrEqual(disk.sizeBytes)
    disk.read(image.subarray(offsetBytes, end), offsetBytes)
  }
  return image
}
