import { hostname } from 'node:os'
import { type Command, Option } from 'commander'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { readPassword } from '../certificate-files.ts'
import { type Context, show } from '../context.ts'
import { factLines } from '../text/table.ts'
import { withExample } from './example.ts'

interface RegisterOptions {
  readonly credentials: string
  readonly certificate: string
  readonly passwordFile?: string
  readonly kind: 'provider' | 'agent'
  readonly config?: string
  readonly dataDir?: string
  readonly name?: string
  readonly host?: string
  readonly replace?: boolean
}

/** Runs on the server itself and speaks to the coordinator over the network: the admin socket has no part in it. */
export function addRegisterCommand(program: Command, context: Context): void {
  const command = program
    .command('register')
    .description('on a server: register it in a vault and write its identity to the data folder')
    .requiredOption('--credentials <file>', 'the file that "hotsite vault credentials" wrote')
    .requiredOption('--certificate <file>', 'the vault certificate with its private key, .pfx or .pem')
    .addOption(
      new Option('--kind <kind>', 'what runs here').choices(['provider', 'agent']).makeOptionMandatory(),
    )
    .option('--password-file <file>', 'password of the .pfx')
    .addOption(new Option('-c, --config <file>', "the daemon's configuration; it names the data folder"))
    .option('--data-dir <dir>', 'the data folder, where there is no configuration')
    .option(
      '--name <name>',
      'the server as people will see it; from the configuration, or the name of the host',
    )
    .option('--host <host>', 'its host name; from the configuration, or that of this machine')
    .option('--replace', 'give up the identity that is here, and revoke the server of this name')
  withExample(
    command.action((options: RegisterOptions, self: Command) => register(context, options, self)),
    'hotsite register --kind agent --config agent.yaml --credentials main.credentials.json --certificate main.pfx',
    'hotsite register --kind provider --data-dir /var/lib/hotsite --name vmm-a --credentials c.json --certificate main.pem',
  )
}

async function register(context: Context, options: RegisterOptions, command: Command): Promise<void> {
  const [{ registerServer }, { readKeyAndCertificate }, { serverFacts }] = await Promise.all([
    import('#shared/trust/register.ts'),
    import('#shared/trust/key-and-certificate.ts'),
    import('../server-facts.ts'),
  ])
  const configured = options.config === undefined ? {} : serverFacts(options.config)
  const dataDir = options.dataDir ?? configured.dataDir
  if (dataDir === undefined) throw new HotsiteError('usage-invalid', 'give --config FILE or --data-dir DIR')
  const host = options.host ?? configured.host ?? hostname()
  const identity = await registerServer({
    credentialsPath: options.credentials,
    keyAndCertificate: readKeyAndCertificate(options.certificate, readPassword(options.passwordFile)),
    kind: options.kind,
    name: options.name ?? configured.name ?? host,
    host,
    dataDir,
    clock: context.clock,
    replace: options.replace === true,
  })
  const { vaultId, vaultName, serverId, kind, name } = identity
  show(context, command, { vaultId, vaultName, serverId, kind, name, dataDir }, () => [
    ...factLines(
      [
        ['registered', `${kind} ${name}`],
        ['server id', serverId],
        ['vault', vaultName],
        ['data folder', dataDir],
      ],
      context.paint,
    ),
    '',
    `Next: hotsite ${kind} --config ${options.config ?? `${kind}.yaml`}`,
  ])
}
