import { z } from 'zod'
import { created, ok, route } from '../route.ts'
import { credentialsView, vaultView } from '../views.ts'

/** X.509, PEM or base64 DER; 64 KiB is many times the largest RSA certificate. */
const certificate = z
  .string()
  .min(1)
  .max(64 * 1024)
  .refine((text) => !text.includes('PRIVATE KEY'), 'only the certificate is wanted; keep the private key')

const name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_. -]{0,62}$/, 'letters, digits, ".", "_", "-" and blanks, at most 63')

export const vaultRoutes = {
  listVaults: route({
    method: 'GET',
    path: '/v1/vaults',
    summary: 'All vaults',
    reply: ok(z.array(vaultView)),
    handle: (service) => service.listVaults(),
  }),
  createVault: route({
    method: 'POST',
    path: '/v1/vaults',
    summary: 'Create a vault and its key, with the certificate if one is given',
    body: z.strictObject({
      name,
      region: z.string().min(1).max(63),
      subscription: z.string().min(1).max(63),
      certificatePem: certificate.exactOptional(),
    }),
    reply: created(vaultView),
    handle: (service, { body }) => service.createVault(body),
  }),
  showVault: route({
    method: 'GET',
    path: '/v1/vaults/{vault}',
    summary: 'One vault',
    reply: ok(vaultView),
    handle: (service, { params }) => service.showVault(params.vault),
  }),
  setVaultCertificate: route({
    method: 'PUT',
    path: '/v1/vaults/{vault}/certificate',
    summary: 'Register the vault certificate, replacing the present one',
    body: z.strictObject({ certificate }),
    reply: ok(vaultView),
    handle: (service, { params, body }) => service.setVaultCertificate(params.vault, body.certificate),
  }),
  issueCredentials: route({
    method: 'POST',
    path: '/v1/vaults/{vault}/credentials',
    summary: 'Issue a registration file for servers; it holds a token, so keep it to yourself',
    reply: ok(credentialsView),
    handle: (service, { params }) => service.issueCredentials(params.vault),
  }),
  regenerateKey: route({
    method: 'POST',
    path: '/v1/vaults/{vault}/regenerate-key',
    summary: 'Replace the vault key: every server has to register again',
    reply: ok(vaultView),
    handle: (service, { params }) => service.regenerateKey(params.vault),
  }),
}
