//! The instructions of filters of system calls, and how a process takes one on.
#![expect(unsafe_code, reason = "a filter of system calls has no safe wrapper")]

use std::io;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS, sock_filter,
};

/// Offset of the system call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of the architecture in `struct seccomp_data`.
const ARCHITECTURE: u32 = 4;
/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const X86_64: u32 = 0xC000_003E;
/// The bit in the numbers of x32, whose calls have the same architecture (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// Makes this process, and the program that replaces it, obey a filter. A process without privileges must have given up new
/// privileges before.
pub(super) fn take_on(filter: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program has the length that it says, and the kernel copies it.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the begin of a filter, which loads the number of the system call. A process that makes a call of i386 or x32 is
/// killed, because there the numbers have other meanings.
pub(super) fn begin() -> Vec<sock_filter> {
    vec![
        load(ARCHITECTURE),
        if_equal(X86_64, 1),
        answer(SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        unless_any(X32, 1),
        answer(SECCOMP_RET_KILL_PROCESS),
    ]
}

/// Loads an argument. Its lower half is enough for descriptors, ids, flags and modes, which have 32 bits.
pub(super) fn load_argument(index: u32) -> sock_filter {
    load(16 + 8 * index)
}

/// Skips so many instructions unless the loaded value is this system call's number.
pub(super) fn unless_call(call: libc::c_long, skip: u8) -> sock_filter {
    unless_equal(u32::try_from(call).unwrap_or(u32::MAX), skip)
}

/// Skips so many instructions unless the loaded value is this one.
fn unless_equal(value: u32, skip: u8) -> sock_filter {
    jump_unless(BPF_JEQ, value, skip)
}

/// Skips so many instructions unless the loaded value has any of these bits.
pub(super) fn unless_any(bits: u32, skip: u8) -> sock_filter {
    jump_unless(BPF_JSET, bits, skip)
}

/// Skips so many instructions if the loaded value is this one.
fn if_equal(value: u32, skip: u8) -> sock_filter {
    sock_filter { jt: skip, ..jump_unless(BPF_JEQ, value, 0) }
}

/// Allows the call.
pub(super) fn allow() -> sock_filter {
    answer(SECCOMP_RET_ALLOW)
}

/// Makes the call fail with this error.
pub(super) fn refuse(error: i32) -> sock_filter {
    answer(SECCOMP_RET_ERRNO | error.cast_unsigned())
}

/// Allows a call only with one of these values as the argument with this index; with others it fails with `error`.
pub(super) fn only(
    all: &mut Vec<sock_filter>,
    call: libc::c_long,
    argument: u32,
    values: &[u32],
    error: i32,
) {
    // Lists of values are short.
    let count = u8::try_from(values.len()).unwrap_or(u8::MAX);
    all.extend([unless_call(call, count + 3), load_argument(argument)]);
    let (last, others) = (values[values.len() - 1], &values[..values.len() - 1]);
    for (behind, &value) in (1..count).rev().zip(others) {
        all.push(if_equal(value, behind));
    }
    all.extend([unless_equal(last, 1), allow(), refuse(error)]);
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, offset)
}

fn jump_unless(condition: u32, value: u32, skip: u8) -> sock_filter {
    instruction(BPF_JMP | condition | BPF_K, skip, value)
}

fn answer(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, value)
}

fn instruction(code: u32, jump_false: u8, value: u32) -> sock_filter {
    // Codes are small numbers of linux/bpf_common.h.
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: jump_false, k: value }
}
