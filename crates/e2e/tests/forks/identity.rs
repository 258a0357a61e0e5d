//! Tests that each fork has its own identity.

use std::time::Duration;

use dayfly_e2e::machines::Said;
use dayfly_e2e::{name_server, prepared};
use dayfly_vm::{AccelChoice, Driver, Preparing, StartedFrom, TemplateSettings};

use crate::stage;

/// Longest time that a spare may take to be created on a loaded host.
const PATIENCE: Duration = Duration::from_secs(240);

/// Prints what must differ between machines, and what may differ.
const WHO_AM_I: &str = r#"
say() { echo "$1=$2"; }
say urandom "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ')"
say uuid "$(uuidgen)"
say openssl "$(openssl rand -hex 16)"
say machine-id "$(cat /etc/machine-id)"
say hostname "$(hostname)/$(cat /etc/hostname)"
say hosts "$(grep -c "$(hostname)" /etc/hosts)"
say boot-id "$(cat /proc/sys/kernel/random/boot_id)"
ssh-keygen -q -t ed25519 -N '' -f /tmp/host-key
say ssh-key "$(ssh-keygen -lf /tmp/host-key | cut -d' ' -f2)"
say resolver "$(cat /etc/resolv.conf)"
say environment "$(env | grep -c planted)"
say docker "$(docker info --format '{{.ServerVersion}}' 2>&1)"
say clock "$(date +%s%N)"
"#;

/// Asserts that each machine has its own identity, and that no two are the same.
fn assert_personal(machines: &[(&str, Said)]) {
    for name in ["urandom", "uuid", "openssl", "machine-id", "hostname", "boot-id", "ssh-key"] {
        let mut values: Vec<_> = machines.iter().map(|(_, said)| said.value(name)).collect();
        assert!(values.iter().all(|value| value.len() >= 3), "{name}: {values:?}");
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), machines.len(), "two machines have the same {name}: {values:?}");
    }
    for (name, said) in machines {
        assert_eq!(said.value("hostname"), format!("{name}/{name}"));
        assert_eq!((said.value("hosts"), said.value("environment")), ("1", "0"));
        assert_eq!(said.value("resolver"), format!("nameserver {}", name_server("192.0.2.53")));
        assert!(said.value("docker").starts_with(|first: char| first.is_ascii_digit()), "{said:?}");
        let clock: u128 = said.value("clock").parse().expect("nanoseconds");
        assert!(clock.abs_diff(said.clock) < 2_000_000_000, "{clock} and {}", said.clock);
    }
}

#[tokio::test]
async fn forks_of_one_template_have_nothing_personal_in_common() {
    let stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default());
    let told = stage.prepare().await;
    assert!(
        told.iter().all(|what| !matches!(what, Preparing::Failed { .. } | Preparing::Cold { .. })),
        "{told:?}"
    );
    let mut machines = Vec::new();
    for name in ["one", "two"] {
        let said = stage.say(name, WHO_AM_I).await;
        assert!(matches!(&said.from[..], [StartedFrom::Fork(_)]), "{said:?}");
        machines.push((name, said));
    }
    assert_personal(&machines);
}

/// Emulated machines have no SMAP, because with the SMAP of QEMU 7.2 .NET loses its main thread at the first exception.
#[tokio::test]
async fn an_emulated_machine_has_a_processor_that_programs_of_dotnet_survive() {
    let mut stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default());
    if let Driver::Qemu(settings) = &mut stage.machine.driver {
        settings.accel = AccelChoice::Tcg;
    }
    stage.prepare().await;
    let said = stage
        .say(
            "processor",
            "echo smap=$(grep -c -w smap /proc/cpuinfo); echo sse=$(grep -c -w sse4_2 /proc/cpuinfo)",
        )
        .await;
    assert_eq!((said.value("smap"), said.value("sse")), ("0", &*stage.machine.cpus.to_string()), "{said:?}");
}

#[tokio::test]
async fn a_spare_that_stood_still_becomes_somebody_and_another_one_is_made() {
    let stage =
        stage(&prepared("DAYFLY_STATE"), TemplateSettings { spares: 1, ..TemplateSettings::default() });
    stage.prepare().await;
    let first = stage.say("first", WHO_AM_I).await;
    let spare_ready = async {
        while stage.host.spares.ready() < 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, spare_ready).await.expect("a spare");
    // Long enough to show a clock that stood still.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let second = stage.say("second", WHO_AM_I).await;
    assert!(matches!(&second.from[..], [StartedFrom::Spare(_)]), "{second:?}");
    assert_personal(&[("first", first), ("second", second)]);
    stage.host.spares.end().await;
    let left = std::fs::read_dir(stage.folder().join("spares")).expect("read").count();
    assert_eq!(left, 0, "no spare is left");
}
