//! Files mapped into memory: a state to be read, and RAM whose pages come from a state when they
//! are first touched.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::slice;

use env86_devices::state::{Pages, Run};
use env86_emu::memory::Backing;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::cut_off::Watch;
use super::read_exact_at;
use crate::os::Lost;

/// A mapping of some bytes, which nothing else has.
struct Mapping {
    /// Goes before the mapping goes.
    watch: Option<Watch>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference only reads the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { watch: None, start, len }
    }

    /// Lets the mapping outlive the file that it is of.
    fn watch(&mut self, lost: &Lost) -> io::Result<()> {
        let start = self.start.as_ptr() as usize;
        self.watch = Some(Watch::new(start..start + self.len.next_multiple_of(page_size()), lost)?);
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watch = None;
        // SAFETY: the mapping is ours, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A file to be read: its pages are read when they are looked at.
pub struct MappedFile(Mapping);

impl MappedFile {
    /// Maps a whole file, which must not be empty.
    ///
    /// States are never changed in place: they are replaced by new files. If somebody else cuts the file
    /// off while it is mapped, zeros are read from there on, and `lost` says so.
    pub fn open(file: &File, len: usize, lost: &Lost) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so that no other memory is affected.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut mapping = Mapping::new(start, len);
        mapping.watch(lost)?;
        Ok(Self(mapping))
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// RAM of a restored machine. Machines that are restored from the same file share its pages until
/// they write to them.
pub struct MappedRam(Mapping);

impl MappedRam {
    /// Maps the pages of a state, or says that this host cannot: its pages are larger, say. If somebody else
    /// cuts the file off, pages of it become zeros, and `lost` says so.
    pub fn new(file: &File, pages: &Pages, lost: &Lost) -> io::Result<Self> {
        let page = page_size();
        let aligned = |run: &Run| [run.address, run.offset, run.len].iter().all(|n| n.is_multiple_of(page));
        if !pages.runs.iter().all(aligned) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let len = pages.size as usize;
        let rw = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so that no other memory is affected.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, rw, MapFlags::PRIVATE | MapFlags::NORESERVE)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on dropped, if a run cannot be mapped.
        let mut ram = Self(Mapping::new(start, len));
        for run in &pages.runs {
            if run.address.checked_add(run.len).is_none_or(|end| end > len) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            // SAFETY: the place lies in the mapping that was just made, which nobody has seen yet.
            unsafe {
                let place = start.as_ptr().add(run.address).cast();
                mmap(place, run.len, rw, flags, file, run.offset as u64)?;
            }
        }
        ram.0.watch(lost)?;
        Ok(ram)
    }
}

// SAFETY: the mapping stays where it is until `self` is dropped, and nothing else refers to it.
unsafe impl Backing for MappedRam {
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable and writable, lives as long as `self`, and the borrow of
        // `self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }
}

/// Which pages of some memory the host has ever given something to hold: the others are zero, or as
/// they are in the file that they are mapped from. `None` if the host does not say.
pub fn touched(memory: &[u8]) -> Option<Vec<bool>> {
    /// Bits of an entry (Linux, admin-guide/mm/pagemap): in memory, in swap.
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const ENTRY: usize = 8;
    const PAGE: usize = 4096;
    if page_size() != PAGE {
        return None;
    }
    let pages = memory.len() / PAGE;
    let first = memory.as_ptr() as usize / PAGE;
    // Memory that does not begin with a page reaches into one more.
    let entries = pages + usize::from(!(memory.as_ptr() as usize).is_multiple_of(PAGE));
    let mut raw = vec![0; entries * ENTRY];
    let file = File::open("/proc/self/pagemap").ok()?;
    read_exact_at(&file, &mut raw, (first * ENTRY) as u64).ok()?;
    let touched: Vec<bool> = (raw.chunks_exact(ENTRY))
        .map(|entry| u64::from_le_bytes(entry.try_into().unwrap_or([0xff; ENTRY])) & (PRESENT | SWAPPED) != 0)
        .collect();
    Some(
        (0..pages)
            .map(|page| touched[page] || touched.get(page + 1).is_some_and(|t| *t && entries > pages))
            .collect(),
    )
}
