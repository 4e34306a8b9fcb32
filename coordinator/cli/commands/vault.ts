import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { VaultView } from '#coordinator/admin/views.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import {
  type GeneratedFiles,
  generateCertificateFiles,
  readCertificatePem,
  readPassword,
} from '../certificate-files.ts'
import { addYesOption, confirmed } from '../confirm.ts'
import { type Context, clientFor, globalsOf, show, table } from '../context.ts'
import { timeText } from '../text/units.ts'
import { vaultFacts } from '../vault-text.ts'
import { withExample } from './example.ts'
import { wholeNumber } from './policy-options.ts'

export function addVaultCommands(program: Command, context: Context): void {
  const group = program.command('vault').description('vaults: the trust domain that servers register in')
  addCreate(group, context)
  addReading(group, context)
  addSetCertificate(group, context)
  addCredentials(group, context)
  addRegenerate(group, context)
}

interface CertificateOptions {
  readonly certificate?: string
  readonly generateCertificate?: string
  readonly passwordFile?: string
  readonly days: number
}

const maxDays = 1095

function addCertificateOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--certificate <file>', 'a certificate you have, PEM or DER').conflicts(
        'generateCertificate',
      ),
    )
    .option(
      '--generate-certificate <dir>',
      'make key and certificate here: .cer, .pem and .pfx in this folder',
    )
    .option('--password-file <file>', 'password of the generated .pfx; none if not given')
    .option('--days <n>', 'validity of the generated certificate', wholeNumber(1, maxDays), 365)
}

/** The generated files of a request that is refused are removed again. */
async function withCertificate<Result>(
  options: CertificateOptions & { vault: string; nowMs: number },
  use: (certificatePem: string | undefined, generated: GeneratedFiles | undefined) => Promise<Result>,
): Promise<Result> {
  if (options.certificate !== undefined) return use(readCertificatePem(options.certificate), undefined)
  if (options.generateCertificate === undefined) return use(undefined, undefined)
  const { vault, days, nowMs } = options
  const password = readPassword(options.passwordFile)
  const dir = resolve(options.generateCertificate)
  const generated = await generateCertificateFiles({ dir, vault, days, password, nowMs })
  try {
    return await use(generated.certificatePem, generated)
  } catch (error) {
    generated.remove()
    throw error
  }
}

function printVault(
  context: Context,
  command: Command,
  { vault, generated, next }: { vault: VaultView; generated: GeneratedFiles | undefined; next: string },
): void {
  show(context, command, vault, (shown) => [
    ...vaultFacts(shown, context.clock.now(), context.paint),
    ...(generated
      ? ['', 'Written, readable by you alone:', ...generated.files.map((file) => `  ${file}`)]
      : []),
    '',
    `Next: ${next}`,
  ])
  // With --json the view is all that standard output holds.
  if (generated && globalsOf(command).json)
    for (const file of generated.files) context.terminal.err.write(`written: ${file}\n`)
}

function addCreate(group: Command, context: Context): void {
  const create = group
    .command('create')
    .description('create a vault and its key')
    .requiredOption('--name <name>', 'name of the vault')
    .requiredOption('--region <region>', 'where it belongs, as eu-central')
    .requiredOption('--subscription <id>', 'who pays for it, or any label of yours')
  withExample(
    addCertificateOptions(create).action(async (options: CreateOptions, command: Command) => {
      const client = clientFor(context, command)
      const { name, region, subscription } = options
      const nowMs = context.clock.now()
      await withCertificate({ ...options, vault: name, nowMs }, async (certificatePem, generated) => {
        const body = { name, region, subscription, ...(certificatePem ? { certificatePem } : {}) }
        const vault = await client.call('createVault', { body })
        const next = certificatePem
          ? `hotsite vault credentials ${name} --out ${name}.credentials.json`
          : `hotsite vault set-certificate ${name} --generate-certificate DIR`
        printVault(context, command, { vault, generated, next })
      })
    }),
    'hotsite vault create --name main --region eu-central --subscription dr --generate-certificate ./keys',
    'hotsite vault create --name main --region eu-central --subscription dr --certificate vault.cer',
  )
}

interface CreateOptions extends CertificateOptions {
  readonly name: string
  readonly region: string
  readonly subscription: string
}

function addReading(group: Command, context: Context): void {
  withExample(
    group
      .command('list')
      .description('all vaults')
      .action(async (_options: unknown, command: Command) => {
        const vaults = await clientFor(context, command).call('listVaults')
        show(context, command, vaults, (all) => listLines(context, all))
      }),
    'hotsite vault list',
  )
  withExample(
    group
      .command('show <vault>')
      .description('one vault with its certificate')
      .action(async (vault: string, _options: unknown, command: Command) => {
        const view = await clientFor(context, command).call('showVault', { params: { vault } })
        show(context, command, view, (shown) => vaultFacts(shown, context.clock.now(), context.paint))
      }),
    'hotsite vault show main',
  )
}

function addSetCertificate(group: Command, context: Context): void {
  withExample(
    addCertificateOptions(group.command('set-certificate <vault>'))
      .description('register the vault certificate, replacing the present one')
      .action(async (vault: string, options: CertificateOptions, command: Command) => {
        const client = clientFor(context, command)
        const nowMs = context.clock.now()
        await withCertificate({ ...options, vault, nowMs }, async (certificate, generated) => {
          if (certificate === undefined)
            throw new HotsiteError('usage-invalid', 'give --certificate FILE or --generate-certificate DIR')
          const view = await client.call('setVaultCertificate', { params: { vault }, body: { certificate } })
          const next = `hotsite vault credentials ${vault} --out ${vault}.credentials.json`
          printVault(context, command, { vault: view, generated, next })
        })
      }),
    'hotsite vault set-certificate main --certificate vault.cer',
    'hotsite vault set-certificate main --generate-certificate ./keys --days 730',
  )
}

function addCredentials(group: Command, context: Context): void {
  withExample(
    group
      .command('credentials <vault>')
      .description('write a registration file for servers; valid for five days, keep it to yourself')
      .option('-o, --out <file>', 'where to; <vault>.credentials.json in this folder if not given')
      .action(async (vault: string, options: { out?: string }, command: Command) => {
        const issued = await clientFor(context, command).call('issueCredentials', { params: { vault } })
        const { writeSecretFile } = await import('#shared/trust/secret-file.ts')
        const file = resolve(options.out ?? issued.fileName.replace(/[^A-Za-z0-9_.-]/g, '_'))
        writeSecretFile(file, issued.content)
        const { expiresAtMs } = issued
        show(context, command, { file, expiresAtMs }, () => [
          `${file} is written, readable by you alone, valid until ${timeText(expiresAtMs)}.`,
          'Carry it to each server together with the .pfx or .pem of the vault certificate, then there:',
          '  hotsite register --kind agent --config agent.yaml --credentials FILE --certificate FILE.pfx',
        ])
      }),
    'hotsite vault credentials main --out main.credentials.json',
  )
}

function addRegenerate(group: Command, context: Context): void {
  withExample(
    addYesOption(group.command('regenerate-key <vault>'))
      .description('replace the vault key: every server has to register again')
      .action(async (vault: string, options: { yes?: boolean }, command: Command) => {
        const consequence = `Every server of ${vault} loses its membership and has to register again.`
        if (!(await confirmed(context, consequence, options.yes))) return
        const view = await clientFor(context, command).call('regenerateKey', { params: { vault } })
        const next = `hotsite vault credentials ${vault}, then hotsite register on every server`
        printVault(context, command, { vault: view, generated: undefined, next })
      }),
    'hotsite vault regenerate-key main --yes',
  )
}

function listLines(context: Context, vaults: readonly VaultView[]): string[] {
  if (vaults.length === 0) return ['No vault yet. Make one with: hotsite vault create --help']
  const columns = [
    { title: 'NAME', shrinks: true },
    { title: 'REGION', shrinks: true },
    { title: 'SUBSCRIPTION', shrinks: true },
    { title: 'KEY', align: 'right' as const },
    { title: 'CERTIFICATE UNTIL' },
    { title: 'ID' },
  ]
  return table(
    context,
    columns,
    vaults.map((vault) => [
      vault.name,
      vault.region,
      vault.subscription,
      String(vault.keyGeneration),
      vault.certificate ? timeText(vault.certificate.notAfterMs) : { text: 'none', style: 'warn' },
      vault.vaultId,
    ]),
  )
}
