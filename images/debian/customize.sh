# Runs once all packages are installed; $1 is the root folder.
set -eu
root=$1

# --- the user that jobs run as -------------------------------------------------
chroot "$root" groupadd --gid 1001 runner
chroot "$root" useradd --uid 1001 --gid 1001 --create-home --shell /bin/bash runner
# Their groups come with their packages, which a list of one's own may leave out.
for group in docker sudo; do
	if grep -q "^$group:" "$root/etc/group"; then chroot "$root" usermod --append --groups "$group" runner; fi
done
mkdir -p "$root/etc/sudoers.d"
printf 'runner ALL=(ALL:ALL) NOPASSWD:ALL\nDefaults:runner !requiretty\n' >"$root/etc/sudoers.d/runner"
chmod 440 "$root/etc/sudoers.d/runner"

# --- the runner app, and where setup actions put tools --------------------------
mkdir -p "$root/opt/runner" "$root/opt/hostedtoolcache"
chown 1001:1001 "$root/opt/runner" "$root/opt/hostedtoolcache"

# --- what any machine has ---------------------------------------------------------
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"
printf 'LANG=C.UTF-8\nPATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n' >"$root/etc/environment"
printf 'dayfly\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 dayfly\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
printf 'nameserver 10.0.2.3\n' >"$root/etc/resolv.conf"
# Workflows call `python` and `pip` as often as their names with a version.
[ -e "$root/usr/bin/python" ] || ln -s python3 "$root/usr/bin/python"
