import type { Migration } from '#shared/sqlite.ts'

/** Every table is keyed by its vault. JSON columns are checked by the schemas of store/documents.ts on the way out. */
const first = `
  CREATE TABLE vaults (
    vault_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    region TEXT NOT NULL,
    subscription TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    key_generation INTEGER NOT NULL,
    public_key TEXT NOT NULL,
    certificate_pem TEXT
  ) STRICT;

  CREATE TABLE servers (
    vault_id TEXT NOT NULL REFERENCES vaults,
    server_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    public_key TEXT NOT NULL,
    generation INTEGER NOT NULL,
    registered_at_ms INTEGER NOT NULL,
    membership_expires_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER,
    last_seen_at_ms INTEGER,
    clock_skew_ms INTEGER,
    bytes_received INTEGER NOT NULL DEFAULT 0,
    bytes_sent INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (vault_id, server_id)
  ) STRICT;

  CREATE TABLE inventories (
    vault_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    vmm_server TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    clouds TEXT NOT NULL,
    hosts TEXT NOT NULL,
    networks TEXT NOT NULL,
    vms TEXT NOT NULL,
    about TEXT NOT NULL,
    PRIMARY KEY (vault_id, server_id)
  ) STRICT;

  CREATE TABLE pairings (
    vault_id TEXT NOT NULL,
    pairing_id TEXT NOT NULL,
    source_vmm TEXT NOT NULL,
    source_cloud TEXT NOT NULL,
    target_vmm TEXT NOT NULL,
    target_cloud TEXT NOT NULL,
    policy TEXT NOT NULL,
    network_map TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (vault_id, pairing_id),
    UNIQUE (vault_id, source_vmm, source_cloud)
  ) STRICT;

  CREATE TABLE protected_vms (
    vault_id TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    document TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (vault_id, vm_id)
  ) STRICT;

  -- The highest epoch a VM ever had outlives its protection: epochs never go back (I5).
  CREATE TABLE epochs (
    vault_id TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (vault_id, vm_id)
  ) STRICT;

  CREATE TABLE state_history (
    vault_id TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    state TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    job_id TEXT
  ) STRICT;
  CREATE INDEX state_history_by_vm ON state_history (vault_id, vm_id, sequence);

  CREATE TABLE jobs (
    vault_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    vm_name TEXT NOT NULL,
    params TEXT NOT NULL,
    state TEXT NOT NULL,
    phase TEXT NOT NULL,
    error TEXT,
    waiting_for TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (vault_id, job_id)
  ) STRICT;
  -- One job works on a VM at a time; the database itself refuses a second one.
  CREATE UNIQUE INDEX one_active_job ON jobs (vault_id, vm_id) WHERE state IN ('running', 'waiting');

  CREATE TABLE job_steps (
    vault_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    phase TEXT NOT NULL,
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at_ms INTEGER,
    ended_at_ms INTEGER,
    observed TEXT,
    PRIMARY KEY (vault_id, job_id, position)
  ) STRICT;

  CREATE TABLE outbox (
    vault_id TEXT NOT NULL,
    command_id TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    server_id TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    result TEXT,
    error TEXT,
    created_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    UNIQUE (vault_id, command_id)
  ) STRICT;
  CREATE INDEX outbox_open ON outbox (vault_id, server_id, sequence) WHERE state = 'open';

  CREATE TABLE reports (
    vault_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (vault_id, server_id, kind, subject)
  ) STRICT;
  CREATE INDEX reports_by_subject ON reports (vault_id, kind, subject);

  CREATE TABLE events (
    vault_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    severity TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    vm_id TEXT,
    server_id TEXT,
    UNIQUE (vault_id, event_id)
  ) STRICT;
`

/** Keys of seeds on their way, sealed under the key of the vault; a row goes with the first point (I15). */
const seedKeys = `
  CREATE TABLE seed_keys (
    vault_id TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (vault_id, vm_id)
  ) STRICT;
`

/** What the consoles of test failovers showed. */
const pictures = `
  CREATE TABLE pictures (
    vault_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    taken_at_ms INTEGER NOT NULL,
    png BLOB NOT NULL,
    PRIMARY KEY (vault_id, job_id)
  ) STRICT;
  CREATE INDEX pictures_by_vm ON pictures (vault_id, vm_id, taken_at_ms);
`

export const coordinatorMigrations: readonly Migration[] = [
  { name: '0001-first', sql: first },
  { name: '0002-seed-keys', sql: seedKeys },
  { name: '0003-pictures', sql: pictures },
]
