import type { ErrorEntry } from './table.ts'

export const trustErrors = {
  'signature-invalid': {
    cause: 'The document was altered, or was signed by another key: another vault, or the vault key of an earlier generation.',
    action: 'Register the server again with current credentials of the right vault.',
    retryable: false,
  },
  'membership-invalid': {
    cause: 'The membership is not one that a vault issued to this kind of server.',
    action: 'Register the server again with current credentials of the vault.',
    retryable: false,
  },
  'membership-wrong-vault': {
    cause: 'The server is registered in another vault.',
    action: 'Register it in this vault, or connect it to the servers of its own.',
    retryable: false,
  },
  'membership-expired': {
    cause: 'The membership ran out, or the clock of one of the two servers is wrong.',
    action: 'Compare the clocks; if they are right, register the server again.',
    retryable: false,
  },
  'membership-revoked': {
    cause: 'The server was removed from the vault.',
    action: 'Register it again if it should come back.',
    retryable: false,
  },
  'membership-generation': {
    cause: 'The vault key was regenerated after the membership was issued.',
    action: 'Register the server again with credentials made since.',
    retryable: false,
  },
  'ticket-invalid': {
    cause: 'The ticket is for another VM, epoch, source or target than this request.',
    action: 'Nothing if it happens once: the coordinator issues a new one. Otherwise look at the state of the VM.',
    retryable: true,
  },
  'ticket-expired': {
    cause: 'The coordinator has not renewed the permission to replicate, or a clock is wrong.',
    action: 'Bring the coordinator back and compare the clocks; replication then goes on by itself.',
    retryable: true,
  },
  'manifest-invalid': {
    cause: 'The description of a recovery point is altered, or was not signed by the source that sent it.',
    action: 'The delta is sent again by itself; if it repeats, look for two servers with one identity.',
    retryable: true,
  },
} as const satisfies Record<string, ErrorEntry>
