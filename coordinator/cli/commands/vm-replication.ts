/** What is done to the replication of a protected VM. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type Context, clientFor, show } from '../context.ts'
import { addNoWaitOption, followJob } from '../job-wait.ts'
import { withExample } from './example.ts'

type WaitOption = { readonly wait: boolean }

export function addReplicationCommands(group: Command, context: Context): void {
  const simple = [
    ['pause', 'pauseVm', 'pause replication; recovery points stay'],
    ['resume', 'resumeVm', 'resume replication; only what changed meanwhile is sent'],
  ] as const
  for (const [name, operation, description] of simple) {
    withExample(
      addNoWaitOption(group.command(`${name} <vm>`))
        .description(description)
        .action(async (vm: string, options: WaitOption, command: Command) => {
          const client = clientFor(context, command)
          const started = await client.call(operation, { params: { vm } })
          await followJob(context, command, client, { started, wait: options.wait })
        }),
      `hotsite vm ${name} shop`,
    )
  }
  addResync(group, context)
  addVerify(group, context)
}

function addResync(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(group.command('resync <vm>'))
      .description('compare the disks by their hashes and send what differs; begins one that waits')
      .option('--now', 'only begin what waits for its time, its window or approval, the first copy included')
      .action(async (vm: string, options: WaitOption & { now?: boolean }, command: Command) => {
        const client = clientFor(context, command)
        if (options.now) {
          await client.call('approveResync', { params: { vm } })
          return show(context, command, { vm, approved: true }, () => [
            `What waited for ${vm} begins now. See: hotsite vm show ${vm}`,
          ])
        }
        const started = await client.call('resyncVm', { params: { vm } })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite vm resync shop',
    'hotsite vm resync shop --now',
  )
}

/** Of all blocks: an evenly spread sample finds a disk that rots within a few runs. */
const sampleIfNotGiven = 5

interface VerifyOptions extends WaitOption {
  readonly full?: boolean
  readonly sample?: number
}

function addVerify(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(group.command('verify <vm>'))
      .description('read blocks again at the source and at the target, and heal what rotted')
      .option('--full', 'all blocks: what "proved equal" takes')
      .addOption(
        new Option(
          '--sample <percent>',
          `so much of them, as 10%; ${sampleIfNotGiven}% if not given`,
        ).argParser(percent),
      )
      .action(async (vm: string, options: VerifyOptions, command: Command) => {
        if (options.full && options.sample !== undefined)
          throw new HotsiteError('usage-invalid', '--full and --sample contradict each other')
        const client = clientFor(context, command)
        const body = { percent: options.full ? 100 : (options.sample ?? sampleIfNotGiven) }
        const started = await client.call('verifyVm', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite vm verify shop',
    'hotsite vm verify shop --full',
    'hotsite vm verify shop --sample 20%',
  )
}

function percent(text: string): number {
  const value = /^\d{1,3}(\.\d{1,3})?\s*%?$/.test(text) ? Number.parseFloat(text) : Number.NaN
  if (value > 0 && value <= 100) return value
  throw new InvalidArgumentError('Give a share of the blocks, more than 0 % and at most 100 %.')
}
