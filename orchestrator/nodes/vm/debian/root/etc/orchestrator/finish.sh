#!/bin/sh
# Installs the packages that were only extracted, inside of the guest whose root they are.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
# The RAM disk is there already, and making another one takes minutes.
export INITRD=No
# The tools of each step must work before the next one: first what is essential, as on a new system.
cd /var/cache/apt/archives
# No daemon may start in here, and there is nobody to ask.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
essential='' others=''
for package in *.deb; do
    case $(dpkg-deb --field "$package" Essential) in
    yes) essential="$essential $package" ;;
    *) others="$others $package" ;;
    esac
done
[ -e /etc/passwd ] || cp /usr/share/base-passwd/passwd.master /etc/passwd
[ -e /etc/group ] || cp /usr/share/base-passwd/group.master /etc/group
touch /etc/shells
dpkg --force-depends --force-unsafe-io --install base-passwd_*.deb
# shellcheck disable=SC2086 # one word for each
dpkg --force-depends --force-unsafe-io --install $essential
# shellcheck disable=SC2086 # as above
dpkg --force-depends --force-unsafe-io --unpack $others
dpkg --force-unsafe-io --configure --pending
rm -f ./*.deb /usr/sbin/policy-rc.d
/bin/sh /etc/orchestrator/configure.sh
