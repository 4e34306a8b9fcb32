/** The parts of an X.509 certificate (RFC 5280 §4.1) that node:crypto does not tell. */
import forge from 'node-forge'

type Asn1 = forge.asn1.Asn1

const keyUsageOid = '2.5.29.15'

/** The fields of TBSCertificate. `der` is of a certificate that node:crypto has parsed. */
export function certificateFields(der: Buffer): readonly Asn1[] {
  const certificate = forge.asn1.fromDer(forge.util.createBuffer(der.toString('binary')), true)
  return children(children(certificate)[0])
}

/** 1, 2 or 3: `[0] EXPLICIT INTEGER`, counted from zero and left out for version 1. */
export function versionOf(fields: readonly Asn1[]): number {
  const [version] = children(contextField(fields, 0))
  return version === undefined ? 1 : bytesOf(version).readUIntBE(0, 1) + 1
}

/** TLS 1.3 refuses a certificate whose key usage lacks digitalSignature; one without a key usage is free. */
export function allowsDigitalSignature(fields: readonly Asn1[]): boolean {
  const [extensions] = children(contextField(fields, 3))
  for (const extension of children(extensions)) {
    const [oid, ...rest] = children(extension)
    const content = rest.at(-1)
    if (!oid || !content || forge.asn1.derToOid(bytesOf(oid).toString('binary')) !== keyUsageOid) continue
    // A BIT STRING in DER: tag, length, count of unused bits, bits; digitalSignature is the first of them.
    return ((bytesOf(content)[3] ?? 0) & 0x80) !== 0
  }
  return true
}

function contextField(fields: readonly Asn1[], tag: number): Asn1 | undefined {
  return fields.find(
    (field) => field.tagClass === forge.asn1.Class.CONTEXT_SPECIFIC && Number(field.type) === tag,
  )
}

function children(node: Asn1 | undefined): readonly Asn1[] {
  return node && Array.isArray(node.value) ? node.value : []
}

function bytesOf(node: Asn1): Buffer {
  return typeof node.value === 'string' ? Buffer.from(node.value, 'binary') : Buffer.alloc(0)
}
