import type { Generated, Kysely, Transaction } from 'kysely'
import type { JobPhase, JobState, StepState } from '#coordinator/domain/jobs.ts'

/** The tables as they are. JSON columns are strings here; store/documents.ts turns them into checked documents. */
export interface Database {
  vaults: {
    vault_id: string
    name: string
    region: string
    subscription: string
    created_at_ms: number
    key_generation: number
    public_key: string
    certificate_pem: string | null
  }
  servers: {
    vault_id: string
    server_id: string
    kind: 'provider' | 'agent'
    name: string
    host: string
    public_key: string
    generation: number
    registered_at_ms: number
    membership_expires_at_ms: number
    revoked_at_ms: number | null
    last_seen_at_ms: number | null
    clock_skew_ms: number | null
    bytes_received: Generated<number>
    bytes_sent: Generated<number>
  }
  inventories: {
    vault_id: string
    server_id: string
    vmm_server: string
    received_at_ms: number
    clouds: string
    hosts: string
    networks: string
    vms: string
    about: string
  }
  pairings: {
    vault_id: string
    pairing_id: string
    source_vmm: string
    source_cloud: string
    target_vmm: string
    target_cloud: string
    policy: string
    network_map: string
    created_at_ms: number
  }
  protected_vms: {
    vault_id: string
    vm_id: string
    name: string
    epoch: number
    state: string
    document: string
    version: number
  }
  epochs: { vault_id: string; vm_id: string; epoch: number }
  state_history: {
    vault_id: string
    vm_id: string
    sequence: Generated<number>
    at_ms: number
    event: string
    state: string
    epoch: number
    job_id: string | null
  }
  jobs: {
    vault_id: string
    job_id: string
    kind: string
    vm_id: string
    vm_name: string
    params: string
    state: JobState
    phase: JobPhase
    error: string | null
    waiting_for: string | null
    cancel_requested: Generated<number>
    created_at_ms: number
    ended_at_ms: number | null
    sequence: Generated<number>
  }
  job_steps: {
    vault_id: string
    job_id: string
    position: number
    phase: JobPhase
    name: string
    title: string
    state: StepState
    started_at_ms: number | null
    ended_at_ms: number | null
    observed: string | null
  }
  outbox: {
    vault_id: string
    command_id: string
    sequence: Generated<number>
    server_id: string
    vm_id: string
    kind: string
    request: string
    state: OutboxState
    result: string | null
    error: string | null
    created_at_ms: number
    ended_at_ms: number | null
  }
  pictures: { vault_id: string; job_id: string; vm_id: string; taken_at_ms: number; png: Uint8Array }
  seed_keys: { vault_id: string; vm_id: string; sealed: Uint8Array; created_at_ms: number }
  reports: {
    vault_id: string
    server_id: string
    kind: string
    subject: string
    received_at_ms: number
    document: string
  }
  events: {
    vault_id: string
    event_id: string
    sequence: Generated<number>
    at_ms: number
    severity: 'info' | 'warning' | 'critical'
    code: string
    message: string
    vm_id: string | null
    server_id: string | null
  }
}

/** open: to be delivered until a result came. abandoned: whoever asked gave up; it is not sent again. */
export type OutboxState = 'open' | 'done' | 'failed' | 'abandoned'

/** Inside or outside a transaction. */
export type Db = Kysely<Database> | Transaction<Database>
