import type { ErrorEntry } from './table.ts'

export const orchestrationErrors = {
  'vault-unknown': {
    cause: 'No vault of that name or id exists on this coordinator.',
    action: 'List the vaults with "hotsite vault list" and use one of those names.',
    retryable: false,
  },
  'vault-name-taken': {
    cause: 'Another vault already has this name.',
    action: 'Choose another name.',
    retryable: false,
  },
  'server-unknown': {
    cause: 'No server of that name or id is registered.',
    action: 'List the servers with "hotsite server list".',
    retryable: false,
  },
  'server-removed': {
    cause: 'The server was removed from the vault while the work was under way.',
    action: 'Register the server again, then start the operation anew.',
    retryable: false,
  },
  'agent-disconnected': {
    cause: 'The daemon of that server is not running, or the network between it and the coordinator is down.',
    action: 'Start the daemon or repair the network; what waits goes on by itself.',
    retryable: true,
  },
  'agent-absent': {
    cause:
      'An agent that the job needs before it touches the running VM was away for longer than a job waits for it.',
    action:
      'Start the daemon or repair the network, then start the operation again. If the source site is lost, use "hotsite failover unplanned".',
    retryable: true,
  },
  'cloud-unknown': {
    cause:
      'No cloud of that name is in the inventory; it appears when the provider of its VMM server has reported.',
    action: 'List the clouds with "hotsite cloud list".',
    retryable: false,
  },
  'name-ambiguous': {
    cause: 'More than one thing has that name.',
    action: 'Use the id, or the full name as the message lists them.',
    retryable: false,
  },
  'cloud-pair-itself': {
    cause: 'Source and target are the same cloud; a disaster there would take both.',
    action: 'Choose another cloud as the target.',
    retryable: false,
  },
  'cloud-already-paired': {
    cause: 'A cloud is in one pairing only, as the source or as the target.',
    action: 'Unpair it first with "hotsite cloud unpair".',
    retryable: false,
  },
  'cloud-not-paired': {
    cause: 'The cloud of the VM is not the source of a pairing, so there is nowhere to replicate to.',
    action: 'Pair the cloud with "hotsite cloud pair".',
    retryable: false,
  },
  'pairing-unknown': {
    cause: 'The cloud is in no pairing, or is the target of one: a pairing is named by its source.',
    action: 'List the pairings with "hotsite cloud list" and name the source cloud of one.',
    retryable: false,
  },
  'cloud-in-use': {
    cause: 'VMs of this cloud are protected.',
    action: 'Unprotect them first.',
    retryable: false,
  },
  'network-unknown': {
    cause: 'The VM network is not in the inventory of that VMM server.',
    action: 'Use a network the VMM server reports, or correct the network map of the pairing.',
    retryable: false,
  },
  'picture-unknown': {
    cause:
      'Only a test failover takes a picture, of a VM with a display, and the newest twenty of a VM are kept.',
    action: 'Find the job with "hotsite job list"; "hotsite job show" says whether a picture was kept.',
    retryable: false,
  },
  'app-consistent-unsupported': {
    cause:
      'The hosts of the source cannot ask a guest to bring its applications to rest: all points are crash-consistent there.',
    action: 'Leave --app-consistent out, or set it to 0; hosts under libvirt can.',
    retryable: false,
  },
  'app-consistent-interval': {
    cause:
      'Application-consistent points must come more often than retention reaches back, or none would be kept.',
    action: 'Raise --retention-points or --retention-interval, or make such points more often.',
    retryable: false,
  },
  'vm-already-protected': {
    cause: 'The VM has a replica already.',
    action: 'Look at it with "hotsite vm show"; unprotect it first to start over.',
    retryable: false,
  },
  'vm-not-protected': {
    cause: 'The operation needs a protected VM.',
    action: 'Protect it with "hotsite vm protect".',
    retryable: false,
  },
  'vm-not-eligible': {
    cause: 'The VM lacks something replication needs.',
    action: 'Correct what the message names, then protect it again.',
    retryable: false,
  },
  'vm-busy': {
    cause: 'A job is working on this VM; one runs at a time.',
    action: 'Wait for the job named in the message, or cancel it with "hotsite job cancel".',
    retryable: true,
  },
  'operation-not-allowed': {
    cause: 'The state of the VM does not permit this operation.',
    action: '"hotsite vm show" lists what is allowed now.',
    retryable: false,
  },
  'point-unknown': {
    cause: 'The recovery point does not exist, or retention has removed it.',
    action: 'List the points with "hotsite point list" and choose one of them, or "latest".',
    retryable: false,
  },
  'no-recovery-point': {
    cause: 'No recovery point is complete at the target yet.',
    action: 'Wait for the initial replication to end.',
    retryable: true,
  },
  'placement-impossible': {
    cause: 'No host of the target cloud can take the replica.',
    action:
      'The message names what each host lacks: connect its agent, free disk space, or map the networks.',
    retryable: true,
  },
  'job-unknown': {
    cause: 'No job has that id.',
    action: 'List the jobs with "hotsite job list".',
    retryable: false,
  },
  'job-not-cancellable': {
    cause: 'The job has ended, or it has passed the point up to which it can be undone.',
    action: 'Wait for it to end, then use the operation that leads back.',
    retryable: false,
  },
  'job-cancelled': {
    cause: 'A person cancelled the job.',
    action: 'Start the operation again when it is wanted.',
    retryable: false,
  },
  'agent-timeout': {
    cause: 'The agent is connected but did not answer within the time this step allows.',
    action: 'Look into the log of that agent.',
    retryable: true,
  },
  'agent-answer-invalid': {
    cause: 'The agent answered in a form this version does not understand.',
    action: 'Bring coordinator and agents to the same version.',
    retryable: false,
  },
  'vm-not-running': {
    cause: 'The VM was started but was not seen running.',
    action: 'Look at the VM in its fabric and into the log of the provider agent.',
    retryable: false,
  },
  'vm-still-running': {
    cause:
      'The guest was seen running after its shut-down was done: something started it again, or it did not end.',
    action:
      'Find what starts the guest (a script, a supervisor, the fabric), shut it down, and start the failover again.',
    retryable: false,
  },
  'nic-not-connected': {
    cause: 'The started VM is not on the network it is mapped to.',
    action: 'Correct the network map of the pairing or the network at the target.',
    retryable: false,
  },
  'fence-failed': {
    cause: 'The old source could not be told that the VM now runs elsewhere.',
    action: 'Keep the old VM off by hand until its server answers; the coordinator goes on trying.',
    retryable: true,
  },
  'verify-failed': {
    cause:
      'Blocks at the target are not what was attested, and the source no longer holds what they were: rot, or a foreign hand in the replica folder.',
    action:
      'Check the disk of the target host. Points named in the message are not used until they are healed; the next verification or "hotsite vm resync" brings the newest point back, older ones go by retention.',
    retryable: false,
  },
  'resync-not-waiting': {
    cause: 'No resynchronization of this VM waits for a time, a window or approval.',
    action: 'Look at "hotsite vm show"; "hotsite vm resync" without --now asks for a new one.',
    retryable: false,
  },
  'start-time-invalid': {
    cause: 'The time is in the past, or more than a year ahead.',
    action: 'Give a time to come, as 22:00, +2h or "2030-01-31 22:00" (UTC).',
    retryable: false,
  },
  'time-zone-unknown': {
    cause: 'The name is not one of the IANA time zone database, or this machine does not know it.',
    action: 'Give a name as Europe/Berlin, America/New_York or UTC.',
    retryable: false,
  },
  'window-invalid': {
    cause: 'A window of the week is not written as days, times and, for a throttle, a rate.',
    action: 'Write it as "mon-fri 08:00-18:00 5MiB" (throttle) or "daily 18:00-06:00" (resynchronization).',
    retryable: false,
  },
  'seed-key-lost': {
    cause:
      'The key of an exported seed is deleted with the first point, and cannot be opened after the vault key was regenerated.',
    action:
      'Export the seed again with "hotsite vm export-seed"; what the old folder holds cannot be read by anybody.',
    retryable: false,
  },
  'state-changed': {
    cause: 'Another coordinator or job changed the VM at the same moment.',
    action: 'Look at the VM and repeat the operation if it is still wanted.',
    retryable: true,
  },
} as const satisfies Record<string, ErrorEntry>
