#!/bin/sh
# Makes the root file system of a Debian guest from packages, in the current folder:
#   make_root.sh MODE VARIANT SUITE ARCH MIRROR HOOK
#
# The tree in `files` is laid over it. `out` gets what HOOK (make_image.sh) makes of it. MODE and
# VARIANT are mmdebstrap's; with `extract` nothing of another architecture runs here, and the root is
# finished inside of a guest.
set -eu
mode=$1 variant=$2 suite=$3 arch=$4 mirror=$5
export HOOK="$6"

case $arch in
amd64 | arm64) kernel=linux-image-cloud-$arch ;;
*) kernel=linux-image-$arch ;;
esac
packages=apt,usr-is-merged,systemd,systemd-sysv,udev,dbus,openssh-server,kmod,procps,iproute2,passwd,mount
packages=$packages,cargo,rustc,gcc,libc6-dev,ca-certificates,busybox-static,$kernel
# shellcheck disable=SC2016 # $1 and $HOOK are for the shell of the hook
case $variant in
extract)
    # A pattern of apt. It stands alone: a list after it would be a part of it.
    essential='?essential'
    when=extract # it ends there
    configure=true
    keep='--skip=cleanup/apt/cache,cleanup/apt/lists,check/qemu'
    ;;
*)
    essential=usr-is-merged
    when=customize
    configure='chroot "$1" /bin/sh /etc/orchestrator/configure.sh'
    keep='--skip=cleanup/tmp'
    ;;
esac

# shellcheck disable=SC2016 # see above
exec mmdebstrap --quiet --mode="$mode" --variant="$variant" --architectures="$arch" --format=null \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include="$essential" --include="$packages" "$keep" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --$when-hook='sync-in files /' \
    --$when-hook="$configure" \
    --$when-hook='unshare --mount /bin/sh "$HOOK" "$1"' \
    --$when-hook='sync-out /out out' \
    "$suite" - "$mirror"
