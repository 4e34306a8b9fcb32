import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { createGuest, guestDirs, isGuestRunning, startGuest } from './guest.ts'
import { existingLab, labDown, labUp, removeLab } from './lab.ts'
import type { LabLayout } from './layout.ts'
import { isRunning } from './processes.ts'
import { readLabState } from './state.ts'

const help = `Two Hotsite sites on this machine, to play with.

  ./scripts/lab up     --dir DIR [--disk-mib N]   bring them up, again too, and leave them running
  ./scripts/lab status --dir DIR [--json|--env]   what runs; --env prints export lines for your shell
  ./scripts/lab down   --dir DIR [--remove]       stop everything; --remove deletes DIR as well

Example:
  ./scripts/lab up --dir /tmp/lab && eval "$(./scripts/lab status --dir /tmp/lab --env)"
  hotsite cloud pair vmm-a/gold-a vmm-b/gold-b --network prod-a=prod-b --copy-frequency 30s
  hotsite vm protect app-1 && hotsite status
`

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

async function up(dir: string, diskMiB: number): Promise<void> {
  const lab = await labUp(dir, {
    progress: (text) => print(`  · ${text}`),
    makeGuest: (layout) => createGuest(layout, diskMiB),
    startGuest,
  })
  print(`The lab is up. Use it from any shell:\n\n${exportLines(lab.layout)}\n\nThen try: hotsite status`)
}

function exportLines({ socket, binDir }: LabLayout): string {
  return [`export HOTSITE_SOCKET=${quote(socket)}`, `export PATH=${quote(binDir)}:"$PATH"`].join('\n')
}

/** Four are enough for the content of the guest's disks; more than a TiB is a slip of the finger. */
function diskMiBOf(text: string): number {
  const diskMiB = Number(text)
  if (!Number.isInteger(diskMiB) || diskMiB < 4 || diskMiB > 1024 * 1024)
    throw new Error(`--disk-mib takes a whole number from 4 to 1048576, not ${text}`)
  return diskMiB
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

function status(dir: string, form: { json: boolean; env: boolean }): void {
  const { layout } = existingLab(dir)
  if (form.env) {
    print(exportLines(layout))
    return
  }
  const processes = (readLabState(layout)?.processes ?? []).map((one) => ({
    name: one.name,
    pid: one.pid,
    running: isRunning(one),
  }))
  const vms = guestDirs(layout).map((vm) => ({
    name: vm.file.name,
    host: vm.host,
    running: isGuestRunning(vm),
    dir: vm.dir,
  }))
  if (form.json) {
    print(JSON.stringify({ dir, socket: layout.socket, processes, vms }))
    return
  }
  for (const { name, pid, running } of processes)
    print(`${running ? 'running' : 'stopped'}  ${name}  (pid ${pid})`)
  for (const vm of vms) print(`${vm.running ? 'running' : 'off    '}  VM ${vm.name} on ${vm.host}`)
  print(`socket   ${layout.socket}`)
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      dir: { type: 'string' },
      'disk-mib': { type: 'string', default: '64' },
      json: { type: 'boolean', default: false },
      env: { type: 'boolean', default: false },
      remove: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const verb = positionals[0]
  if (values.help || verb === undefined || values.dir === undefined) {
    process.stdout.write(help)
    if (!values.help) process.exitCode = 2
    return
  }
  const dir = resolve(values.dir)
  if (verb === 'up') await up(dir, diskMiBOf(values['disk-mib']))
  else if (verb === 'status') status(dir, values)
  else if (verb === 'down') {
    await labDown(dir)
    if (values.remove) removeLab(dir)
    print(
      values.remove
        ? `The lab is down and ${dir} is gone.`
        : `The lab is down. "up" continues it; "down --remove" deletes ${dir}.`,
    )
  } else throw new Error(`unknown command ${verb}: up, status or down; see ./scripts/lab --help`)
}

try {
  await main()
} catch (error) {
  process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
