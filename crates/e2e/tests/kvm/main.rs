//! Tests with KVM, on a host that has it. The host is a dayfly machine whose emulated processor has SVM with nested paging.
//!
//! ```text
//!   this host ── QEMU (emulation, `-cpu max`) ── host machine: Debian 13, kvm_amd, QEMU, dayfly, these tests
//!                                                  └── QEMU (KVM) ── guests: built-in image, forks, jobs with Docker
//! ```
//!
//! Most tests in that machine are the ordinary ones, which let dayfly choose the accelerator: dayfly chooses KVM there.
//! Tests that hold only on such a host are in `kvm_host.rs`. `make test-kvm` runs all of them; `scripts/kvm-host` prepares
//! the image and the QEMU of the host machine.

mod host_machine;

use host_machine::HostMachine;

/// The short part that every `make test` runs: the probe, a template, and a fork that runs a job.
#[tokio::test]
async fn on_a_host_with_kvm_a_template_is_built_and_a_fork_runs_a_job() {
    HostMachine::run(&["kvm_host auto_takes_kvm"]).await;
}

#[tokio::test]
#[ignore = "a quarter of an hour: `make test-kvm`, and part of `make test-full`"]
async fn on_a_host_with_kvm_all_of_a_machines_life_is_as_elsewhere() {
    HostMachine::run(&[
        "kvm_host auto_takes_emulation",
        "kvm_host a_device_that_machines_may_not_open",
        "kvm_host a_fork_answers_more_than_ten_times_sooner",
        "forks forks_of_one_template_have_nothing_personal",
        "forks a_spare_that_stood_still",
        "forks a_fork_whose_vmm_dies_before_it_answers",
        "endurance twenty_forks_in_a_row",
        "demo the_demos_own_workflow",
        "demo ctrl_c_in_the_middle",
        "demo a_machine_that_is_killed",
        "demo after_kill_9",
        "machine a_machine_reaches_and_sees",
        "runners three_runners",
    ])
    .await;
}
