import { z } from 'zod'
import { accepted, route } from '../route.ts'
import { jobView, pointChoice } from '../views.ts'

/** Read and prove every block of the point before the VM starts on it. */
const verify = z.boolean().default(true)

export const failoverRoutes = {
  testFailover: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/test',
    summary: 'Start a copy of the VM at the target on a recovery point; replication goes on',
    body: z.strictObject({
      point: pointChoice.default('latest'),
      network: z.string().nullable().default(null),
      verify,
    }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.testFailover(params.vm, body),
  }),
  cleanupTest: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/cleanup-test',
    summary: 'Remove what a test failover made and keep its outcome',
    body: z.strictObject({
      notes: z.string().max(4_000).default(''),
      outcome: z.enum(['passed', 'failed']).default('passed'),
    }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.cleanupTest(params.vm, body),
  }),
  plannedFailover: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/planned',
    summary: 'Shut the VM down, send the last changes, start it at the target: nothing is lost',
    body: z.strictObject({ verify }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.plannedFailover(params.vm, body),
  }),
  unplannedFailover: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/unplanned',
    summary: 'Start the VM at the target on a recovery point, whether or not the source answers',
    body: z.strictObject({
      point: pointChoice.default('latest'),
      shutDownSource: z.boolean().default(false),
      verify,
    }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.unplannedFailover(params.vm, body),
  }),
  changePoint: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/change-point',
    summary: 'After a failover and before the commit: start from another recovery point instead',
    body: z.strictObject({ point: pointChoice }),
    reply: accepted(jobView),
    handle: (service, { params, body }) => service.changePoint(params.vm, body),
  }),
  commitFailover: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/commit',
    summary: 'Accept the failover; another point can no longer be chosen',
    reply: accepted(jobView),
    handle: (service, { params }) => service.commit(params.vm),
  }),
  reverseReplication: route({
    method: 'POST',
    path: '/v1/vms/{vm}/failover/reverse',
    summary: 'Replicate back to where the VM came from; only differences travel',
    reply: accepted(jobView),
    handle: (service, { params }) => service.reverse(params.vm),
  }),
}
