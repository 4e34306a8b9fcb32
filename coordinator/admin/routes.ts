import type { z } from 'zod'
import type { ParamName, ReplyValue, Route } from './route.ts'
import { cloudRoutes } from './routes/clouds.ts'
import { failoverRoutes } from './routes/failover.ts'
import { jobRoutes, overviewRoutes } from './routes/jobs.ts'
import { serverRoutes } from './routes/servers.ts'
import { vaultRoutes } from './routes/vaults.ts'
import { vmRoutes } from './routes/vms.ts'

/** All the admin socket answers, by operation. */
export const routes = {
  ...overviewRoutes,
  ...vaultRoutes,
  ...serverRoutes,
  ...cloudRoutes,
  ...vmRoutes,
  ...failoverRoutes,
  ...jobRoutes,
}

export type Operation = keyof typeof routes
type RouteOf<Name extends Operation> = (typeof routes)[Name]

/** What a caller passes; fields with a default may be left out. */
export interface CallInput<Name extends Operation> {
  readonly params?: RouteOf<Name> extends Route<infer Path>
    ? Readonly<Record<ParamName<Path>, string>>
    : never
  readonly query?: z.input<RouteOf<Name>['query']>
  readonly body?: z.input<RouteOf<Name>['body']>
}
export type CallReply<Name extends Operation> = ReplyValue<RouteOf<Name>['reply']>
