import type { ErrorEntry } from './table.ts'

export const channelErrors = {
  'channel-malformed': {
    cause:
      'The bytes are not a message of this version: a defect, a damaged link, or something that is no Hotsite.',
    action: 'Check that both ends run compatible versions; the connection is made anew by itself.',
    retryable: true,
  },
  'channel-unsafe-number': {
    cause: 'A number in the message is negative, broken or beyond 2^53, which no correct peer sends.',
    action: 'Report it with the logs of both ends; it is a defect or an attack.',
    retryable: false,
  },
} as const satisfies Record<string, ErrorEntry>
