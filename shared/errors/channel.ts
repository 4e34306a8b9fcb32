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
  'channel-oversize': {
    cause: 'A message beyond the limit of the channel, which no correct peer sends.',
    action: 'Report it with the logs of both ends; it is a defect or an attack.',
    retryable: false,
  },
  'channel-out-of-sequence': {
    cause: 'Somebody between the two servers repeats, reorders or drops messages, or one end has a defect.',
    action: 'The connection is made anew by itself; if it repeats, look for a device that intercepts TLS.',
    retryable: true,
  },
  'channel-altered': {
    cause: 'Somebody between the two servers changes messages, or one end has faulty memory.',
    action:
      'The connection is made anew by itself; if it repeats, test the memory of both ends and look for an intercepting device.',
    retryable: true,
  },
  'channel-bad-proof': {
    cause:
      'The server at the other end does not hold the key of its membership, or somebody relays the connection.',
    action:
      'Check the address and look for a device that intercepts TLS; register the server again if its key was replaced.',
    retryable: false,
  },
  'channel-version-mismatch': {
    cause: 'The two servers run versions of Hotsite with no wire version in common.',
    action: 'Upgrade the older one; the message names the versions of both.',
    retryable: false,
  },
  'channel-wrong-peer': {
    cause: 'The address belongs to another server of the vault than the one meant.',
    action: 'Correct the address in the configuration, or remove the outdated server.',
    retryable: false,
  },
  'channel-refused': {
    cause: 'The other side ended the handshake for the reason in the message.',
    action: 'Look into the log of the other side.',
    retryable: true,
  },
  'channel-handshake-timeout': {
    cause: 'The other side is overloaded, or something that is no Hotsite answers at that address.',
    action: 'Check address and port; the connection is tried again by itself.',
    retryable: true,
  },
  'channel-unreachable': {
    cause: 'Nothing answers at that address: the service is down, or a firewall is in between.',
    action: 'Check that the service runs and that the port is open; the connection is tried again by itself.',
    retryable: true,
  },
  'channel-certificate-mismatch': {
    cause:
      'Another certificate than the pinned one answers: the server was reinstalled, or somebody intercepts the connection.',
    action:
      'If the server was reinstalled, register again so that its new certificate is known; otherwise look for an intercepting device.',
    retryable: false,
  },
  'channel-too-many': {
    cause:
      'More connections than allowed have not yet proved who they are: a storm of reconnects, or an attack.',
    action: 'Nothing if it passes; otherwise look at the addresses in the log and block them.',
    retryable: true,
  },
  'channel-closed': {
    cause: 'One of the two servers ended the connection in good order.',
    action: 'Nothing: it is made anew by itself when needed.',
    retryable: true,
  },
  'channel-closed-by-peer': {
    cause: 'The other side ended the connection because of an error, named in the message.',
    action: 'Look into the log of the other side.',
    retryable: true,
  },
  'channel-lost': {
    cause: 'The network broke, or the other side died.',
    action: 'Nothing: the connection is made anew by itself and work goes on where it stopped.',
    retryable: true,
  },
  'channel-silent': {
    cause:
      'The other side stopped answering without closing the connection: power loss, a frozen machine, a dropped route.',
    action: 'Nothing: the connection is made anew by itself; check the other machine if it stays away.',
    retryable: true,
  },
  'channel-replaced': {
    cause: 'The same server connected a second time; the newer connection counts.',
    action:
      'Nothing if it happens once. If it repeats, two machines run with one identity: remove one and register it again.',
    retryable: true,
  },
  'channel-queue-full': {
    cause: 'More messages were queued than the link took away.',
    action: 'Nothing: the connection is made anew by itself; report it if it repeats.',
    retryable: true,
  },
  'channel-cannot-listen': {
    cause: 'Another program uses the port, or the address is not one of this machine.',
    action: 'Choose another listen address in the configuration, or stop the other program.',
    retryable: false,
  },
  'identity-twice': {
    cause: 'Two machines run with the identity of one server, for instance after cloning a machine.',
    action: 'Stop one of them, delete its data folder and register it again.',
    retryable: false,
  },
} as const satisfies Record<string, ErrorEntry>
