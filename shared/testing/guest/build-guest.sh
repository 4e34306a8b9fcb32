#!/usr/bin/env bash
# Makes a small Linux guest from Debian's own packages: build-guest.sh FOLDER writes FOLDER/vmlinuz and FOLDER/initrd.gz.
# Kernel and busybox are downloaded and unpacked, never installed. What the guest does is in guest-init.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?usage: build-guest.sh FOLDER}
mkdir -p "$out"
# What was built from these very files is still right.
stamp=$(cat "$here/guest-init" "${BASH_SOURCE[0]}" | cksum)
[ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
work=$(mktemp -d "$out/build.XXXXXX") && trap 'rm -rf "$work"' EXIT

cd "$work"
download() {
  local kernel
  kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: *//p' | head -n 1)
  [ -n "$kernel" ] && apt-get download -qq "$kernel" busybox-static >/dev/null 2>&1
}
download || { apt-get update -qq >/dev/null 2>&1; download; } ||
  { echo 'The packages linux-image-cloud-amd64 and busybox-static cannot be downloaded: run apt-get update as root, and look at the network.' >&2; exit 1; }
for deb in *.deb; do dpkg-deb -x "$deb" unpacked; done

root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,modules}
cp unpacked/bin/busybox "$root/bin/busybox" 2>/dev/null || cp unpacked/usr/bin/busybox "$root/bin/busybox"
# In the order in which they need each other.
i=0
for module in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci block/virtio_blk; do
  cp unpacked/lib/modules/*/kernel/drivers/$module.ko "$root/modules/$((i++))-$(basename $module).ko"
done
install -m 755 "$here/guest-init" "$root/init"

(cd "$root" && find . | ./bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$out/initrd.new"
cp unpacked/boot/vmlinuz-* "$out/vmlinuz.new"
mv "$out/vmlinuz.new" "$out/vmlinuz"
mv "$out/initrd.new" "$out/initrd.gz"
printf '%s\n' "$stamp" >"$out/stamp"
