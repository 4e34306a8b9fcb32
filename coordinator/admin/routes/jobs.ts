import { z } from 'zod'
import { adminLimits } from '../limits.ts'
import { accepted, lines, ok, route } from '../route.ts'
import { eventView, jobPictureView, jobView, statusView } from '../views.ts'

const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(adminLimits.maxListed).default(50),
})

export const jobRoutes = {
  listJobs: route({
    method: 'GET',
    path: '/v1/jobs',
    summary: 'Jobs, newest first',
    query: listQuery,
    reply: ok(z.array(jobView)),
    handle: (service, { query }) => service.listJobs(query),
  }),
  showJob: route({
    method: 'GET',
    path: '/v1/jobs/{job}',
    summary: 'One job with its steps',
    reply: ok(jobView),
    handle: (service, { params }) => service.showJob(params.job),
  }),
  showJobPicture: route({
    method: 'GET',
    path: '/v1/jobs/{job}/picture',
    summary: 'What the console showed when the VM of a test failover had come up',
    reply: ok(jobPictureView),
    handle: (service, { params }) => service.showJobPicture(params.job),
  }),
  watchJob: route({
    method: 'GET',
    path: '/v1/jobs/{job}/watch',
    summary: 'The job now and again after every change, one JSON document a line, until it has ended',
    reply: lines(jobView),
    handle: async (service, { params, signal }) => {
      // A job that does not exist is refused before the stream begins.
      await service.showJob(params.job)
      return service.watchJob(params.job, signal)
    },
  }),
  cancelJob: route({
    method: 'POST',
    path: '/v1/jobs/{job}/cancel',
    summary: 'Cancel a job',
    reply: accepted(jobView),
    handle: (service, { params }) => service.cancelJob(params.job),
  }),
}

export const overviewRoutes = {
  listEvents: route({
    method: 'GET',
    path: '/v1/events',
    summary: 'Events, newest first',
    query: listQuery,
    reply: ok(z.array(eventView)),
    handle: (service, { query }) => service.listEvents(query),
  }),
  status: route({
    method: 'GET',
    path: '/v1/status',
    summary: 'Am I safe? Verdict, data age of every VM, and what needs a person',
    reply: ok(statusView),
    handle: (service) => service.status(),
  }),
}
