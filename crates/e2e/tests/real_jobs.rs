//! Tests of jobs that ask much of their machine: a node of a cluster in a container, a process that uses up the memory, a way
//! to the world through a proxy.

use dayfly_e2e::Dayfly;
use dayfly_e2e::lab::LabProcess;

/// A job with a container like the nodes that kind makes: privileged, with control groups and mounts of its own.
const NODE: &str = r#"
on: workflow_dispatch
jobs:
  node:
    runs-on: self-hosted
    steps:
      - name: an image out of the machine's own files
        run: |
          mkdir -p root/bin root/tmp root/var root/run
          for program in bash cat grep ls mkdir mknod mount sleep touch; do cp -L "$(type -P "$program")" root/bin/; done
          ldd root/bin/* | grep -oE '/(usr/)?lib[^ )]+' | sort -u | xargs cp --parents -L -t root
          tar -C root -c . | docker import - mini
      - name: a node
        run: |
          docker run --detach --name node --hostname node --privileged --cgroupns private --security-opt seccomp=unconfined \
            --tmpfs /tmp --tmpfs /run --volume /var --volume /lib/modules:/lib/modules:ro mini bash -c 'sleep 600'
      - name: its own wants
        run: |
          cat >wants <<'WANTS'
          set -e
          echo "modules of $(ls /lib/modules)"
          [ -c /dev/kmsg ] && echo "a log of the kernel"
          cd /sys/fs/cgroup
          mkdir init kubelet
          processes=$(cat cgroup.procs)
          for process in $processes; do echo "$process" >init/cgroup.procs || true; done 2>/tmp/gone
          for controller in cpu cpuset memory pids; do echo "+$controller" >cgroup.subtree_control; done
          echo 20M >kubelet/memory.max
          echo "a limit of $(cat kubelet/memory.max)"
          cd /var
          mkdir lower upper work merged
          mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
          touch merged/file
          mount --make-rshared /
          mknod null c 1 3
          echo x >null
          echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
          echo "an overlay with $(ls upper)"
          WANTS
          docker exec --interactive node bash <wants
          echo "the machine runs $(uname -r)"
      - name: what a user of the network may do
        run: |
          answers() { ping "$1" -qc1 -W9 "$2" | grep -c ' 0% packet loss'; }
          echo "answers to ping $(answers -4 127.0.0.1) and $(answers -6 ::1)"
          sudo nft add table inet t
          echo "tables $(sudo nft list tables | grep -c 'inet t$')"
      - name: limits of memory and swap, and a network of a swarm
        run: |
          limit=/sys/fs/cgroup/memory
          docker run --rm --memory 64m --memory-swap 96m mini bash -c "echo limits of \$(cat $limit.max) and \$(cat $limit.swap.max)"
          docker swarm init --advertise-addr 127.0.0.1 >swarm.log
          docker network create --driver overlay --attachable mesh >network.log
          docker run --rm --network mesh mini bash -c 'echo "interfaces of $(ls /sys/class/net | grep -c eth)"'
"#;

#[test]
fn a_node_as_kind_makes_one_has_all_that_it_wants() {
    let ended = Dayfly::demo(NODE, []).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("node");
    for expected in [
        "a log of the kernel",
        "a limit of 20971520",
        "an overlay with file",
        "answers to ping 1 and 1",
        "tables 1",
        "limits of 67108864 and 33554432",
        "interfaces of 2",
    ] {
        assert!(log.lines().any(|line| line == expected), "no line \"{expected}\" in:\n{log}");
    }
    let release = |before: &str| log.lines().find_map(|line| line.strip_prefix(before)).expect("a release");
    assert_eq!(release("modules of "), release("the machine runs "));
}

const HOG: &str = "
on: workflow_dispatch
jobs:
  hog:
    runs-on: self-hosted
    steps:
      # The flags are MAP_PRIVATE, MAP_ANONYMOUS and MAP_POPULATE.
      - run: python3 -c 'import mmap; [mmap.mmap(-1, 1 << 26, flags=0x8022) for _ in range(16)]'
        continue-on-error: true
      - { run: 'docker version --format \"Docker {{ .Server.Version }} still answers\"' }
";

#[test]
fn a_process_that_uses_up_the_memory_is_named_in_the_log_and_nothing_else_dies() {
    let ended = Dayfly::demo(HOG, ["--cold", "--memory", "600"]).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("hog");
    assert!(log.contains("still answers"), "{log}");
    let told = log.lines().find(|line| line.starts_with("dayfly: this machine's memory (")).expect("a line");
    assert!(told.contains("the kernel has killed python3 (process "), "{told}");
    let events = ended.events_of("runner");
    let facts: Vec<_> = events.iter().filter(|event| event["what"] == "out_of_memory").collect();
    assert_eq!(facts.len(), 1, "{facts:?}");
    let details = &facts[0]["details"];
    let mib = |key: &str| details[key].as_u64().expect("a number");
    assert_eq!(details["process"], "python3");
    assert!((200..mib("memory_mib")).contains(&mib("used_mib")) && mib("memory_mib") < 600, "{details}");
}

/// Prints the places in which programs look for proxies and authorities.
const WAY_OUT: &str = r#"
on: push
jobs:
  look:
    runs-on: [self-hosted, outside]
    steps:
      - run: |
          echo "proxies $https_proxy $HTTPS_PROXY $http_proxy without $no_proxy"
          echo "docker $(jq -r .proxies.default.httpsProxy ~/.docker/config.json) for $(stat -c %U ~/.docker/config.json)"
          docker version >docker.log
          echo daemon $(sudo cat /proc/$(pidof dockerd)/environ | tr '\0' '\n' | grep -i _proxy= | LC_ALL=C sort)
          line=$(sed -n 2p "$NODE_EXTRA_CA_CERTS")
          echo "bundle $(grep -cF "$line" /etc/ssl/certs/ca-certificates.crt)"
          sudo update-ca-certificates >update.log 2>&1
          grep -qF "$line" /etc/ssl/certs/ca-certificates.crt && echo "still there"
"#;

#[tokio::test]
async fn proxies_and_authorities_of_the_users_own_are_where_programs_look_for_them() {
    let lab = LabProcess::start();
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("ca.pem");
    // One of this host's authorities, which a machine of this distribution trusts already.
    let bundle =
        std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").expect("this host's authorities");
    let (first, _) = bundle.split_once("-----END CERTIFICATE-----").expect("a certificate");
    std::fs::write(&authority, format!("{first}-----END CERTIFICATE-----\n")).expect("written");
    let run = lab.dispatch(WAY_OUT).await;
    let runner = lab
        .runner_command(["-r", "1", "-L", "outside", "--ca-file", &authority.display().to_string()])
        .env("RUNNER_HTTP_PROXY", "http://198.51.100.7:3128")
        .env("RUNNER_HTTPS_PROXY", "198.51.100.7:3129")
        .env("RUNNER_NO_PROXY", ".example")
        .start();
    // The runner app reaches the lab without the proxy, which is not there.
    assert_eq!(lab.conclusion_of(run).await, "success");
    let log = lab.logs_of(run).await.remove(0).1;
    for expected in [
        "proxies 198.51.100.7:3129 198.51.100.7:3129 http://198.51.100.7:3128 without .example,10.0.2.2",
        "docker 198.51.100.7:3129 for runner",
        "daemon HTTPS_PROXY=198.51.100.7:3129 HTTP_PROXY=http://198.51.100.7:3128 NO_PROXY=.example,10.0.2.2 \
         http_proxy=http://198.51.100.7:3128 https_proxy=198.51.100.7:3129 no_proxy=.example,10.0.2.2",
        "bundle 2",
        "still there",
    ] {
        assert!(log.lines().any(|line| line.ends_with(expected)), "no \"{expected}\" in:\n{log}");
    }
    runner.wait().assert_status(0).assert_nothing_left();
    lab.stop();
}
