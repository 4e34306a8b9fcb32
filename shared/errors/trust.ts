import type { ErrorEntry } from './table.ts'

export const trustErrors = {
  'tls-identity-incomplete': {
    cause:
      'The key file of the TLS certificate was deleted or not restored with the rest of the data folder.',
    action: 'Restore the key file, or delete the certificate too and register the server again.',
    retryable: false,
  },
  'signature-invalid': {
    cause:
      'The document was altered, or was signed by another key: another vault, or the vault key of an earlier generation.',
    action: 'Register the server again with current credentials of the right vault.',
    retryable: false,
  },
  'membership-invalid': {
    cause: 'The membership is not one that a vault issued to this kind of server.',
    action: 'Register the server again with current credentials of the vault.',
    retryable: false,
  },
  'membership-wrong-vault': {
    cause: 'The server is registered in another vault.',
    action: 'Register it in this vault, or connect it to the servers of its own.',
    retryable: false,
  },
  'membership-expired': {
    cause: 'The membership ran out, or the clock of one of the two servers is wrong.',
    action: 'Compare the clocks; if they are right, register the server again.',
    retryable: false,
  },
  'membership-revoked': {
    cause: 'The server was removed from the vault.',
    action: 'Register it again if it should come back.',
    retryable: false,
  },
  'membership-generation': {
    cause: 'The vault key was regenerated after the membership was issued.',
    action: 'Register the server again with credentials made since.',
    retryable: false,
  },
  'ticket-invalid': {
    cause: 'The ticket is for another VM, epoch, source or target than this request.',
    action:
      'Nothing if it happens once: the coordinator issues a new one. Otherwise look at the state of the VM.',
    retryable: true,
  },
  'ticket-expired': {
    cause: 'The coordinator has not renewed the permission to replicate, or a clock is wrong.',
    action: 'Bring the coordinator back and compare the clocks; replication then goes on by itself.',
    retryable: true,
  },
  'manifest-invalid': {
    cause: 'The description of a recovery point is altered, or was not signed by the source that sent it.',
    action: 'The delta is sent again by itself; if it repeats, look for two servers with one identity.',
    retryable: true,
  },
  'vault-certificate-unreadable': {
    cause:
      'The file is not a certificate: a private key, a .pfx, a certificate request or something else was given.',
    action:
      'Give the .cer file of the vault certificate (PEM or DER), or have one generated with `--generate-certificate DIR`.',
    retryable: false,
  },
  'vault-certificate-not-v3': {
    cause: 'The certificate was made by a tool that writes the old X.509 form without extensions.',
    action: 'Make an X.509 version 3 certificate with the extended key usage Client Authentication.',
    retryable: false,
  },
  'vault-certificate-key-weak': {
    cause: 'The key of the certificate is too small to be safe.',
    action: 'Make a certificate with an RSA key of 2048 bit or more, or an EC key on P-256, P-384 or P-521.',
    retryable: false,
  },
  'vault-certificate-key-type': {
    cause:
      'TLS client authentication with this kind of key is not supported by every server that has to register.',
    action: 'Make a certificate with an RSA key of 2048 bit or more, or an EC key on P-256, P-384 or P-521.',
    retryable: false,
  },
  'vault-certificate-no-client-auth': {
    cause: 'The certificate was made for another use, a web server for instance.',
    action: 'Make a certificate with the extended key usage Client Authentication (1.3.6.1.5.5.7.3.2).',
    retryable: false,
  },
  'vault-certificate-key-usage': {
    cause:
      'The certificate limits its key to uses without digital signatures, and TLS 1.3 client authentication is one.',
    action: 'Make a certificate whose key usage contains digitalSignature, or one without a key usage.',
    retryable: false,
  },
  'vault-certificate-not-yet-valid': {
    cause: 'The certificate starts in the future, or the clock of this machine is behind.',
    action: 'Compare the clock with the start of validity; wait, or make a certificate that is valid now.',
    retryable: false,
  },
  'vault-certificate-expired': {
    cause: 'The certificate ran out, or the clock of this machine is ahead.',
    action: 'Make a new vault certificate and upload it; servers that are registered already stay so.',
    retryable: false,
  },
  'vault-certificate-validity-too-long': {
    cause:
      'Vault certificates may be valid for three years at most, so that a lost key does not open the vault for ever.',
    action: 'Make a certificate with a total validity of three years or less (1095 days).',
    retryable: false,
  },
  'vault-certificate-missing': {
    cause: 'No certificate was uploaded to the vault, so no server could prove that it may register.',
    action:
      'Upload one with "hotsite vault set-certificate VAULT --certificate FILE", then make the credentials file.',
    retryable: false,
  },
  'vault-key-missing': {
    cause: 'The key file of the vault was removed, or the coordinator runs on another data folder.',
    action:
      'Restore the folder vaults/ of the data folder from its backup; "hotsite vault regenerate-key" makes a new key, after which every server registers again.',
    retryable: false,
  },
  'secret-file-exposed': {
    cause: 'A file with a secret key can be read by other users of this machine.',
    action:
      'Find out who may have read it, then run `chmod 600` on it; if in doubt register the server again, or regenerate the vault key.',
    retryable: false,
  },
  'secret-file-damaged': {
    cause: 'The file was edited, or is not the kind of file this program wrote there.',
    action:
      'Restore it from a backup, or make it anew: register the server again, or regenerate the vault key.',
    retryable: false,
  },
  'key-pair-unreadable': {
    cause:
      'The file is not a .pfx or .pem with the certificate and its private key, or the password is wrong.',
    action:
      'Give the .pfx (with its password) or .pem that was made with the vault certificate, not the .cer alone.',
    retryable: false,
  },
  'key-pair-mismatch': {
    cause: 'The certificate and the private key in the file do not belong together.',
    action: 'Export the vault certificate together with its own private key.',
    retryable: false,
  },
  'credentials-not-a-credentials-file': {
    cause: 'Another file was given, or the file was cut off while it was copied.',
    action: 'Give the file that "hotsite vault credentials" wrote, or make a new one.',
    retryable: false,
  },
  'credentials-version-unknown': {
    cause: 'The coordinator that made the file is of another version than this program.',
    action: 'Install the version of the coordinator on this server, then register.',
    retryable: false,
  },
  'credentials-altered': {
    cause: 'The file was edited or damaged after the vault signed it.',
    action: 'Make a new file with "hotsite vault credentials" and copy it unchanged.',
    retryable: false,
  },
  'credentials-expired': {
    cause: 'Registration files are valid for five days.',
    action: 'Make a new file with "hotsite vault credentials" and use it within five days.',
    retryable: false,
  },
  'credentials-generation': {
    cause: 'The vault key was regenerated after the registration file was made.',
    action: 'Make a new file with "hotsite vault credentials".',
    retryable: false,
  },
  'clock-skew': {
    cause: 'The clock of this server and the clock of the coordinator differ too much.',
    action: 'Set both clocks (NTP), then repeat the command.',
    retryable: true,
  },
  'not-registered': {
    cause:
      'This server has no identity yet, or the daemon runs on another data folder than the one it was registered for.',
    action:
      'Run "hotsite register --kind provider|agent --config FILE --credentials FILE --certificate FILE" on this server, with the configuration of the daemon.',
    retryable: false,
  },
  'already-registered': {
    cause: 'The data folder holds the identity of an earlier registration.',
    action:
      'Nothing, if it works. If it was removed from the vault, or is to join another, repeat with --replace: it gets a new identity, and a server of its name that is still registered is revoked.',
    retryable: false,
  },
  'server-name-taken': {
    cause:
      'A server of this name and kind is registered in the vault: this one, before its data folder was lost, or another.',
    action:
      'Choose another name, or repeat with --replace if the registered one is gone; it is then revoked.',
    retryable: false,
  },
  'coordinator-unreachable': {
    cause:
      'The coordinator is down, the registration port is closed by a firewall, or the address in the registration file is wrong from here.',
    action:
      'Check that the coordinator runs and that the address in the message can be reached from this server.',
    retryable: true,
  },
  'coordinator-certificate-mismatch': {
    cause:
      'Another machine answers at the address of the coordinator, or the coordinator was given a new TLS certificate.',
    action:
      'Make a new registration file; if the coordinator was not changed, find out who answers at that address.',
    retryable: false,
  },
  'registration-certificate-refused': {
    cause:
      'The certificate given is not the one registered in the vault, or it was replaced or ran out since.',
    action:
      'Use the .pfx or .pem of the present vault certificate; "hotsite vault show" tells its thumbprint.',
    retryable: false,
  },
  'registration-vault-unknown': {
    cause: 'The vault was deleted, or the coordinator is another one than the one that made the file.',
    action: 'Make a new registration file on the coordinator of the vault.',
    retryable: false,
  },
  'registration-token-invalid': {
    cause: 'The registration token was not issued by this vault.',
    action: 'Make a new file with "hotsite vault credentials".',
    retryable: false,
  },
  'registration-proof-invalid': {
    cause:
      'The request was relayed or altered on its way: it is not signed for this connection by the key it brings.',
    action:
      'Register again; if it repeats, look for a proxy that opens TLS between this server and the coordinator.',
    retryable: true,
  },
  'registration-rate-limited': {
    cause: 'Too many registrations from this address failed within the last minute.',
    action: 'Correct what the earlier errors said, wait a minute and try again.',
    retryable: true,
  },
  'registration-port-unavailable': {
    cause: 'Another program listens on the registration port, or the address is not one of this machine.',
    action: 'Choose another port or address for registration in the configuration of the coordinator.',
    retryable: false,
  },
  'registration-reply-invalid': {
    cause:
      'The coordinator is of another version than this program, or something between the two answers for it.',
    action: 'Install the version of the coordinator on this server, then register again.',
    retryable: false,
  },
} as const satisfies Record<string, ErrorEntry>
