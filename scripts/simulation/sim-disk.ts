/**
 * The disk below a target's replicas, in memory, as a power cut, a full disk and rot see it. Contents that were not
 * synced may go back, sector by sector; names that were not synced (`syncFolder`) may go back too, the newest first.
 * Clusters are never changed in place: whoever holds one holds what was there. One is as long as what was written of it, and
 * zeros behind that.
 */
import { dirname } from 'node:path'
import type { ReplicaFiles } from '#recovery-agent/replica/files.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { intBelow, type Rng } from '#shared/rng.ts'

export const CLUSTER_BYTES = 65_536
const SECTOR_BYTES = 4096

export class SimFile {
  sizeBytes = 0
  readonly clusters = new Map<number, Buffer>()
  /** Clusters as they were at the last sync; undefined: they were not there. */
  readonly #unsynced = new Map<number, Buffer | undefined>()
  #syncedSizeBytes = 0

  read(target: Buffer, offsetBytes: number): void {
    let done = 0
    while (done < target.length) {
      const at = offsetBytes + done
      const inCluster = at % CLUSTER_BYTES
      const count = Math.min(target.length - done, CLUSTER_BYTES - inCluster)
      const cluster = this.clusters.get(Math.floor(at / CLUSTER_BYTES))
      const copied =
        cluster && inCluster < cluster.length ? cluster.copy(target, done, inCluster, inCluster + count) : 0
      target.fill(0, done + copied, done + count)
      done += count
    }
  }

  write(bytes: Buffer, offsetBytes: number): void {
    let done = 0
    while (done < bytes.length) {
      const at = offsetBytes + done
      const inCluster = at % CLUSTER_BYTES
      const count = Math.min(bytes.length - done, CLUSTER_BYTES - inCluster)
      const index = Math.floor(at / CLUSTER_BYTES)
      const before = this.clusters.get(index)
      const cluster =
        count === CLUSTER_BYTES
          ? Buffer.allocUnsafe(CLUSTER_BYTES)
          : lengthened(before, Math.max(before?.length ?? 0, inCluster + count))
      bytes.copy(cluster, inCluster, done, done + count)
      this.#replace(index, cluster)
      done += count
    }
    this.sizeBytes = Math.max(this.sizeBytes, offsetBytes + bytes.length)
  }

  truncate(sizeBytes: number): void {
    const last = Math.floor(sizeBytes / CLUSTER_BYTES)
    for (const index of [...this.clusters.keys()]) if (index > last) this.#replace(index, undefined)
    const cut = this.clusters.get(last)
    if (cut && sizeBytes < this.sizeBytes) {
      this.#replace(last, Buffer.from(cut.subarray(0, sizeBytes % CLUSTER_BYTES)))
    }
    this.sizeBytes = sizeBytes
  }

  sync(): void {
    this.#unsynced.clear()
    this.#syncedSizeBytes = this.sizeBytes
  }

  punchHole(offsetBytes: number, lengthBytes: number): void {
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += CLUSTER_BYTES)
      this.#replace(at / CLUSTER_BYTES, undefined)
  }

  /** Answers the sectors that went back. */
  losePower(rng: Rng): number {
    let lost = 0
    for (const [index, before] of this.#unsynced) {
      const mixed = wholeCluster(this.clusters.get(index))
      const former = wholeCluster(before)
      for (let at = 0; at < CLUSTER_BYTES; at += SECTOR_BYTES) {
        if (rng.next() < 0.5) continue
        former.copy(mixed, at, at, at + SECTOR_BYTES)
        lost++
      }
      this.clusters.set(index, mixed)
    }
    // The size is metadata: it went back with the names, or it did not.
    if (this.#syncedSizeBytes !== this.sizeBytes && rng.next() < 0.5) this.truncate(this.#syncedSizeBytes)
    this.sync()
    return lost
  }

  /** Says nothing to anyone: what a bad sector does. */
  rot(index: number, bit: number): void {
    const cluster = wholeCluster(this.clusters.get(index))
    const byte = bit >> 3
    cluster[byte] = (cluster[byte] ?? 0) ^ (1 << (bit & 7))
    this.clusters.set(index, cluster)
  }

  #replace(index: number, cluster: Buffer | undefined): void {
    if (!this.#unsynced.has(index)) this.#unsynced.set(index, this.clusters.get(index))
    if (cluster) this.clusters.set(index, cluster)
    else this.clusters.delete(index)
  }
}

function lengthened(cluster: Buffer | undefined, sizeBytes: number): Buffer {
  const copy = Buffer.alloc(sizeBytes)
  cluster?.copy(copy)
  return copy
}

/** A copy, with the zeros at its end. */
export function wholeCluster(cluster: Buffer | undefined): Buffer {
  return lengthened(cluster, CLUSTER_BYTES)
}

type NameChange =
  | { readonly kind: 'created'; readonly path: string; readonly replaced: SimFile | undefined }
  | { readonly kind: 'removed'; readonly path: string; readonly file: SimFile }
  | {
      readonly kind: 'renamed'
      readonly from: string
      readonly to: string
      readonly replaced: SimFile | undefined
    }

/** Every life of a host has a folder of its own for its databases; the replicas beside them are one and the same. */
function withoutLife(path: string): string {
  return path.includes('/life-') ? path.replace(/\/life-\d+(?=\/|$)/, '') : path
}

export class SimDisk {
  readonly files = new Map<string, SimFile>()
  readonly #folders = new Set<string>()
  /** Of each file a number of its own. */
  readonly #identities = new WeakMap<SimFile, string>()
  #lastIdentity = 0
  /** By folder, oldest first: what a power cut may undo. */
  readonly #unsyncedNames = new Map<string, NameChange[]>()
  /** Bytes that may still be written; undefined: enough. */
  roomBytes: number | undefined
  /** Writes that found no room. */
  refusedWrites = 0

  file(path: string): SimFile | undefined {
    return this.files.get(withoutLife(path))
  }

  /** The disk as one life of the host sees it; after `isAlive` is false every call is refused. */
  view(isAlive: () => boolean): ReplicaFiles {
    const alive = () => {
      if (!isAlive()) throw new Error('this process was killed')
    }
    return {
      open: (path, mode) => {
        alive()
        return this.#handle(this.#open(withoutLife(path), mode), alive)
      },
      exists: (path) => {
        const plain = withoutLife(path)
        return this.files.has(plain) || this.#folders.has(plain)
      },
      identity: (path) => this.#identityOf(withoutLife(path)),
      list: (folder) => this.#list(withoutLife(folder)),
      ensureFolder: (folder) => {
        alive()
        for (let path = withoutLife(folder); path.length > 1; path = dirname(path)) this.#folders.add(path)
      },
      rename: (from, to) => {
        alive()
        this.#rename(withoutLife(from), withoutLife(to))
      },
      remove: (path) => {
        alive()
        this.#remove(withoutLife(path))
      },
      syncFolder: (folder) => {
        alive()
        this.#unsyncedNames.delete(withoutLife(folder))
      },
      storedBytes: (path) => (this.files.get(withoutLife(path))?.clusters.size ?? 0) * CLUSTER_BYTES,
    }
  }

  #identityOf(path: string): string | null {
    const file = this.files.get(path)
    if (!file) return null
    const known = this.#identities.get(file) ?? String(++this.#lastIdentity)
    this.#identities.set(file, known)
    return known
  }

  /** Answers how many sectors and names went back. */
  losePower(rng: Rng): { sectors: number; names: number } {
    let sectors = 0
    let names = 0
    for (const file of this.files.values()) sectors += file.losePower(rng)
    for (const changes of this.#unsyncedNames.values()) {
      const undone = changes.splice(intBelow(rng, changes.length + 1))
      names += undone.length
      for (const change of undone.toReversed()) this.#undo(change)
    }
    this.#unsyncedNames.clear()
    return { sectors, names }
  }

  #open(path: string, mode: 'read' | 'write' | 'create'): SimFile {
    const known = this.files.get(path)
    if (mode !== 'create') {
      if (known) return known
      throw Object.assign(new Error(`ENOENT: no such file, open '${path}'`), { code: 'ENOENT' })
    }
    const file = new SimFile()
    this.files.set(path, file)
    this.#note(path, { kind: 'created', path, replaced: known })
    return file
  }

  #handle(file: SimFile, alive: () => void): BlockFile {
    return {
      read: (target, offsetBytes) => {
        alive()
        file.read(target, offsetBytes)
      },
      write: (buffers, offsetBytes) => {
        alive()
        let at = offsetBytes
        for (const buffer of buffers) {
          this.#takeRoom(buffer.length)
          file.write(buffer, at)
          at += buffer.length
        }
      },
      sync: () => {
        alive()
        file.sync()
      },
      truncate: (sizeBytes) => {
        alive()
        file.truncate(sizeBytes)
      },
      sizeBytes: () => file.sizeBytes,
      punchHole: (offsetBytes, lengthBytes) => {
        alive()
        file.punchHole(offsetBytes, lengthBytes)
      },
      close: () => {},
    }
  }

  #takeRoom(bytes: number): void {
    if (this.roomBytes === undefined) return
    if (this.roomBytes < bytes) {
      this.refusedWrites++
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
    }
    this.roomBytes -= bytes
  }

  #list(folder: string): string[] {
    const names = new Set<string>()
    const prefix = `${folder}/`
    for (const path of [...this.files.keys(), ...this.#folders])
      if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split('/')[0] ?? '')
    return [...names].sort()
  }

  #rename(from: string, to: string): void {
    const file = this.files.get(from)
    if (!file) throw Object.assign(new Error(`ENOENT: no such file, rename '${from}'`), { code: 'ENOENT' })
    const replaced = this.files.get(to)
    this.files.delete(from)
    this.files.set(to, file)
    this.#note(to, { kind: 'renamed', from, to, replaced })
  }

  #remove(path: string): void {
    const isFile = this.files.has(path)
    for (const [name, file] of isFile ? [[path, this.#open(path, 'read')] as const] : [...this.files]) {
      if (name !== path && !name.startsWith(`${path}/`)) continue
      this.files.delete(name)
      this.#note(name, { kind: 'removed', path: name, file })
    }
    if (isFile) return
    for (const folder of [...this.#folders])
      if (folder === path || folder.startsWith(`${path}/`)) this.#folders.delete(folder)
  }

  #note(path: string, change: NameChange): void {
    const folder = dirname(path)
    const changes = this.#unsyncedNames.get(folder) ?? []
    changes.push(change)
    this.#unsyncedNames.set(folder, changes)
  }

  #undo(change: NameChange): void {
    switch (change.kind) {
      case 'created':
        if (change.replaced) this.#restore(change.path, change.replaced)
        else this.files.delete(change.path)
        return
      case 'removed':
        this.#restore(change.path, change.file)
        return
      case 'renamed': {
        const file = this.files.get(change.to)
        if (change.replaced) this.files.set(change.to, change.replaced)
        else this.files.delete(change.to)
        if (file) this.#restore(change.from, file)
        return
      }
    }
  }

  #restore(path: string, file: SimFile): void {
    this.files.set(path, file)
    for (let folder = dirname(path); folder.length > 1; folder = dirname(folder)) this.#folders.add(folder)
  }
}
