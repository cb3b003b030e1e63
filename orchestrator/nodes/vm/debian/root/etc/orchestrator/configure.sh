#!/bin/sh
# Sets up an installed Debian root as a guest that builds; runs inside of it, before its first boot.
set -eu
id builder >/dev/null 2>&1 || useradd --create-home --shell /bin/bash builder
# `*`: no password opens it, and a key does.
usermod --password '*' root
usermod --password '*' builder
systemctl --quiet enable systemd-networkd.service orchestrator-seed.service ssh.service
systemctl --quiet disable systemd-timesyncd.service 2>/dev/null || true
# Nothing else shall wake up during a build, or write to the disk.
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-networkd-wait-online.service
rm -f /etc/ssh/ssh_host_* /etc/orchestrator/unfinished
