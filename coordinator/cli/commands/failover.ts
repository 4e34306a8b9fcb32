import { type Command, Option } from 'commander'
import { addYesOption, confirmed } from '../confirm.ts'
import { type Context, clientFor } from '../context.ts'
import { addNoWaitOption, followJob } from '../job-wait.ts'
import { withExample } from './example.ts'

type WaitOption = { readonly wait: boolean }
type VerifyOption = { readonly skipVerify?: boolean }
const skipVerifyOption = [
  '--skip-verify',
  'in a hurry: do not read and prove every block of the point before the VM starts on it',
] as const
const pointOption = [
  '--point <point>',
  'a point of "hotsite point list"; latest is the newest',
  'latest',
] as const

export function addFailoverCommands(program: Command, context: Context): void {
  const group = program
    .command('failover')
    .description('test, planned and unplanned failover, and the way back')
  addTest(group, context)
  addReal(group, context)
  addAfterwards(group, context)
}

function addTest(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(group.command('test <vm>'))
      .description('start a copy of the VM at the target on a recovery point; replication goes on')
      .option(...pointOption)
      .option('--network <name>', 'VM network to connect the copy to; none if not given')
      .option(...skipVerifyOption)
      .action(async (vm: string, options: TestOptions, command: Command) => {
        const client = clientFor(context, command)
        const verify = options.skipVerify !== true
        const body = { point: options.point, network: options.network ?? null, verify }
        const started = await client.call('testFailover', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite failover test shop',
    'hotsite failover test shop --point 1.42 --network isolated',
  )
  withExample(
    addNoWaitOption(group.command('cleanup-test <vm>'))
      .description('remove what a test failover made, and keep its outcome')
      .addOption(
        new Option('--outcome <outcome>', 'how the test went')
          .choices(['passed', 'failed'])
          .default('passed'),
      )
      .option('--notes <text>', 'what was seen; kept with the outcome', '')
      .action(async (vm: string, options: CleanupOptions, command: Command) => {
        const client = clientFor(context, command)
        const body = { outcome: options.outcome, notes: options.notes }
        const started = await client.call('cleanupTest', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite failover cleanup-test shop --outcome passed --notes "orders can be placed"',
  )
}

interface TestOptions extends WaitOption, VerifyOption {
  readonly point: string
  readonly network?: string
}

interface CleanupOptions extends WaitOption {
  readonly outcome: 'passed' | 'failed'
  readonly notes: string
}

function addReal(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(group.command('planned <vm>'))
      .description('shut the VM down, send the last changes, start it at the target: nothing is lost')
      .option(...skipVerifyOption)
      .action(async (vm: string, options: WaitOption & VerifyOption, command: Command) => {
        const client = clientFor(context, command)
        const body = { verify: options.skipVerify !== true }
        const started = await client.call('plannedFailover', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite failover planned shop',
  )
  withExample(
    addYesOption(addNoWaitOption(group.command('unplanned <vm>')))
      .description('start the VM at the target on a recovery point, whether or not the source answers')
      .option(...pointOption)
      .option('--shut-down-source', 'try to shut the source down first, if it still answers')
      .option(...skipVerifyOption)
      .action(async (vm: string, options: UnplannedOptions, command: Command) => {
        const consequence = `${vm} starts at the target on point ${options.point}; what was written after it is not there.`
        if (!(await confirmed(context, consequence, options.yes))) return
        const client = clientFor(context, command)
        const { point, shutDownSource = false, skipVerify = false } = options
        const body = { point, shutDownSource, verify: !skipVerify }
        const started = await client.call('unplannedFailover', { params: { vm }, body })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite failover unplanned shop --yes',
    'hotsite failover unplanned shop --point 1.42 --shut-down-source --yes',
  )
}

interface UnplannedOptions extends WaitOption, VerifyOption {
  readonly yes?: boolean
  readonly point: string
  readonly shutDownSource?: boolean
}

function addAfterwards(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(group.command('change-point <vm>'))
      .description('after a failover and before the commit: start from another recovery point instead')
      .requiredOption('--point <point>', 'a point of "hotsite point list"; latest is the newest')
      .action(async (vm: string, options: WaitOption & { point: string }, command: Command) => {
        const client = clientFor(context, command)
        const started = await client.call('changePoint', { params: { vm }, body: { point: options.point } })
        await followJob(context, command, client, { started, wait: options.wait })
      }),
    'hotsite failover change-point shop --point 1.41',
  )
  const simple = [
    ['commit', 'commitFailover', 'accept the failover; another point can no longer be chosen'],
    ['reverse', 'reverseReplication', 'replicate back to where the VM came from; only differences travel'],
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
      `hotsite failover ${name} shop`,
    )
  }
}
