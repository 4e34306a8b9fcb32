import { z } from 'zod'
import { noContent, ok, route } from '../route.ts'
import { serverView } from '../views.ts'

export const serverRoutes = {
  listServers: route({
    method: 'GET',
    path: '/v1/servers',
    summary: 'All registered servers: providers and recovery agents',
    reply: ok(z.array(serverView)),
    handle: (service) => service.listServers(),
  }),
  showServer: route({
    method: 'GET',
    path: '/v1/servers/{server}',
    summary: 'One server',
    reply: ok(serverView),
    handle: (service, { params }) => service.showServer(params.server),
  }),
  removeServer: route({
    method: 'DELETE',
    path: '/v1/servers/{server}',
    summary: 'Revoke the membership of a server and drop its connections',
    reply: noContent,
    handle: async (service, { params }) => {
      await service.removeServer(params.server)
      return undefined
    },
  }),
}
