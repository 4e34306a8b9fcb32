import { join } from 'node:path'
import { writeDaemonConfigs } from '../lab-kit/configs.ts'
import { type Lab, labDown, labUp } from '../lab-kit/lab.ts'
import type { SiteName } from '../lab-kit/layout.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { type Accelerator, type GuestName, KvmSite, siteDriver } from './kvm-site.ts'

const KNOWN_TIMEOUT_MS = 120_000

export interface KvmLab {
  readonly lab: Lab
  readonly from: KvmSite
  readonly to: KvmSite
}

/** Two sites under libvirt, the guests running at the first, and both clouds known. `stop` gets what ends each part. */
export async function startKvmLab(options: {
  readonly dir: string
  readonly accel: Accelerator
  readonly guestDir: string
  readonly guests: readonly GuestName[]
  readonly progress: (text: string) => void
  readonly stop: (() => Promise<void>)[]
}): Promise<KvmLab> {
  const { dir, accel, guestDir, guests, progress, stop } = options
  const sites: Record<SiteName, KvmSite> = {
    'site-a': new KvmSite('site-a', join(dir, 'a')),
    'site-b': new KvmSite('site-b', join(dir, 'b')),
  }
  for (const site of Object.values(sites)) {
    stop.push(() => site.stop())
    await site.start()
  }
  const from = sites['site-a']
  for (const guest of guests) {
    await from.makeGuest(guest, { guestDir, accel })
    progress(`${guest} runs on host-a1 (${accel}), disks with ext4`)
  }
  const labDir = join(dir, 'lab')
  stop.push(() => labDown(labDir))
  const lab = await labUp(labDir, {
    progress,
    makeGuest: () => {},
    startGuest: async () => {},
    writeConfigs: (layout, ports) =>
      writeDaemonConfigs(
        layout,
        ports,
        siteDriver((name) => sites[name]),
      ),
  })
  const areKnown = async () => {
    const vms = (await lab.cli('vm', 'list')) as readonly { name: string }[]
    const clouds = (await lab.cli('cloud', 'list')) as readonly unknown[]
    return clouds.length === 2 && guests.every((name) => vms.some((vm) => vm.name === name))
  }
  if (!(await waitUntil(areKnown, KNOWN_TIMEOUT_MS, 500)))
    throw new Error('the providers did not report their hosts and guests')
  return { lab, from, to: sites['site-b'] }
}
