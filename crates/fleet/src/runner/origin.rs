//! The lines in the log of a job about the place in which the job runs.

use dayfly_guest::origin::Origin;
use dayfly_vm::{Driver, Machine};

/// Characters of an image's id.
const ID_LENGTH: usize = 12;

/// Returns the origin of a machine. `image` is the name by which the pool knows the image, and `host` that of this host, if jobs
/// may know it.
pub(super) fn origin(machine: &Machine, name: &str, image: Option<&str>, host: Option<String>) -> Origin {
    let mut size = format!("{} CPUs, {} MiB of memory", machine.cpus, machine.memory_mib);
    let image = match &machine.driver {
        Driver::Qemu(qemu) => {
            size.push_str(&format!(", {} GiB of disk", qemu.disk_mib / 1024));
            let id: String = qemu.image.id().chars().take(ID_LENGTH).collect();
            format!("{} ({id})", image.unwrap_or(&qemu.image.manifest().suite))
        }
        Driver::PodmanKrun(krun) | Driver::Krunvm(krun) => krun.image.clone(),
        Driver::Process(_) => String::new(),
    };
    if let Driver::Process(_) = machine.driver {
        size.clear();
    }
    Origin { host, machine: name.to_owned(), size, image }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_vm::KrunSettings;

    #[test]
    fn a_machine_is_described_by_its_size_and_its_image() {
        let machine = Machine {
            cpus: 2,
            memory_mib: 2048,
            boot_limit: None,
            guest_binary: "/g".into(),
            driver: Driver::PodmanKrun(KrunSettings { image: "quay.io/acme/runner:1".to_owned() }),
        };
        let lines = origin(&machine, "GH-runner-2-k3V9x0q", None, Some("build-7".to_owned())).lines(None);
        insta::assert_snapshot!(lines.join("\n"), @r"
        Host: build-7
        Machine: GH-runner-2-k3V9x0q
        Size: 2 CPUs, 2048 MiB of memory
        Image: quay.io/acme/runner:1
        ");
    }
}
