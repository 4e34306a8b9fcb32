import type { ErrorEntry } from './table.ts'

/** The admin socket and the command line. */
export const adminErrors = {
  'admin-socket-unreachable': {
    cause: 'No coordinator is running here, or it listens on another socket.',
    action:
      'Start it with "hotsite coordinator --config FILE.yaml", or name its socket with --socket or HOTSITE_SOCKET.',
    retryable: true,
  },
  'coordinator-version-differs': {
    cause: 'The command line and the coordinator are of different versions of Hotsite.',
    action: 'Use the hotsite command that was installed with the running coordinator.',
    retryable: false,
  },
  'admin-socket-in-use': {
    cause: 'Another coordinator is running and listens on that admin socket.',
    action: 'Stop the other one, or give this one an admin.socket and a dataDir of its own.',
    retryable: false,
  },
  'admin-socket-exposed': {
    cause: 'The folder of the admin socket can be entered by other users, or belongs to another user.',
    action:
      'Make it yours alone (chown, chmod 700), or name a folder that does not exist yet: it is made right.',
    retryable: false,
  },
  'admin-socket-path-unusable': {
    cause: 'The path is too long for a Unix socket, or something that is not a socket is there.',
    action: 'Choose a shorter path, or one where nothing is, with admin.socket, --socket or HOTSITE_SOCKET.',
    retryable: false,
  },
  'request-too-large': {
    cause: 'The request is larger than anything this operation takes; perhaps a wrong file was named.',
    action: 'Check the file that was given.',
    retryable: false,
  },
  'confirmation-needed': {
    cause: 'The command changes something that cannot be undone, and there is no terminal to ask on.',
    action: 'Add --yes if you mean it.',
    retryable: false,
  },
  'usage-invalid': {
    cause: 'An option or an argument of the command is missing or has the wrong form.',
    action: 'Look at the example in the --help of the command.',
    retryable: false,
  },
  'file-exists': {
    cause: 'A file of that name is there already, and nothing is overwritten.',
    action: 'Name another folder or file, or move the old one away.',
    retryable: false,
  },
  'file-unreadable': {
    cause: 'The file does not exist, is not readable by you, or is not what the command expects.',
    action: 'Check its path, its contents and its access rights.',
    retryable: false,
  },
} as const satisfies Record<string, ErrorEntry>
