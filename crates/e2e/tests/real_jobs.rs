//! Tests of jobs that ask much of their machine: a node of a cluster in a container, and a process that uses up the memory.

use dayfly_e2e::Dayfly;

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
          for program in bash cat ls mkdir mknod mount sleep touch; do cp -L "$(type -P "$program")" root/bin/; done
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
          while read process; do echo "$process" >init/cgroup.procs; done <cgroup.procs
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
"#;

#[test]
fn a_node_as_kind_makes_one_has_all_that_it_wants() {
    let ended = Dayfly::demo(NODE, []).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("node");
    for expected in ["a log of the kernel", "a limit of 20971520", "an overlay with file"] {
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
      - { run: tail /dev/zero, continue-on-error: true }
      - { run: 'docker version --format \"Docker {{ .Server.Version }} still answers\"' }
";

#[test]
fn a_process_that_uses_up_the_memory_is_named_in_the_log_and_nothing_else_dies() {
    let ended = Dayfly::demo(HOG, ["--cold", "--memory", "600"]).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("hog");
    assert!(log.contains("still answers"), "{log}");
    let told = log.lines().find(|line| line.starts_with("dayfly: this machine's memory (")).expect("a line");
    assert!(told.contains("the kernel has killed tail (process "), "{told}");
    let events = ended.events_of("runner");
    let facts: Vec<_> = events.iter().filter(|event| event["what"] == "out_of_memory").collect();
    assert_eq!(facts.len(), 1, "{facts:?}");
    let details = &facts[0]["details"];
    let mib = |key: &str| details[key].as_u64().expect("a number");
    assert_eq!(details["process"], "tail");
    assert!((200..mib("memory_mib")).contains(&mib("used_mib")) && mib("memory_mib") < 600, "{details}");
}
