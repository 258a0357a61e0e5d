//! `dayfly vmm-launch FD` (internal): what a VMM's process runs before it becomes the VMM.

use std::process::ExitCode;

pub(crate) fn run(fd: i32) -> ExitCode {
    dayfly_vm::launch::main(fd)
}
