# Runs last; $1 is the root folder. What is personal, or differs between two builds of the same, goes.
set -eu
root=$1
chmod 755 "$root/opt/runner"/*
chown -R 1001:1001 "$root/opt/runner"
# Which packages, in which versions: read by the builder, then removed.
chroot "$root" dpkg-query --show --showformat '${Package}\t${Version}\n' >"$root/var/tmp/packages"
# The host gives kernel and initramfs.
# Tools such as kubeadm read the configuration of the kernel there.
find "$root/boot" -mindepth 1 -maxdepth 1 ! -name "config-*" -exec rm -rf {} +
rm -rf "$root"/initrd.img* "$root"/vmlinuz*
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root"/etc/ssh/ssh_host_*
rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
: >"$root/etc/machine-id"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/aux-cache
find "$root/var/log" -type f -delete
# The public mirror, whatever this host uses.
suite=$(sed -n 's/^VERSION_CODENAME=//p' "$root/etc/os-release")
rm -f "$root"/etc/apt/sources.list.d/*
{
	printf 'deb http://deb.debian.org/debian %s main\n' "$suite" "$suite-updates"
	printf 'deb http://deb.debian.org/debian-security %s-security main\n' "$suite"
} >"$root/etc/apt/sources.list"
