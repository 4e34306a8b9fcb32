import type { ErrorEntry } from './table.ts'

export const generalErrors = {
  internal: {
    cause: 'A defect in Hotsite, or a fault of the system below it.',
    action: 'Look into the log of the daemon named in the message; report it with that log if it repeats.',
    retryable: true,
  },
  'disk-full': {
    cause: 'The file system that holds the data folder has no room left.',
    action: 'Free space or enlarge it; work goes on by itself from where it stopped.',
    retryable: true,
  },
  'permission-denied': {
    cause: 'The daemon may not read or write that file.',
    action: 'Give the user the daemon runs as access to it.',
    retryable: false,
  },
  'config-missing': {
    cause: 'The configuration file does not exist, or its path is meant from another folder.',
    action:
      'Check the path given with --config; docs/operations.md shows a first configuration of each daemon.',
    retryable: false,
  },
  'config-invalid': {
    cause: 'The configuration file has an unknown key, a missing one or a value of the wrong form.',
    action: 'Correct the line named in the message; docs/operations.md lists every key.',
    retryable: false,
  },
  'data-version-unknown': {
    cause: 'The data folder was written by a newer version of Hotsite, or by another program.',
    action: 'Start the version that wrote it, or point dataDir at another folder. Nothing was changed.',
    retryable: false,
  },
  'data-dir-in-use': {
    cause: 'A daemon, or a registration, is running on the same data folder.',
    action:
      'Stop the other one, or give each its own dataDir. A server is registered while its daemon is stopped.',
    retryable: false,
  },
  'request-invalid': {
    cause: 'The request has an unknown field, a missing one or a value of the wrong form.',
    action: 'Correct it as the message says; --help and the OpenAPI description show the form.',
    retryable: false,
  },
  'not-found': {
    cause: 'Nothing of that name exists here, or it belongs to another vault.',
    action: 'List what exists and use its name or id.',
    retryable: false,
  },
} as const satisfies Record<string, ErrorEntry>
