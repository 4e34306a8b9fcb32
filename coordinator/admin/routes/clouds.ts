import { z } from 'zod'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { created, noContent, ok, route } from '../route.ts'
import { cloudView } from '../views.ts'

const cloudName = z.string().min(1).max(200)

export const cloudRoutes = {
  listClouds: route({
    method: 'GET',
    path: '/v1/clouds',
    summary: 'All clouds of all VMM servers, with their pairing',
    reply: ok(z.array(cloudView)),
    handle: (service) => service.listClouds(),
  }),
  pairClouds: route({
    method: 'POST',
    path: '/v1/pairings',
    summary: 'Pair a source cloud with a target cloud under a replication policy',
    body: z.strictObject({
      source: cloudName,
      target: cloudName,
      policy: replicationPolicy,
      networkMap: z.record(z.string(), z.string()).default({}),
    }),
    reply: created(cloudView),
    handle: (service, { body }) => service.pairClouds(body),
  }),
  unpairCloud: route({
    method: 'DELETE',
    path: '/v1/pairings/{source}',
    summary: 'Take a pairing apart; the source cloud names it',
    reply: noContent,
    handle: async (service, { params }) => {
      await service.unpairCloud(params.source)
      return undefined
    },
  }),
}
