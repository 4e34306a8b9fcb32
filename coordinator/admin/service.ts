import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type {
  CloudView,
  EventView,
  JobPictureView,
  JobView,
  PointView,
  ServerView,
  StatusView,
  VaultView,
  VmView,
} from './views.ts'

/** A recovery point as a person names it: "latest", "<epoch>.<seq>". */
export type PointChoice = string

/**
 * Everything the admin socket can ask of the coordinator; the engine implements it. `vault`, `vm`, `server` are names or
 * ids; an ambiguous name is refused and the candidates are named. Operations that take time answer the job at once.
 * Every refusal is a HotsiteError: `not-found`, `vm-busy`, `operation-not-allowed`, …
 */
export interface CoordinatorService {
  createVault(request: {
    name: string
    region: string
    subscription: string
    certificatePem?: string
  }): Promise<VaultView>
  listVaults(): Promise<readonly VaultView[]>
  showVault(vault: string): Promise<VaultView>
  /** PEM or DER in base64 of an X.509 certificate; replaces the present one. */
  setVaultCertificate(vault: string, certificate: string): Promise<VaultView>
  /** The registration file's text (JSON, signed by the vault key). Needs a vault certificate. */
  issueCredentials(vault: string): Promise<{ fileName: string; content: string; expiresAtMs: number }>
  regenerateKey(vault: string): Promise<VaultView>

  listServers(): Promise<readonly ServerView[]>
  showServer(server: string): Promise<ServerView>
  removeServer(server: string): Promise<void>

  listClouds(): Promise<readonly CloudView[]>
  /** Clouds are "<vmm server>/<cloud>", or just the cloud when only one has that name. */
  pairClouds(request: {
    source: string
    target: string
    policy: ReplicationPolicy
    networkMap: Readonly<Record<string, string>>
  }): Promise<CloudView>
  unpairCloud(source: string): Promise<void>

  listVms(): Promise<readonly VmView[]>
  showVm(vm: string): Promise<VmView>
  /** startAtMs: the first copy begins no earlier. Throws `start-time-invalid`. */
  protect(vm: string, options: { policy?: Partial<ReplicationPolicy>; startAtMs?: number }): Promise<JobView>
  /**
   * Offline: protects a VM, or goes on with one that waits for its seed, by writing its disks into a folder of the source
   * host. The policy only with the first.
   */
  exportSeed(
    vm: string,
    options: { folder: string; partBytes: number; policy?: Partial<ReplicationPolicy> },
  ): Promise<JobView>
  /** The folder, carried to the target host. */
  importSeed(vm: string, options: { folder: string }): Promise<JobView>
  unprotect(vm: string, options: { keepReplica: boolean }): Promise<JobView>
  setPolicy(vm: string, policy: Partial<ReplicationPolicy>): Promise<JobView>
  pause(vm: string): Promise<JobView>
  resume(vm: string): Promise<JobView>
  /** Also begins one that waits. */
  resync(vm: string): Promise<JobView>
  /** Begins one that waits, also that of a first copy. Throws `resync-not-waiting`. */
  approveResync(vm: string): Promise<void>
  verify(vm: string, options: { percent: number }): Promise<JobView>

  listPoints(vm: string): Promise<readonly PointView[]>
  pinPoint(vm: string, point: PointChoice, pinned: boolean): Promise<void>

  /** verify false: the blocks of the point are not read and proved before the VM starts on them. */
  testFailover(
    vm: string,
    options: { point: PointChoice; network: string | null; verify?: boolean },
  ): Promise<JobView>
  cleanupTest(vm: string, options: { notes: string; outcome: 'passed' | 'failed' }): Promise<JobView>
  plannedFailover(vm: string, options?: { verify?: boolean }): Promise<JobView>
  unplannedFailover(
    vm: string,
    options: { point: PointChoice; shutDownSource: boolean; verify?: boolean },
  ): Promise<JobView>
  changePoint(vm: string, options: { point: PointChoice }): Promise<JobView>
  commit(vm: string): Promise<JobView>
  reverse(vm: string): Promise<JobView>

  listJobs(options: { limit: number }): Promise<readonly JobView[]>
  showJob(job: string): Promise<JobView>
  /** What the console showed when the test failover had come up. */
  showJobPicture(job: string): Promise<JobPictureView>
  /** Yields the job as it is, then again after every change; ends after an ended state, or when `signal` aborts. */
  watchJob(job: string, signal: AbortSignal): AsyncIterable<JobView>
  cancelJob(job: string): Promise<JobView>
  listEvents(options: { limit: number }): Promise<readonly EventView[]>
  status(): Promise<StatusView>
}
