/** The first copy, carried in a folder. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type Context, clientFor } from '../context.ts'
import { addNoWaitOption, followJob } from '../job-wait.ts'
import { parseSizeBytes } from '../text/units.ts'
import { withExample } from './example.ts'

export function addSeedCommands(group: Command, context: Context): void {
  withExample(
    addNoWaitOption(group.command('export-seed <vm>'))
      .description(
        'offline: write the disks of a VM, encrypted, into a folder of the source host; again to go on',
      )
      .requiredOption('--folder <folder>', 'an absolute path on the source host')
      .addOption(partSizeOption())
      .action(async (vm: string, options: ExportOptions, command: Command) => {
        const client = clientFor(context, command)
        const { folder, partSize, wait } = options
        const body = { folder, ...(partSize === undefined ? {} : { partBytes: partSize }) }
        const started = await client.call('exportSeed', { params: { vm }, body })
        await followJob(context, command, client, { started, wait })
      }),
    'hotsite vm export-seed shop --folder /mnt/usb/shop',
    'hotsite vm export-seed shop --folder /mnt/usb/shop --part-size 2GiB',
  )
  withExample(
    addNoWaitOption(group.command('import-seed <vm>'))
      .description(
        'offline: make the replica of a seed that was carried to the target host, and begin to replicate',
      )
      .requiredOption('--folder <folder>', 'an absolute path on the target host')
      .action(async (vm: string, options: { folder: string; wait: boolean }, command: Command) => {
        const client = clientFor(context, command)
        const { folder, wait } = options
        const started = await client.call('importSeed', { params: { vm }, body: { folder } })
        await followJob(context, command, client, { started, wait })
      }),
    'hotsite vm import-seed shop --folder /mnt/usb/shop',
  )
}

interface ExportOptions {
  readonly folder: string
  readonly partSize?: number
  readonly wait: boolean
}

export function partSizeOption(): Option {
  return new Option(
    '--part-size <size>',
    'largest file of the seed, 32MiB to 1024GiB; a little less than 4GiB if not given, which every file system takes',
  ).argParser((text) => {
    const sizeBytes = parseSizeBytes(text)
    if (sizeBytes !== undefined) return sizeBytes
    throw new InvalidArgumentError('Give a size, as 2GiB.')
  })
}
