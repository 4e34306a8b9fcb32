import { type Command, InvalidArgumentError } from 'commander'
import type { CloudView } from '#coordinator/admin/views.ts'
import { type Context, clientFor, show, table } from '../context.ts'
import { policyText } from '../policy-text.ts'
import { withExample } from './example.ts'
import { addPolicyOptions, type PolicyOptions, policyFrom } from './policy-options.ts'

export function addCloudCommands(program: Command, context: Context): void {
  const group = program.command('cloud').description('clouds of the VMM servers, and their pairing')

  withExample(
    group
      .command('list')
      .description('all clouds with their pairing')
      .action(async (_options: unknown, command: Command) => {
        const clouds = await clientFor(context, command).call('listClouds')
        show(context, command, clouds, (all) => listLines(context, all))
      }),
    'hotsite cloud list',
  )

  const pair = group
    .command('pair <source> <target>')
    .description('replicate VMs of one cloud to another, under a replication policy')
    .option('--network <source=target>', 'map a VM network; repeat for more', addNetwork, {})
  withExample(
    addPolicyOptions(pair).action(
      async (source: string, target: string, options: PairOptions, command: Command) => {
        const body = { source, target, policy: policyFrom(options), networkMap: options.network }
        const cloud = await clientFor(context, command).call('pairClouds', { body })
        show(context, command, cloud, (paired) => [
          `${nameOf(paired)} replicates to ${paired.pairing?.other ?? target}.`,
          ...(paired.pairing ? [policyText(paired.pairing.policy)] : []),
          'Next: hotsite vm list, then hotsite vm protect VM',
        ])
      },
    ),
    'hotsite cloud pair vmm-a/gold vmm-b/gold --copy-frequency 30s --retention-points 3',
    'hotsite cloud pair gold silver --network production=recovery --network backup=backup',
  )

  withExample(
    group
      .command('unpair <source>')
      .description('take a pairing apart; its VMs must be unprotected first')
      .action(async (source: string, _options: unknown, command: Command) => {
        await clientFor(context, command).call('unpairCloud', { params: { source } })
        show(context, command, { unpaired: source }, () => [`${source} is not paired any more.`])
      }),
    'hotsite cloud unpair vmm-a/gold',
  )
}

interface PairOptions extends PolicyOptions {
  readonly network: Readonly<Record<string, string>>
}

function addNetwork(
  text: string,
  before: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const [, source, target] = /^([^=]+)=(.+)$/.exec(text) ?? []
  if (source === undefined || target === undefined)
    throw new InvalidArgumentError('Write it as SOURCE=TARGET.')
  return { ...before, [source]: target }
}

function nameOf(cloud: CloudView): string {
  return `${cloud.vmmServer}/${cloud.cloud}`
}

function listLines(context: Context, clouds: readonly CloudView[]): string[] {
  if (clouds.length === 0)
    return ['No cloud is known: no provider has reported yet. See: hotsite server list']
  const columns = [
    { title: 'CLOUD', shrinks: true },
    { title: 'HOSTS', shrinks: true },
    { title: 'VMS', align: 'right' as const },
    { title: 'ROLE' },
    { title: 'PAIRED WITH', shrinks: true },
    { title: 'POLICY', shrinks: true },
  ]
  return table(
    context,
    columns,
    clouds.map((cloud) => [
      nameOf(cloud),
      cloud.hosts
        .map((host) => (host.agentConnected === false ? `${host.name} (agent away)` : host.name))
        .join(', '),
      String(cloud.vmCount),
      cloud.role,
      cloud.pairing?.other ?? '–',
      cloud.pairing ? policyText(cloud.pairing.policy) : '–',
    ]),
  )
}
