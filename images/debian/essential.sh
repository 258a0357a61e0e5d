# Runs once Debian's essential packages are installed, before all others; $1 is the root folder.
set -eu
# Nothing starts while it is installed.
printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
