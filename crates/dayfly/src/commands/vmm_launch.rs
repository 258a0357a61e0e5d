//! `dayfly vmm-launch FD` (internal): prepares a process and then executes the VMM in it.

use std::process::ExitCode;

pub(crate) fn run(fd: i32) -> ExitCode {
    dayfly_vm::launch::main(fd)
}
