import type { Command } from 'commander'
import type { VmView } from '#coordinator/admin/views.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { addYesOption, confirmed } from '../confirm.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { addNoWaitOption, followJob } from '../job-wait.ts'
import { parseStartTime } from '../text/start-time.ts'
import { vmColumns, vmFacts, vmRow } from '../vm-text.ts'
import { withExample } from './example.ts'
import { addPolicyOptions, type PolicyOptions, policyFrom } from './policy-options.ts'
import { addSeedCommands, partSizeOption } from './seed.ts'
import { addReplicationCommands } from './vm-replication.ts'

export function addVmCommands(program: Command, context: Context): void {
  const group = program.command('vm').description('VMs, protected or not')

  withExample(
    group
      .command('list')
      .description('all VMs')
      .action(async (_options: unknown, command: Command) => {
        const vms = await clientFor(context, command).call('listVms')
        show(context, command, vms, (all) => listLines(context, all))
      }),
    'hotsite vm list',
  )
  withExample(
    group
      .command('show <vm>')
      .description('one VM: state, data age, what may be done with it')
      .action(async (vm: string, _options: unknown, command: Command) => {
        const view = await clientFor(context, command).call('showVm', { params: { vm } })
        show(context, command, view, (shown) =>
          vmFacts(shown, { paint: context.paint, nowMs: context.clock.now() }),
        )
      }),
    'hotsite vm show shop',
  )
  addProtection(group, context)
  addReplicationCommands(group, context)
  addSeedCommands(group, context)
}

type WaitOption = { readonly wait: boolean }

function addProtection(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(addPolicyOptions(group.command('protect <vm>')))
      .description('protect a VM; the policy of its cloud applies except where given here')
      .option('--start-at <time>', 'begin the first copy then: +2h, 22:00 or "2030-01-31 22:00" (UTC)')
      .option(
        '--offline <folder>',
        'do not send the first copy: write it there at the source host, to be carried',
      )
      .addOption(partSizeOption())
      .action(async (vm: string, options: ProtectOptions, command: Command) => {
        const { offline, partSize, startAt, wait } = options
        const client = clientFor(context, command)
        const policy = policyFrom(options)
        const changes = Object.keys(policy).length > 0 ? { policy } : {}
        if (offline !== undefined) {
          if (startAt !== undefined)
            throw new HotsiteError('usage-invalid', '--offline begins at once: leave --start-at out')
          const body = {
            folder: offline,
            ...(partSize === undefined ? {} : { partBytes: partSize }),
            ...changes,
          }
          const started = await client.call('exportSeed', { params: { vm }, body })
          return followJob(context, command, client, { started, wait })
        }
        if (partSize !== undefined) throw new HotsiteError('usage-invalid', '--part-size is for --offline')
        const at = startAt === undefined ? {} : { startAtMs: parseStartTime(startAt, context.clock.now()) }
        const started = await client.call('protectVm', { params: { vm }, body: { ...changes, ...at } })
        await followJob(context, command, client, { started, wait })
      }),
    'hotsite vm protect shop',
    'hotsite vm protect shop --start-at 22:00 --throttle-window "mon-fri 08:00-18:00 5MiB" --no-wait',
    'hotsite vm protect shop --offline /mnt/usb/shop',
    'hotsite vm protect shop --copy-frequency 30s --retention-points 15 --no-wait',
  )
  withExample(
    addYesOption(addNoWaitOption(group.command('unprotect <vm>')))
      .description('stop protecting a VM and remove its replica')
      .option('--keep-replica', 'leave the files of the replica at the target')
      .action(async (vm: string, options: UnprotectOptions, command: Command) => {
        const lost = options.keepReplica
          ? 'Its replica stays as it is.'
          : 'Its replica and all recovery points are removed.'
        if (!(await confirmed(context, `${vm} is no longer protected. ${lost}`, options.yes))) return
        const client = clientFor(context, command)
        const body = { keepReplica: options.keepReplica === true }
        const started = await client.call('unprotectVm', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite vm unprotect shop --yes',
  )
  withExample(
    addNoWaitOption(addPolicyOptions(group.command('set-policy <vm>')))
      .description('change the policy of a protected VM; what is not given stays')
      .action(async (vm: string, options: PolicyOptions & WaitOption, command: Command) => {
        const body = policyFrom(options)
        if (Object.keys(body).length === 0)
          throw new HotsiteError('usage-invalid', 'nothing to change: give at least one option of the policy')
        const client = clientFor(context, command)
        const started = await client.call('setPolicy', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite vm set-policy shop --retention-points 3 --throttle 10MiB',
    'hotsite vm set-policy shop --resync-window "daily 22:00-05:00" --time-zone Europe/Berlin',
  )
}

interface ProtectOptions extends PolicyOptions, WaitOption {
  readonly startAt?: string
  readonly offline?: string
  readonly partSize?: number
}

interface UnprotectOptions extends WaitOption {
  readonly yes?: boolean
  readonly keepReplica?: boolean
}

function listLines(context: Context, vms: readonly VmView[]): string[] {
  if (vms.length === 0) return ['No VM is known: no provider has reported yet. See: hotsite server list']
  const nowMs = context.clock.now()
  return table(
    context,
    vmColumns,
    vms.map((vm) => vmRow(vm, nowMs)),
  )
}
