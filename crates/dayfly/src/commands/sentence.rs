//! Sentences about facts that several commands print.

use dayfly_fleet::fact::MemoryOwner;

/// Returns the sentence for [`dayfly_fleet::fact::Fact::OutOfMemory`].
pub(in crate::commands) fn out_of_memory(process: &str, used_mib: u64, memory_mib: u64) -> String {
    format!(
        "the machine's memory ({memory_mib} MiB) is used up: its kernel has killed {process}, which used {used_mib} MiB; \
         give the machines more memory (--memory, or memory in the pool's table), or let the job use less"
    )
}

/// Returns the sentence for [`dayfly_fleet::fact::Fact::VmmOutOfMemory`].
pub(in crate::commands) fn vmm_out_of_memory(whose: MemoryOwner, limit_mib: Option<u64>) -> String {
    match whose {
        MemoryOwner::Machine => {
            let limit = limit_mib.map(|mib| format!(" ({mib} MiB)")).unwrap_or_default();
            format!(
                "the kernel of this host killed the machine, because it had used up the memory that it may take from this \
                 host{limit}; give the machines more memory (--memory, or memory in the pool's table)"
            )
        }
        MemoryOwner::Host => {
            "the kernel of this host killed the machine, because this host's memory was used up; run \
                              fewer or smaller machines"
                .to_owned()
        }
    }
}

/// Returns the sentence for [`dayfly_fleet::fact::Fact::DiskFailed`].
pub(in crate::commands) fn disk_failed(reason: &str) -> String {
    format!(
        "the machine's disk failed on this host: {reason}; its job gets I/O errors; is the file system of the state folder \
         full?"
    )
}
