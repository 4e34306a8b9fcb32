import type { ErrorEntry } from './table.ts'

export const seedErrors = {
  'seed-missing': {
    cause: 'The folder holds no seed: another folder was named, or the medium is not mounted on this host.',
    action: 'Name the folder that holds seed.json, as this host sees it, and run the command again.',
    retryable: true,
  },
  'seed-damaged': {
    cause: 'Files of the seed were changed, cut or mixed up on the way.',
    action:
      'Carry the named files again and repeat the import; or start without them: what they held is sent over the network.',
    retryable: true,
  },
  'seed-key-wrong': {
    cause: 'The seed was written for another protection of the VM, or its manifest was changed.',
    action: 'Export the seed again for the present protection; the key never leaves the vault.',
    retryable: false,
  },
  'seed-foreign': {
    cause: 'The folder holds the seed of another VM or vault.',
    action: 'Name the folder of this VM; give each seed a folder of its own.',
    retryable: false,
  },
} as const satisfies Record<string, ErrorEntry>
