# Runs in the host machine, as root. $IMAGE is the id of its guests' image. The arguments alternate: a test program, then a
# part of the names of its tests.
set -eu
say() { echo "host machine: $*"; }

# The heartbeat tells a host machine that hangs from a test that waits. Emulated SVM hangs a host at times.
(while :; do sleep 15; say alive; done) &
heartbeat=$!

say 'taking the payload'
mkdir -p /payload
cat </dev/tcp/10.0.2.2/4321 | tar -x -C /payload
cd /payload

# On other hosts, udev and systemd do this.
modprobe -a kvm_amd tun veth nf_tables nft_masq nft_ct nft_fib_ipv4 nft_chain_nat nft_reject_ipv4
chgrp kvm /dev/kvm
chmod 660 /dev/kvm
say "Linux $(uname -r), $(qemu-system-x86_64 --version | head -n 1), kvm_amd with npt=$(cat /sys/module/kvm_amd/parameters/npt)"

# Guests with two virtual processors reset themselves here, also without dayfly. The cause is emulated SVM (docs/kvm.md).
export RUNNER_CPUS=1
export DAYFLY_STATE=/payload DAYFLY_BINARY=/payload/dayfly DAYFLY_TEST_RUNNER_APP=/payload/github-act-runner
export DAYFLY_TEST_IMAGE="$IMAGE" RUNNER_IMAGE="$IMAGE" DAYFLY_TEST_REPOSITORY=/payload NO_COLOR=1
verdict=passed
while [ $# -ge 2 ]; do
	say "$1 $2"
	# As in scripts/test: no packet can leave the network namespace.
	unshare -n sh -c 'ip link set lo up && exec "$@"' sh "tests/$1" --test-threads=1 --nocapture "$2" || verdict=failed
	shift 2
done
say "$(./dayfly template ls 2>&1)"
kill "$heartbeat"
echo "verdict=$verdict"
