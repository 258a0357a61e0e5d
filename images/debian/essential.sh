# Runs once Debian's essential packages are installed, before all others; $1 is the root folder.
set -eu
# Nothing starts while it is installed.
printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
# Java's packages link their manual pages there, and fail without the folder. No manual page is installed.
mkdir -p "$1/usr/share/man/man1"
