import { z } from 'zod'
import { seedPartBytes } from '../limits.ts'
import { policyPatch } from '../policy-patch.ts'
import { accepted, noContent, ok, route } from '../route.ts'
import { jobView, pointView, vmView } from '../views.ts'

/** On a host, whose agent has another working folder than whoever asks. */
const hostFolder = z
  .string()
  .max(4_000)
  .regex(/^(\/|[A-Za-z]:[\\/]|\\\\)/, 'an absolute path on the host, as /mnt/usb/shop')

export const vmRoutes = {
  listVms: route({
    method: 'GET',
    path: '/v1/vms',
    summary: 'All VMs, protected or not',
    reply: ok(z.array(vmView)),
    handle: (service) => service.listVms(),
  }),
  showVm: route({
    method: 'GET',
    path: '/v1/vms/{vm}',
    summary: 'One VM',
    reply: ok(vmView),
    handle: (service, { params }) => service.showVm(params.vm),
  }),
  protectVm: route({
    method: 'POST',
    path: '/v1/vms/{vm}/protect',
    summary: 'Protect a VM; the policy of its cloud applies except where given here',
    body: z.strictObject({
      policy: policyPatch.exactOptional(),
      /** Of the first copy, milliseconds since 1970; at once without it. */
      startAtMs: z.number().exactOptional(),
    }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.protect(params.vm, body),
  }),
  exportSeed: route({
    method: 'POST',
    path: '/v1/vms/{vm}/seed/export',
    summary: 'Protect a VM offline: write its disks, encrypted, into a folder of the source host',
    body: z.strictObject({
      folder: hostFolder,
      partBytes: z.int().min(seedPartBytes.least).max(seedPartBytes.most).default(seedPartBytes.usual),
      policy: policyPatch.exactOptional(),
    }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.exportSeed(params.vm, body),
  }),
  importSeed: route({
    method: 'POST',
    path: '/v1/vms/{vm}/seed/import',
    summary: 'Make the replica of a seed that was carried to the target host, then replicate what changed',
    body: z.strictObject({ folder: hostFolder }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.importSeed(params.vm, body),
  }),
  unprotectVm: route({
    method: 'POST',
    path: '/v1/vms/{vm}/unprotect',
    summary: 'Stop protecting a VM; its replica is removed unless it is to be kept',
    body: z.strictObject({ keepReplica: z.boolean().default(false) }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.unprotect(params.vm, body),
  }),
  setPolicy: route({
    method: 'PATCH',
    path: '/v1/vms/{vm}/policy',
    summary: 'Change some fields of the policy of a protected VM',
    body: policyPatch,
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.setPolicy(params.vm, body),
  }),
  pauseVm: route({
    method: 'POST',
    path: '/v1/vms/{vm}/pause',
    summary: 'Pause replication',
    reply: accepted(jobView),
    handle: (service, { params }) => service.pause(params.vm),
  }),
  resumeVm: route({
    method: 'POST',
    path: '/v1/vms/{vm}/resume',
    summary: 'Resume replication; only what changed meanwhile is sent',
    reply: accepted(jobView),
    handle: (service, { params }) => service.resume(params.vm),
  }),
  resyncVm: route({
    method: 'POST',
    path: '/v1/vms/{vm}/resync',
    summary: 'Compare the disks by their hashes and send what differs; begins one that waits',
    reply: accepted(jobView),
    handle: (service, { params }) => service.resync(params.vm),
  }),
  approveResync: route({
    method: 'POST',
    path: '/v1/vms/{vm}/resync/approve',
    summary: 'Begin now the resynchronization or first copy that waits for its time, its window or approval',
    reply: noContent,
    handle: async (service, { params }) => {
      await service.approveResync(params.vm)
      return undefined
    },
  }),
  verifyVm: route({
    method: 'POST',
    path: '/v1/vms/{vm}/verify',
    summary: 'Read blocks again at the source and at the target, and heal what rotted',
    body: z.strictObject({ percent: z.number().gt(0).max(100).default(5) }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.verify(params.vm, body),
  }),
  listPoints: route({
    method: 'GET',
    path: '/v1/vms/{vm}/points',
    summary: 'The recovery points of a VM',
    reply: ok(z.array(pointView)),
    handle: (service, { params }) => service.listPoints(params.vm),
  }),
  pinPoint: route({
    method: 'PUT',
    path: '/v1/vms/{vm}/points/{point}/pin',
    summary: 'Keep a recovery point whatever the retention says',
    reply: noContent,
    handle: async (service, { params }) => {
      await service.pinPoint(params.vm, params.point, true)
      return undefined
    },
  }),
  unpinPoint: route({
    method: 'DELETE',
    path: '/v1/vms/{vm}/points/{point}/pin',
    summary: 'Give a recovery point back to the retention',
    reply: noContent,
    handle: async (service, { params }) => {
      await service.pinPoint(params.vm, params.point, false)
      return undefined
    },
  }),
}
