#!/bin/sh
# Makes the root file system of a Debian guest from packages, in the current folder:
#   HOOK=... make_root.sh MODE VARIANT SUITE ARCH MIRROR PACKAGES
#
# The tree in `files` is laid over it; `out` gets what $HOOK, the text of make_image.sh, makes of it.
# MODE and VARIANT are mmdebstrap's; with `extract` nothing of another architecture runs here, and
# the root is finished inside of a guest. PACKAGES are more ones, each with a comma before it.
set -eu
mode=$1 variant=$2 suite=$3 arch=$4 mirror=$5

case $arch in
amd64 | arm64) kernel=linux-image-cloud-$arch ;;
*) kernel=linux-image-$arch ;;
esac
packages=apt,usr-is-merged,systemd,systemd-sysv,udev,dbus,openssh-server,kmod,procps,iproute2,passwd,mount
packages=$packages,gcc,libc6-dev,ca-certificates,busybox-static,$kernel$6
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

# The RAM disk is made elsewhere: see initramfs.py.
export INITRD=No
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
    --$when-hook='unshare --mount /bin/sh -c "$HOOK" sh "$1"' \
    --$when-hook='sync-out /out out' \
    "$suite" - "$mirror"
