#!/usr/bin/env bash
# Makes a small Linux guest from Debian's own packages: build-guest.sh FOLDER writes FOLDER/vmlinuz and FOLDER/initrd.gz.
# Kernel, busybox, QEMU's guest agent and SQLite are downloaded and unpacked, never installed. What it does is in guest-init.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?usage: build-guest.sh FOLDER}
mkdir -p "$out"
# What was built from these very files is still right.
stamp=$(cat "$here/guest-init" "${BASH_SOURCE[0]}" | cksum)
[ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
work=$(mktemp -d "$out/build.XXXXXX") && trap 'rm -rf "$work"' EXIT
programs='qemu-guest-agent sqlite3'

# The programs and the libraries they need, and nothing else of what Debian would install with them.
packages() {
  apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: *//p' | head -n 1
  echo busybox-static
  # shellcheck disable=SC2086
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    $programs | grep -E '^(lib|zlib|qemu-guest-agent$|sqlite3$)' | grep -v perl | sort -u
}
download() {
  local wanted
  wanted=$(packages)
  [ "$(wc -l <<<"$wanted")" -gt 10 ] && apt-get download -qq $wanted >/dev/null 2>&1
}
cd "$work"
download || { apt-get update -qq >/dev/null 2>&1; download; } ||
  { echo "The packages linux-image-cloud-amd64, busybox-static, $programs cannot be downloaded: run apt-get update as root, and look at the network." >&2; exit 1; }
for deb in *.deb; do dpkg-deb -x "$deb" unpacked; done

root=$work/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,etc,modules,lib64,lib,first,second}

cp "$(find unpacked -path "*bin/busybox" -print -quit)" "$root/bin/busybox"
loader=$(find unpacked -name ld-linux-x86-64.so.2 -print -quit)
libraries=$(find unpacked -type d -path '*/lib/x86_64-linux-gnu' -printf '%p:')
cp -L "$loader" "$root/lib64/ld-linux-x86-64.so.2"
for program in qemu-ga sqlite3; do
  binary=$(find unpacked -path "*bin/$program" -print -quit)
  cp "$binary" "$root/bin/$program"
  # Only what it loads: "libz.so.1 => unpacked/…/libz.so.1 (0x…)".
  "$loader" --library-path "$libraries" --list "$binary" | sed -n 's/.* => \(.*\) (0x.*/\1/p' |
    while read -r library; do cp -Ln "$library" "$root/lib/" || true; done
done
# In the order in which they need each other.
i=0
for module in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci \
  block/virtio_blk char/virtio_console; do
  cp unpacked/lib/modules/*/kernel/drivers/$module.ko "$root/modules/$((i++))-$(basename $module).ko"
done
install -m 755 "$here/guest-init" "$root/init"
# What QEMU's guest agent calls to shut down.
printf '#!/bin/sh\nexec /init shutdown\n' >"$root/sbin/shutdown"
chmod 755 "$root/sbin/shutdown"

(cd "$root" && find . | ./bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$out/initrd.new"
cp unpacked/boot/vmlinuz-* "$out/vmlinuz.new"
mv "$out/vmlinuz.new" "$out/vmlinuz"
mv "$out/initrd.new" "$out/initrd.gz"
printf '%s\n' "$stamp" >"$out/stamp"
