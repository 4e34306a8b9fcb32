import type { ErrorEntry } from './table.ts'

export const replicationErrors = {
  'block-malformed': {
    cause: 'A batch of blocks does not fit together: a damaged disk below the buffer, or a defect.',
    action:
      'Check the disk that holds the data folder; if it is sound, report it with the logs of both agents.',
    retryable: true,
  },
  'vm-not-replicated': {
    cause: 'The VM is not, or no longer, replicated from this host.',
    action: 'Look at the state of the VM; protect it, or run the operation on the host that owns it now.',
    retryable: false,
  },
  'epoch-stale': {
    cause: 'The VM was failed over since: a newer epoch is in force, and this side may not write any more.',
    action: 'Nothing by hand: the old side becomes a target. Reverse the replication if it has not begun.',
    retryable: false,
  },
  'synchronization-running': {
    cause: 'A synchronization of the VM holds a snapshot; a copy cycle or a second one would overtake it.',
    action: 'Wait until it ends; copy cycles go on by themselves afterwards.',
    retryable: true,
  },
  'synchronization-incomplete': {
    cause: 'The point of a synchronization was asked for before every group of every disk had been compared.',
    action: 'Nothing by hand: the synchronization starts again. Report it if it repeats.',
    retryable: true,
  },
  'synchronization-superseded': {
    cause:
      'The VM was forgotten or its epoch raised while the synchronization ran; its point is worth nothing.',
    action: 'Nothing by hand: the next synchronization runs at the new epoch.',
    retryable: true,
  },
  'snapshot-torn': {
    cause:
      'The snapshot was let go before its blocks were read, so that the VM would not stand still for too long.',
    action:
      'Nothing was taken over and nothing is lost; if it repeats, look at the load of the host and its disks.',
    retryable: true,
  },
  'disk-unknown': {
    cause: 'The VM has no disk of that id in this snapshot; it may have been removed since.',
    action: 'Refresh the inventory; the next copy cycle takes the disks as they are.',
    retryable: true,
  },
  'delta-unknown': {
    cause: 'The delta was acknowledged and released, or replaced by a synchronization.',
    action: 'Nothing by hand: replication goes on with the next delta.',
    retryable: true,
  },
  'capture-stopped': {
    cause: 'The worker that reads disks and keeps the buffer has ended.',
    action: 'Restart the agent; it goes on from the last sealed delta. Its log says why the worker ended.',
    retryable: true,
  },
  'buffer-damaged': {
    cause:
      'A row of buffer.db, or the whole file, is not what was written: rot, another program, or a damaged disk.',
    action:
      'Nothing at once: hashes are compared and only what differs is sent. Check the disk that holds the data folder.',
    retryable: true,
  },
  'tree-damaged': {
    cause:
      'The stored hashes of a disk contradict each other: rot, another program, or a damaged disk below them.',
    action:
      'Nothing at once: hashes are compared and only what differs is sent. Check the disk that holds the data folder.',
    retryable: true,
  },
  'state-damaged': {
    cause:
      'The file state.db is not what was written: rot, another program, or a damaged disk below the data folder.',
    action:
      'Check that disk; move state.db away, start the agent, and enable the protection of the VMs of this host again. An older copy of it may have forgotten a fence.',
    retryable: false,
  },
  'tracker-wrong': {
    cause:
      'The change tracker of the hypervisor called blocks unchanged that were written: a defect, or a disk changed from outside.',
    action:
      'Nothing at once: the whole disk was scanned and the point is right. Update the hypervisor if it repeats.',
    retryable: true,
  },
  'layer-damaged': {
    cause: 'A file of the replica is not what was written: rot, another program, or a damaged file system.',
    action: 'Check the disk below the data folder; then let the VM synchronize anew into another folder.',
    retryable: false,
  },
  'point-damaged': {
    cause:
      'Blocks of the recovery point are not what was attested when it came: the disk of the target rots.',
    action:
      'Use the newest sound point that the message names. What the source still has is healed by itself; check the disk of the target.',
    retryable: true,
  },
  'replica-damaged': {
    cause:
      'Blocks that rest at the target are not what was attested, and the source no longer has them as they were.',
    action:
      'Check the disk of the target. The points named are not served and go with retention; the newest state is synchronized anew by itself.',
    retryable: true,
  },
  'catalog-damaged': {
    cause: 'A row of replica.db is not what was written: rot, another program, or a damaged disk below it.',
    action:
      'Nothing at once: rows are made anew from the layers and the copies beside them. Check the disk that holds the replicas.',
    retryable: true,
  },
  'merge-debt': {
    cause: 'Points come faster than the disk of the target can merge those that retention gives up.',
    action:
      'Nothing at once: copies come less often until merges have caught up. If it lasts, copy less often, or give the replicas a faster disk.',
    retryable: true,
  },
  'chain-full': {
    cause:
      'The replica has as many layers as a hypervisor can be asked to open; merges lag behind, or too many points are pinned.',
    action:
      'Nothing at once: copies wait in the buffer of the source until merges have made room. Unpin points that are not needed.',
    retryable: true,
  },
  'point-in-use': {
    cause: 'A test failover or a failed-over VM stands on a point of this replica.',
    action: 'Clean up the test failover, or commit the failover, and repeat.',
    retryable: false,
  },
  'overlay-exists': {
    cause: 'Disks under that overlay id were made already, from another point or in another format.',
    action: 'Remove the overlay first, or use another id.',
    retryable: false,
  },
  'overlay-unknown': {
    cause: 'The overlay was removed, or was never made on this host.',
    action: 'Start the failover again; it makes a new one.',
    retryable: false,
  },
  'writer-closed': {
    cause: 'A newer attempt at the same delta, or a newer epoch, took the place of this writer.',
    action: 'Nothing: the delta is resumed from what is durable at the target.',
    retryable: true,
  },
  'replica-store-stopped': {
    cause: 'The worker that writes replicas has ended.',
    action: 'Restart the agent; what is durable stays. Its log says why the worker ended.',
    retryable: true,
  },
  'replica-unknown': {
    cause: 'The target holds no replica of this VM: its data folder was replaced, or protection was removed.',
    action: 'Repeat "hotsite vm resync"; if it stays, disable and enable the protection.',
    retryable: true,
  },
  'replica-not-prepared': {
    cause: 'The coordinator allowed a newer epoch, but has not told the target of it yet.',
    action: 'Nothing: the source tries again by itself.',
    retryable: true,
  },
  'base-unknown': {
    cause:
      'The target does not hold the point this delta stands on: one of the two sides was restored or replaced.',
    action: 'Nothing: both sides compare their hashes and only what differs is sent. Existing points stay.',
    retryable: true,
  },
  'backfill-unknown': {
    cause:
      'An older point was to be brought below a newer one that is not, or no longer, ready for it: the target was repaired or failed over meanwhile.',
    action: 'Nothing: the older points of that outage are given up, the newest state is at the target.',
    retryable: true,
  },
  'backfill-refused': {
    cause: 'An older point did not come out right at the target; it is sent once more.',
    action: 'Nothing: newer points are not touched by it.',
    retryable: true,
  },
  'delta-diverged': {
    cause:
      'The replica does not have the hash the source signed: the tracker missed a change, or a disk returned wrong bytes.',
    action:
      'Nothing at once: both sides compare their hashes and only what differs is sent. If it repeats, check the disks of both hosts.',
    retryable: true,
  },
  'stream-malformed': {
    cause:
      'The sender sent a message no correct version sends: sizes, block numbers or batches that cannot be.',
    action: 'Check that both agents run compatible versions; report it with the logs of both.',
    retryable: true,
  },
  'stream-out-of-order': {
    cause: 'Blocks came in another order than announced, mostly after a connection was replaced.',
    action: 'Nothing: the delta is resumed from what is durable at the target.',
    retryable: true,
  },
  'stream-interrupted': {
    cause: 'The connection between the two hosts broke, or the other agent stopped.',
    action:
      'Nothing if it passes: the agents connect again and resume. Otherwise check the network between the hosts and the listening port.',
    retryable: true,
  },
  'stream-timeout': {
    cause: 'The target did not answer in time: its disk is very slow or its agent hangs.',
    action: 'Look into the log of the agent at the target; the source tries again by itself.',
    retryable: true,
  },
  'target-unreachable': {
    cause: 'The target agent is down, or a firewall closes its port.',
    action:
      'Start the agent on the target host and check its listening port; changes are buffered meanwhile.',
    retryable: true,
  },
  'buffer-full': {
    cause: 'The target is away or slower than the VM writes, so the buffer of this host reached its limit.',
    action:
      'Bring the target back, or raise bufferMaxBytes. Nothing is lost: the next cycle captures all changes at once.',
    retryable: true,
  },
  'capture-failed': {
    cause: 'The disks of the VM could not be read at one instant.',
    action: 'See the message for the disk and the reason; the next cycle tries again.',
    retryable: true,
  },
  'replication-paused': {
    cause: 'Replication of the VM is paused.',
    action: 'Resume it: "hotsite vm resume".',
    retryable: true,
  },
  'replication-stopped': {
    cause: 'Replication of the VM was stopped while the request waited.',
    action: 'Enable the protection again if it was not meant.',
    retryable: true,
  },
  'replication-resync': {
    cause: 'A synchronization became necessary; the message names why.',
    action: 'Nothing: hashes are compared and only what differs is sent. Existing points stay.',
    retryable: true,
  },
  'command-unknown': {
    cause: 'The coordinator is of a newer version than this agent.',
    action: 'Update the agent.',
    retryable: true,
  },
  'agent-busy': {
    cause: 'Too many commands are running on this agent at once.',
    action: 'Nothing: the coordinator repeats the command.',
    retryable: true,
  },
} as const satisfies Record<string, ErrorEntry>
