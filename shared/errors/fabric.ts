import type { ErrorEntry } from './table.ts'

export const fabricErrors = {
  'vm-unknown': {
    cause: 'No VM of that id is defined on this fabric or host; it may have been removed or moved.',
    action: 'List the VMs of the server with "hotsite vm list" and check that the VM is still there.',
    retryable: false,
  },
  'vm-ambiguous': {
    cause: 'Two VM folders carry the same id, as happens when a folder is copied by hand.',
    action: 'Give one of the two vm.yaml files named in the message an id of its own, or remove that folder.',
    retryable: false,
  },
  'vm-fenced': {
    cause: 'The VM runs elsewhere at a higher epoch; starting it here would make two writers of one VM.',
    action:
      'Fail back with "hotsite failover reverse" and a planned failover instead of starting it by hand.',
    retryable: false,
  },
  'vm-running': {
    cause: 'The operation needs the VM to be off, and it is running.',
    action: 'Shut the VM down first, then repeat the operation.',
    retryable: true,
  },
  'vm-on-other-host': {
    cause: 'A VM with this id is already defined on another host of the same VMM server.',
    action: 'Remove that definition, or choose the host it is on.',
    retryable: false,
  },
  'vm-start-failed': {
    cause: 'The VM did not start, or stopped by itself right after it.',
    action: 'Read the end of the guest log in the message, correct what it complains about, and start again.',
    retryable: true,
  },
  'vm-stop-failed': {
    cause: 'A process of the VM did not end when it was powered off; it may hang in a disk operation.',
    action: 'Look at the process named in the message and at the storage below it, then repeat.',
    retryable: true,
  },
  'heartbeat-missing': {
    cause: 'The VM runs, but its guest gave no sign of life in time: it may hang while it boots.',
    action: 'Look at the guest log or console; try an older recovery point if the guest does not come up.',
    retryable: true,
  },
  'shutdown-timeout': {
    cause: 'The guest did not finish shutting down in the time it was given.',
    action: 'Wait and repeat, give it longer, or power it off if its last writes may be lost.',
    retryable: true,
  },
  'disk-missing': {
    cause: 'A disk file of the VM is not there, is not a regular file, or may not be read.',
    action: 'Put the file named in the message back, or correct its path in the definition of the VM.',
    retryable: false,
  },
  'disk-format-unsupported': {
    cause: 'This fabric starts VMs from raw images only.',
    action: 'Make the overlay in the raw format, or fail over to a cloud of another driver.',
    retryable: false,
  },
  'network-unreachable': {
    cause: 'A network adapter of the VM is mapped to a VM network which its host does not reach.',
    action: 'Choose a host on that network, map to another one, or add the network to the host.',
    retryable: false,
  },
  'host-unknown': {
    cause: 'The fabric has no host of that name.',
    action: 'List the hosts with "hotsite cloud list" and use one of them.',
    retryable: false,
  },
  'vm-suspend-failed': {
    cause:
      'A process of the VM did not stand still in time, so no consistent state of its disks could be read.',
    action:
      'It is tried again at the next copy cycle; if it repeats, look for a process that hangs on its storage.',
    retryable: true,
  },
  'snapshot-busy': {
    cause: 'Another snapshot of the same VM is being taken.',
    action: 'Nothing: it is tried again when that one is finished.',
    retryable: true,
  },
  'snapshot-too-slow': {
    cause: 'The changes of the disks could not be copied in the time a VM may stand still.',
    action:
      'Raise the freeze limit of the agent, use a file system with reflinks (xfs, btrfs), or wait for a quieter hour.',
    retryable: true,
  },
  'nbd-failed': {
    cause:
      'The program that shows the disks of a VM over NBD went away, was silent for too long, or could not read.',
    action:
      'Nothing if it happens once: the next copy cycle repairs it. Else look at the log of QEMU and at its disks.',
    retryable: true,
  },
  'nbd-malformed': {
    cause: 'What answered as an NBD server does not speak NBD as its specification has it.',
    action:
      'Look which program listens on the socket that the message names; report it with the log if it is QEMU.',
    retryable: false,
  },
  'libvirt-unreachable': {
    cause:
      'The daemon libvirtd does not run, the address of its connection is another one, or it is too busy to answer.',
    action:
      'Look at `systemctl status libvirtd` and at the connection in the configuration; work goes on by itself then.',
    retryable: true,
  },
  'libvirt-failed': {
    cause: 'QEMU or libvirt refused an operation for the reason in the message.',
    action:
      'Do what the message says; the log of libvirtd and that of the VM in /var/log/libvirt/qemu say more.',
    retryable: true,
  },
  'tracker-broken': {
    cause: 'QEMU ended without storing what it knew of changed blocks, or somebody else removed it.',
    action: 'Nothing: the disks are compared block by block on this host, and only what differs is sent.',
    retryable: true,
  },
  'scratch-low': {
    cause:
      'The file system for scratch files of snapshots has so little room that a guest that writes much could be paused.',
    action:
      'Free space there, or set hypervisor.scratchDir to a larger file system; the next copy cycle then works.',
    retryable: true,
  },
} as const satisfies Record<string, ErrorEntry>
