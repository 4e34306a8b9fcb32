import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { createGuest, guestDirs, isGuestRunning, startGuest } from './guest.ts'
import { existingLab, labDown, labUp, removeLab } from './lab.ts'
import { isRunning } from './processes.ts'
import { readLabState } from './state.ts'

const help = `Two Hotsite sites on this machine, to play with.

  ./scripts/lab up     --dir DIR [--disk-mib N]   bring them up (again) and leave them running
  ./scripts/lab status --dir DIR [--json|--env]   what runs; --env prints export lines for your shell
  ./scripts/lab down   --dir DIR [--remove]       stop everything; --remove deletes DIR as well

Example:
  ./scripts/lab up --dir /tmp/lab && eval "$(./scripts/lab status --dir /tmp/lab --env)"
  hotsite cloud pair vmm-a/gold-a vmm-b/gold-b --network prod-a=prod-b --copy-frequency 30s
  hotsite vm protect app-1 && hotsite status
`

const scriptsDir = resolve(import.meta.dirname, '..')

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

async function up(dir: string, diskMiB: number): Promise<void> {
  const lab = await labUp(dir, {
    progress: (text) => print(`  · ${text}`),
    makeGuest: (layout) => createGuest(layout, diskMiB),
    startGuest,
  })
  print(
    `The lab is up. Use it from any shell:\n\n${exportLines(lab.layout.socket)}\n\nThen try: hotsite status`,
  )
}

function exportLines(socket: string): string {
  return [`export HOTSITE_SOCKET=${quote(socket)}`, `export PATH=${quote(scriptsDir)}:"$PATH"`].join('\n')
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

function status(dir: string, form: { json: boolean; env: boolean }): void {
  const { layout } = existingLab(dir)
  if (form.env) {
    print(exportLines(layout.socket))
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
  if (verb === 'up') await up(dir, Number(values['disk-mib']))
  else if (verb === 'status') status(dir, values)
  else if (verb === 'down') {
    await labDown(dir)
    if (values.remove) removeLab(dir)
    print(values.remove ? `The lab is down and ${dir} is gone.` : 'The lab is down; its folder is as it was.')
  } else throw new Error(`unknown command ${verb}; see ./scripts/lab --help`)
}

try {
  await main()
} catch (error) {
  process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
