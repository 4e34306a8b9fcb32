/**
 * The checkpoints of one domain that are ours. Each is a bitmap in every disk that can have one, which says what was
 * written since; libvirt keeps them in a line, oldest first. The oldest is the base: what was released last, or an older
 * state if an agent died before it could say so, which only means that more is looked at.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { z } from 'zod'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { Domain } from '#shared/libvirt/domain.ts'
import type { Virsh } from '#shared/libvirt/virsh.ts'
import { child, children, parseXml } from '#shared/libvirt/xml.ts'
import type { Logger } from '#shared/log.ts'

/** QMP: query-named-block-nodes, as far as it is read. */
const namedNodes = z.object({
  return: z
    .array(
      z.object({
        'node-name': z.string().optional(),
        'dirty-bitmaps': z.array(z.object({ name: z.string().optional() })).optional(),
      }),
    )
    .default([]),
})
const monitorError = z.object({ error: z.object({ desc: z.string() }).optional() })

const PREFIX = 'hotsite-'
const SEQ_DIGITS = 12

export interface Checkpoint {
  readonly name: string
  readonly seq: number
  /** Disks that have its bitmap, as libvirt calls them. */
  readonly disks: ReadonlySet<string>
}

export const checkpointName = (seq: number) => `${PREFIX}${String(seq).padStart(SEQ_DIGITS, '0')}`

export class Checkpoints {
  readonly #virsh: Virsh
  readonly #log: Logger
  /** What a checkpoint has never changes. */
  readonly #disks = new Map<string, ReadonlySet<string>>()

  constructor(virsh: Virsh, log: Logger) {
    this.#virsh = virsh
    this.#log = log
  }

  /** Oldest first. */
  async list(uuid: string): Promise<Checkpoint[]> {
    const all = (await this.#virsh.run(['checkpoint-list', uuid, '--name']))
      .split('\n')
      .map((name) => name.trim())
    const names = all
      .filter((name) => name.startsWith(PREFIX) && /^\d+$/.test(name.slice(PREFIX.length)))
      .sort()
    const checkpoints: Checkpoint[] = []
    for (const name of names)
      checkpoints.push({
        name,
        seq: Number(name.slice(PREFIX.length)),
        disks: await this.#disksOf(uuid, name),
      })
    return checkpoints
  }

  async #disksOf(uuid: string, name: string): Promise<ReadonlySet<string>> {
    const key = `${uuid}/${name}`
    const known = this.#disks.get(key)
    if (known) return known
    const xml = parseXml(await this.#virsh.run(['checkpoint-dumpxml', uuid, name, '--no-domain']))
    const disks = children(child(xml, 'disks'), 'disk').flatMap((disk) => {
      const target = disk.getAttribute('name')
      return target && disk.getAttribute('checkpoint') === 'bitmap' ? [target] : []
    })
    const found = new Set(disks)
    this.#disks.set(key, found)
    return found
  }

  /** What it said goes to the one before it. Throws `tracker-broken`. */
  async remove(uuid: string, { name }: Checkpoint): Promise<void> {
    this.#disks.delete(`${uuid}/${name}`)
    try {
      await this.#virsh.run(['checkpoint-delete', uuid, name])
    } catch (error) {
      if (!(error instanceof HotsiteError) || error.code !== 'libvirt-failed') throw error
      throw new HotsiteError('tracker-broken', `checkpoint ${name} of ${uuid}: ${error.message}`, {
        cause: error,
      })
    }
  }

  /** Nothing of ours is left in the domain, running or off, nor in its images. */
  async removeAll({ uuid, isLive, disks }: Domain): Promise<void> {
    for (const checkpoint of (await this.list(uuid)).toReversed()) {
      if (isLive) {
        await this.remove(uuid, checkpoint)
        continue
      }
      // libvirt removes bitmaps of running domains only.
      for (const { target, path } of disks)
        if (path !== null && checkpoint.disks.has(target))
          await promisify(execFile)('qemu-img', ['bitmap', '--remove', '-f', 'qcow2', path, checkpoint.name])
      this.#disks.delete(`${uuid}/${checkpoint.name}`)
      await this.#virsh.run(['checkpoint-delete', uuid, checkpoint.name, '--metadata'])
    }
  }

  /** After QEMU died their bitmaps are of no use: they go with what libvirt knows of them, and disks are compared. */
  async forgetAll({ uuid, name }: Domain): Promise<void> {
    const own = await this.list(uuid)
    for (const checkpoint of own.toReversed()) {
      this.#disks.delete(`${uuid}/${checkpoint.name}`)
      await this.#virsh.run(['checkpoint-delete', uuid, checkpoint.name, '--metadata'])
    }
    const left = await this.#bitmaps(uuid)
    for (const { node, bitmap } of left) await this.#removeBitmap(uuid, node, bitmap)
    this.#log.warn('libvirt.tracker-forgotten', { vm: name, checkpoints: own.length, bitmaps: left.length })
  }

  /** Ours, in any node of a running domain. */
  async #bitmaps(uuid: string): Promise<{ node: string; bitmap: string }[]> {
    const answer = await this.#monitor(uuid, {
      execute: 'query-named-block-nodes',
      arguments: { flat: true },
    })
    return namedNodes
      .parse(answer)
      .return.flatMap(({ 'node-name': node, 'dirty-bitmaps': bitmaps = [] }) =>
        bitmaps.flatMap(({ name }) => (node && name?.startsWith(PREFIX) ? [{ node, bitmap: name }] : [])),
      )
  }

  async #removeBitmap(uuid: string, node: string, name: string): Promise<void> {
    const answer = await this.#monitor(uuid, {
      execute: 'block-dirty-bitmap-remove',
      arguments: { node, name },
    })
    const { error } = monitorError.parse(answer)
    // The node above shows the bitmaps of the one below it.
    if (error) this.#log.debug('libvirt.bitmap-stays', { node, name, what: error.desc })
  }

  async #monitor(uuid: string, command: object): Promise<unknown> {
    return JSON.parse(await this.#virsh.run(['qemu-monitor-command', uuid, JSON.stringify(command)]))
  }
}
