import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'

/** Only the public part of the file, as PEM: a private key beside it stays here (I15). PEM or DER. */
export function readCertificatePem(path: string): string {
  const bytes = readUserFile(path)
  const text = bytes.toString('latin1')
  const found = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(text)
  if (found) return `${found[0]}\n`
  // DER begins with the tag of a SEQUENCE.
  if (text.includes('-----BEGIN ') || bytes[0] !== 0x30)
    throw new HotsiteError('vault-certificate-unreadable', `${path} holds no certificate`)
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

export function readUserFile(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new HotsiteError('file-unreadable', `cannot read ${path}: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

/** The first line of the file; '' without a file. */
export function readPassword(path: string | undefined): string {
  if (path === undefined) return ''
  return readUserFile(path).toString('utf8').split(/\r?\n/, 1)[0] ?? ''
}

export interface GeneratedFiles {
  readonly certificatePem: string
  /** .cer, .pem and .pfx, each of mode 0600. */
  readonly files: readonly string[]
  remove(): void
}

interface GenerateOptions {
  readonly dir: string
  readonly vault: string
  readonly days: number
  readonly password: string
  readonly nowMs: number
}

/** Makes key and certificate here; the private key never travels. Refuses to overwrite any file. */
export async function generateCertificateFiles(options: GenerateOptions): Promise<GeneratedFiles> {
  const { dir, vault, days, password, nowMs } = options
  const base = join(dir, vault.replace(/[^A-Za-z0-9_.-]/g, '_'))
  const [cer, pem, pfx] = [`${base}.cer`, `${base}.pem`, `${base}.pfx`]
  const present = [cer, pem, pfx].find((path) => existsSync(path))
  if (present) throw new HotsiteError('file-exists', `${present} exists`)
  const { generateVaultCertificate } = await import('#shared/trust/vault-certificate-generate.ts')
  const { writeSecretFile } = await import('#shared/trust/secret-file.ts')
  const generated = await generateVaultCertificate({ subject: vault, days, nowMs })
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  writeSecretFile(cer, generated.certificatePem)
  writeSecretFile(pem, generated.certificatePem + generated.privateKeyPem)
  writeSecretFile(pfx, generated.pfx(password))
  const files = [cer, pem, pfx]
  return {
    certificatePem: generated.certificatePem,
    files,
    remove: () => {
      for (const path of files) rmSync(path, { force: true })
    },
  }
}
