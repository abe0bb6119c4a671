//! The module's allocator: Rust's own, which need not clear what WebAssembly has cleared.
//!
//! A guest's RAM is one allocation of zeros, hundreds of megabytes, of which a guest touches some tens. Rust's allocator
//! writes all those zeros, and a browser then has to keep them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::wasm32::memory_size;

/// Bytes of a page of WebAssembly's memory.
const PAGE: usize = 0x1_0000;

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

// SAFETY: all is left to `System`, whose answers are right. Memory that a module gets is zero (WebAssembly specification,
// memory.grow); of what an allocation has got anew `System` (dlmalloc) has written to nothing but what it keeps beside the
// allocation.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let end = memory_size::<0>() * PAGE;
        // SAFETY: the caller's promise; the bytes that are cleared are in the allocation.
        unsafe {
            let at = System.alloc(layout);
            if !at.is_null() {
                at.write_bytes(0, end.saturating_sub(at.addr()).min(layout.size()));
            }
            at
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}
