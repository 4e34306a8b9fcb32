/** Keys and certificates for the peers that speak TLS, under the names that QEMU and GnuTLS expect. */
import { mkdirSync } from 'node:fs'
import { runScript } from './processes.ts'

/** Answers `dir`, which then holds ca-cert, server-cert, server-key, client-cert and client-key, each .pem. */
export function makeTlsKeys(dir: string): string {
  mkdirSync(dir, { recursive: true })
  runScript(
    `cd "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bench-ca \\
      -keyout ca-key.pem -out ca-cert.pem -addext keyUsage=critical,keyCertSign,cRLSign
    for name in server client; do
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout $name-key.pem -out $name.csr
      printf '%s\\n' subjectAltName=DNS:localhost,IP:127.0.0.1 basicConstraints=CA:FALSE keyUsage=digitalSignature \\
        extendedKeyUsage=serverAuth,clientAuth >$name.ext
      openssl x509 -req -in $name.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 30 -extfile $name.ext -out $name-cert.pem
    done`,
    [dir],
  )
  return dir
}
