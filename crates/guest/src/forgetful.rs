//! The allocator: it overwrites memory that is freed. Registration tokens and JIT configs pass through this program, and each
//! step of it makes copies (frames, messages, files, settings, environments), which a job that is root could read in the
//! memory of agent and entrypoint long after they are gone.

#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator with memory that is overwritten when it is freed.
pub(crate) struct Forgetful;

// SAFETY: every call goes to the system's allocator with the same arguments, and the memory is written to only before it is
// freed, for its whole length. `realloc` is the trait's own, which allocates, copies and frees.
unsafe impl GlobalAlloc for Forgetful {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back memory of this layout, which no one uses any more.
        unsafe { pointer.write_bytes(0, layout.size()) };
        // The compiler would leave out writes that nothing reads before the memory is freed.
        std::hint::black_box(pointer);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.dealloc(pointer, layout) }
    }
}
