#!/bin/sh
# Makes a disk image of a root file system, and takes out of it what boots it: make_image.sh ROOT
#
# ROOT/out gets root.img (ext4, no partitions), vmlinuz, a static busybox and modules.tar. It runs in
# a mount namespace of its own.
set -eu
root=$1

rm -rf "$root"/boot/initrd.img-* "$root"/etc/ssh/ssh_host_* "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
# The name server of QEMU's user network.
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"

# The root once more, without what is mounted in it. Nothing beside it is left, however this ends.
trap 'umount "$root.bare" 2>/dev/null; rmdir "$root.bare"; rm -f "$root.img"' EXIT
mkdir "$root.bare"
mount --bind "$root" "$root.bare"
# A guest grows it to the size of its disk. Metadata and some room to be finished in:
size_mib=$(du -sm "$root.bare" | cut -f 1)
mke2fs -q -t ext4 -L root -d "$root.bare" "$root.img" "$((size_mib * 6 / 5 + 300))M"

mkdir "$root/out"
mv "$root.img" "$root/out/root.img"
# On riscv64 it is not compressed, and has another name.
cp "$root"/boot/vmlinu[xz]-* "$root/out/vmlinuz"
cp "$root/usr/bin/busybox" "$root/out/busybox"
cd "$root"/lib/modules/*/kernel
find . \( -name 'virtio*.ko*' -o -name 'ext4.ko*' -o -name 'jbd2.ko*' -o -name 'mbcache.ko*' \
    -o -name 'crc*.ko*' -o -name 'libcrc*.ko*' \) -print >"$root/out/modules.txt"
tar -cf "$root/out/modules.tar" -T "$root/out/modules.txt"
