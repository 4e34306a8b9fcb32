/** More than one VM between the two agents of two-hosts.ts. */
import { closeSync, openSync, writeSync } from 'node:fs'
import type { FolderVm } from '#shared/folder/layout.ts'
import { type VmId, vmId } from '#shared/ids.ts'
import { type ReplicationPolicy, replicationPolicy } from '#shared/messages/policy.ts'
import type { ReplicationReport } from '#shared/messages/reports.ts'
import { issueTicket } from '#shared/trust/ticket.ts'
import { diskPath, type TwoHosts } from './two-hosts.ts'

const never = new AbortController().signal

export interface OtherVm {
  readonly vmId: VmId
  readonly vm: FolderVm
  /** Whole blocks that do not compress, from block 0 on. */
  fill(blocks: number): void
  report(): ReplicationReport
  copyNow(): Promise<{ readonly seq: number }>
}

/** A further VM of the eastern host (the one given as `east`) with one disk, replicated to the west through `via`. */
export async function protectOther(
  { fabric, vault, east, west, addressOf }: TwoHosts,
  {
    name,
    diskBytes,
    via,
    policy = {},
  }: { name: string; diskBytes: number; via: number; policy?: Partial<ReplicationPolicy> },
): Promise<OtherVm> {
  const id = vmId.parse(name)
  const vm = fabric.addVm({ host: east.name, name, diskBytes: [diskBytes] })
  const now = Date.now()
  const ticket = {
    vaultId: vault.vaultId,
    vmId: id,
    epoch: 1,
    sourceServerId: east.serverId,
    targetServerId: west.serverId,
    issuedAtMs: now,
    expiresAtMs: now + 3_600_000,
  }
  const full = replicationPolicy.parse({ retentionIntervalSeconds: 0, copyFrequencySeconds: 900, ...policy })
  const disks = vm.file.disks.map((disk, index) => ({
    diskId: disk.id,
    name: disk.name,
    sizeBytes: diskBytes,
    boot: index === 0,
  }))
  const order = { vmId: id, epoch: 1, policy: full }
  await west.agent.handlers['replica.prepare']({ ...order, disks, sourceServerId: east.serverId }, never)
  await east.agent.handlers['replication.start'](
    {
      ...order,
      fabricVmId: vm.file.id,
      target: addressOf(west, via),
      ticket: Buffer.from(issueTicket(ticket, vault.keys.secretKey)).toString('base64'),
      cause: 'initial',
      notBeforeMs: null,
    },
    never,
  )
  return {
    vmId: id,
    vm,
    fill(blocks) {
      const fd = openSync(diskPath(vm, 0), 'r+')
      const block = new Uint8Array(65_536)
      for (let i = 0; i < blocks; i++) writeSync(fd, crypto.getRandomValues(block), 0, 65_536, i * 65_536)
      closeSync(fd)
    },
    report: () => reportOf(east, id),
    async copyNow() {
      const { point } = await east.agent.handlers['replication.copyNow']({ vmId: id }, never)
      return { seq: point.seq }
    },
  }
}

function reportOf({ agent }: TwoHosts['east'], id: VmId): ReplicationReport {
  agent.reports.restart()
  for (;;) {
    const report = agent.reports.take()
    if (!report) throw new Error(`${id} is not replicated`)
    agent.reports.acknowledge(report.reportSeq)
    if (report.kind !== 'replication') continue
    const found: ReplicationReport = JSON.parse(String(report.json))
    if (found.vmId === id) return found
  }
}
