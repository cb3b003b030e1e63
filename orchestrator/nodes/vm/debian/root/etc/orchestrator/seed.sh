#!/bin/sh
# Takes over the keys of this guest from its seed, a small FAT disk: they are not in the image.
set -eu
umask 077
seed=/run/orchestrator-seed
mkdir -p "$seed"
# Not by udev's name for it: emulated, udev may need minutes until it has seen all devices.
tries=0
until device=$(blkid -L SEED); do
    [ "$tries" -lt 60 ] || exit 1
    tries=$((tries + 1))
    sleep 1
done
mount -t vfat -o ro,umask=077 "$device" "$seed"
install -m 600 "$seed/ssh_host_ed25519_key" /etc/ssh/
install -m 644 "$seed/ssh_host_ed25519_key.pub" /etc/ssh/
install -d -m 700 /root/.ssh
install -m 600 "$seed/authorized_keys" /root/.ssh/
user=$(tr -cd 'a-z0-9_-' <"$seed/user")
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --password '*' "$user"
home=$(getent passwd "$user" | cut -d : -f 6)
install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
install -m 600 -o "$user" -g "$user" "$seed/authorized_keys" "$home/.ssh/"
tr -cd 'A-Za-z0-9-' <"$seed/hostname" >/etc/hostname
hostname -F /etc/hostname
umount "$seed"
