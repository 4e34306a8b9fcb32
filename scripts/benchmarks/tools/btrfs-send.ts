/** `btrfs send -p` over ssh: the image lies in a loop-mounted file system, whose snapshots know what changed. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { copyBlocks } from '../disk.ts'
import { runScript, runTimed } from '../processes.ts'
import type { Tool } from '../workload.ts'
import { type Site, sameImage } from './site.ts'

/** Room for the image, its changed blocks and the file system's own. */
const spareBytes = 2 * 2 ** 30

export async function openBtrfsSend(site: Site): Promise<Tool> {
  const ssh = await site.ssh()
  const dir = site.folder('btrfs-send')
  const source = join(dir, 'source')
  const target = join(dir, 'target')
  for (const mount of [source, target]) mkdirSync(mount, { recursive: true })
  const unmount = () =>
    runScript('for m in "$1" "$2"; do ! mountpoint -q "$m" || umount "$m"; done', [source, target])
  return {
    name: 'btrfs-send',
    workloads: ['W3'],
    encrypted: true,
    async beforeChange(job) {
      unmount()
      runScript(
        `for m in "$1" "$2"; do
          rm -f "$m.img"; truncate -s "$4" "$m.img"; mkfs.btrfs -q -f "$m.img" >/dev/null 2>&1; mount -o loop,noatime "$m.img" "$m"
        done
        btrfs -q subvolume create "$1/disk"; cp --sparse=always "$3" "$1/disk/disk.img"
        btrfs -q subvolume snapshot -r "$1/disk" "$1/old"; btrfs -q send "$1/old" | btrfs -q receive "$2"; sync -f "$2"`,
        [source, target, job.source, String(job.sizeBytes + spareBytes)],
      )
    },
    async prepare(job) {
      copyBlocks({ from: job.source, to: join(source, 'disk', 'disk.img'), blocks: job.changedBlocks })
      runScript('btrfs -q subvolume snapshot -r "$1/disk" "$1/new"; sync -f "$1"; sync -f "$2"', [
        source,
        target,
      ])
    },
    pids: () => [ssh.pid],
    run: () =>
      runTimed(
        `btrfs -q send -p "$1/old" "$1/new" | $3 127.0.0.1 "btrfs -q receive '$2' && sync -f '$2' && sync '$2.img'"`,
        [source, target, ssh.command],
      ),
    settle: () => ssh.settle(),
    identical: async (job) => sameImage(join(target, 'new', 'disk.img'), job.source),
    finish: async () => void unmount(),
    async [Symbol.asyncDispose]() {
      unmount()
    },
  }
}
