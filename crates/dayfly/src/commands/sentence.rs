//! Sentences about facts that several commands print.

/// Returns the sentence for [`dayfly_fleet::fact::Fact::OutOfMemory`].
pub(in crate::commands) fn out_of_memory(process: &str, used_mib: u64, memory_mib: u64) -> String {
    format!(
        "the machine's memory ({memory_mib} MiB) is used up: its kernel has killed {process}, which used {used_mib} MiB; \
         give the machines more memory (--memory, or memory in the pool's table), or let the job use less"
    )
}

/// Returns the sentence for [`dayfly_fleet::fact::Fact::DiskFailed`].
pub(in crate::commands) fn disk_failed(reason: &str) -> String {
    format!(
        "the machine's disk failed on this host: {reason}; its job gets I/O errors; is the file system of the state folder \
         full?"
    )
}
