//! The translation look-aside buffer: linear pages to host addresses.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;

/// Entries for each of supervisor and user accesses.
const ENTRIES: usize = 4096;
/// A tag that no page-aligned address equals.
const INVALID: u32 = 1;
const PAGE_MASK: u32 = !0xfff;
/// Pages in the 4 MiB that a page-directory entry covers. They have entries in a row.
const PAGES_PER_REGION: usize = 1024;
const _: () = assert!(ENTRIES.is_multiple_of(PAGES_PER_REGION) && 2 * ENTRIES <= 1 << 16);

/// One page. An access of `n` bytes at `addr` may go ahead at `addr + addend` if the tag for its
/// kind equals the page of its *last* byte: that one comparison catches a miss and a page crossing.
///
/// The write tag stays invalid for clean pages, for pages that hold decoded code and for pages of
/// regions that were not written since a viewer looked, so that dirty bits, self-modifying code and
/// screens cost the fast path nothing.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Entry {
    read: u32,
    write: u32,
    addend: usize,
}

const EMPTY: Entry = Entry { read: INVALID, write: INVALID, addend: 0 };

/// A bit an entry.
type Bits = [u64; 2 * ENTRIES / 64];

/// What a new entry is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub linear: u32,
    /// Host address of the page's first byte.
    pub host: usize,
    pub writable: bool,
    pub user: bool,
    /// Survives a write to CR3.
    pub global: bool,
    /// Part of a 2 MiB or 4 MiB page.
    pub large: bool,
}

#[repr(C)]
pub(crate) struct Tlb {
    /// The entries in use, which are among `entries`.
    selected: Selected,
    /// Supervisor entries, user entries, and as many that never match.
    entries: Entries,
    /// What may not be empty: entries filled with pages that are not global, and with those that are.
    /// A write to CR3 costs what the first has.
    filled: [List; 2],
    global: Box<Bits>,
    large: Box<Bits>,
    /// A bit for each 4 MiB that an entry of a large page may be in.
    large_regions: Box<[u64; 1024 / 64]>,
    watched: bool,
}

/// Which entries are in use: the address of the first of ENTRIES. A number, for the compiler does not take a
/// pointer for another that equals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Selected(usize);

/// All entries. They are allocated once and reached through this pointer alone, from which that to the
/// selected ones derives.
struct Entries(NonNull<Entry>);

impl Entries {
    const COUNT: usize = 3 * ENTRIES;

    fn new() -> Self {
        let entries = Box::leak(vec![EMPTY; Self::COUNT].into_boxed_slice());
        Self(NonNull::from(entries).cast())
    }

    /// The address of entry `i`.
    fn at(&self, i: usize) -> *mut Entry {
        assert!(i < Self::COUNT, "one of the entries");
        // SAFETY: it lies inside the allocation.
        unsafe { self.0.as_ptr().add(i) }
    }

    /// The entries from `first` on.
    fn select(&self, first: usize) -> Selected {
        Selected(self.at(first).expose_provenance())
    }

    fn get(&self, i: usize) -> Entry {
        // SAFETY: the entries live as long as `self`, and nothing keeps a reference to one.
        unsafe { *self.at(i) }
    }

    fn set(&mut self, i: usize, entry: Entry) {
        // SAFETY: as in `get`.
        unsafe { *self.at(i) = entry };
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let all = std::ptr::slice_from_raw_parts_mut(self.0.as_ptr(), Self::COUNT);
        // SAFETY: `new` leaked this slice, and nothing refers to it any more.
        drop(unsafe { Box::from_raw(all) });
    }
}

/// Numbers of entries, each once.
struct List {
    numbers: Vec<u16>,
    /// What `numbers` has.
    has: Box<Bits>,
}

impl List {
    fn new() -> Self {
        Self { numbers: Vec::new(), has: Box::new([0; _]) }
    }

    fn add(&mut self, i: usize) {
        if !bit(&self.has[..], i) {
            set_bit(&mut self.has[..], i, true);
            self.numbers.push(i as u16);
        }
    }

    /// Takes all numbers out.
    fn drain(&mut self) -> impl Iterator<Item = usize> {
        let has = &mut self.has;
        self.numbers.drain(..).map(|i| {
            let i = usize::from(i);
            set_bit(&mut has[..], i, false);
            i
        })
    }
}

/// An address as the host adds it. Its upper half is zero as soon as it is computed, but the compiler forgets that at the
/// comparison with a tag, and would have it made zero once more behind that.
#[inline(always)]
fn wide(linear: u32) -> usize {
    #[allow(unused_mut)]
    let mut at = linear as usize;
    #[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
    // SAFETY: no instruction, of which the compiler knows nothing.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags));
    }
    at
}

fn index(linear: u32) -> usize {
    (linear >> 12) as usize % ENTRIES
}

fn bit(bits: &[u64], i: usize) -> bool {
    bits[i / 64] >> (i % 64) & 1 != 0
}

fn set_bit(bits: &mut [u64], i: usize, on: bool) {
    let mask = 1 << (i % 64);
    if on { bits[i / 64] |= mask } else { bits[i / 64] &= !mask }
}

impl Tlb {
    pub fn new() -> Self {
        let entries = Entries::new();
        Self {
            selected: entries.select(0),
            entries,
            filled: [List::new(), List::new()],
            global: Box::new([0; _]),
            large: Box::new([0; _]),
            large_regions: Box::new([0; _]),
            watched: false,
        }
    }

    /// Chooses whose entries are used. `watched` accesses never match, so that each goes through
    /// the slow path's checks (alignment, data breakpoints).
    pub fn select(&mut self, user: bool, watched: bool) {
        let first = if watched { 2 * ENTRIES } else { usize::from(user) * ENTRIES };
        self.watched = watched;
        self.selected = self.entries.select(first);
    }

    /// Which entries are in use.
    #[inline(always)]
    pub fn selected(&self) -> Selected {
        self.selected
    }

    /// Tells the compiler which entries are in use, so that it need not load what it has at hand.
    ///
    /// # Safety
    /// They are in use.
    #[inline(always)]
    pub unsafe fn has_selected(&self, selected: Selected) {
        // SAFETY: the caller's promise.
        unsafe { std::hint::assert_unchecked(self.selected == selected) };
    }

    #[inline(always)]
    fn entry(&self, linear: u32) -> &Entry {
        // The index times the size of an entry, with one shift.
        let offset =
            linear >> (12 - size_of::<Entry>().ilog2()) & ((ENTRIES - 1) * size_of::<Entry>()) as u32;
        // SAFETY: `selected` is the address of ENTRIES entries (only `Entries::select` makes one, and exposes its
        // provenance), which live as long as `self` and change only while it is borrowed exclusively; `offset` is that of
        // one of them.
        unsafe { &*std::ptr::with_exposed_provenance::<Entry>(self.selected.0 + offset as usize) }
    }

    /// The host address for reading `bytes` bytes.
    #[inline(always)]
    pub fn read(&self, linear: u32, bytes: u32) -> Option<usize> {
        let at = wide(linear);
        let e = self.entry(at as u32);
        (e.read == (at as u32).wrapping_add(bytes - 1) & PAGE_MASK).then(|| e.addend.wrapping_add(at))
    }

    /// The host address for reading and writing `bytes` bytes.
    #[inline(always)]
    pub fn write(&self, linear: u32, bytes: u32) -> Option<usize> {
        let at = wide(linear);
        let e = self.entry(at as u32);
        (e.write == (at as u32).wrapping_add(bytes - 1) & PAGE_MASK).then(|| e.addend.wrapping_add(at))
    }

    /// `N` bytes at an address that can be read.
    #[inline(always)]
    pub fn load<const N: usize>(&self, linear: u32) -> Option<[u8; N]> {
        let host = self.read(linear, N as u32)?;
        // SAFETY: a hit says that all bytes are inside one page of RAM, which is not freed or moved
        // while entries point to it; any bytes are a valid array.
        Some(unsafe { (host as *const [u8; N]).read() })
    }

    /// Writes `N` bytes to an address that can be written; says whether it could.
    #[inline(always)]
    pub fn store<const N: usize>(&self, linear: u32, bytes: [u8; N]) -> bool {
        let Some(host) = self.write(linear, N as u32) else { return false };
        // SAFETY: as in `load`; the write tag says that the page may be written.
        unsafe { (host as *mut [u8; N]).write(bytes) };
        true
    }

    /// As `read` or `write`, with supervisor privilege whatever is selected.
    pub fn system(&self, linear: u32, bytes: u32, write: bool) -> Option<usize> {
        if self.watched {
            return None;
        }
        let e = self.entries.get(index(linear));
        let tag = if write { e.write } else { e.read };
        (tag == linear.wrapping_add(bytes - 1) & PAGE_MASK).then(|| e.addend.wrapping_add(linear as usize))
    }

    pub fn fill(&mut self, f: Fill) {
        let i = usize::from(f.user) * ENTRIES + index(f.linear);
        let page = f.linear & PAGE_MASK;
        self.filled[usize::from(f.global)].add(i);
        let entry = Entry {
            read: page,
            write: if f.writable { page } else { INVALID },
            addend: f.host.wrapping_sub(page as usize),
        };
        self.entries.set(i, entry);
        set_bit(&mut self.global[..], i, f.global);
        set_bit(&mut self.large[..], i, f.large);
        if f.large {
            set_bit(&mut self.large_regions[..], (f.linear >> 22) as usize, true);
        }
    }

    pub fn flush_all(&mut self) {
        for list in &mut self.filled {
            for i in list.drain() {
                self.entries.set(i, EMPTY);
            }
        }
        self.large_regions.fill(0);
    }

    pub fn flush_non_global(&mut self) {
        for i in self.filled[0].drain() {
            // One that was filled again since, with a global page, is in the other list, too.
            if !bit(&self.global[..], i) {
                self.entries.set(i, EMPTY);
            }
        }
    }

    /// Forgets one page, global or not, and all parts of a large page that it may be in.
    pub fn flush_page(&mut self, linear: u32) {
        for first in [0, ENTRIES] {
            let i = first + index(linear);
            if self.entries.get(i).read == linear & PAGE_MASK {
                self.entries.set(i, EMPTY);
            }
        }
        let region = linear >> 22;
        if !bit(&self.large_regions[..], region as usize) {
            return;
        }
        for first in [0, ENTRIES] {
            let first = first + index(region << 22);
            for i in first..first + PAGES_PER_REGION {
                if bit(&self.large[..], i) && self.entries.get(i).read >> 22 == region {
                    self.entries.set(i, EMPTY);
                }
            }
        }
    }

    /// Makes every mapping of these host pages read-only: code was decoded from them, or the next
    /// write to them is to be noted or dropped.
    pub fn protect(&mut self, host: Range<usize>) {
        for &i in self.filled.iter().flat_map(|list| &list.numbers) {
            let e = self.entries.get(i.into());
            if e.write != INVALID && host.contains(&e.addend.wrapping_add(e.write as usize)) {
                self.entries.set(i.into(), Entry { write: INVALID, ..e });
            }
        }
    }

    /// Forgets every mapping of these host pages: they are no longer where they were.
    pub fn forget(&mut self, host: Range<usize>) {
        for &i in self.filled.iter().flat_map(|list| &list.numbers) {
            let e = self.entries.get(i.into());
            if e.read != INVALID && host.contains(&e.addend.wrapping_add(e.read as usize)) {
                self.entries.set(i.into(), EMPTY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(linear: u32) -> Fill {
        Fill { linear, host: 0x10_0000, writable: true, user: false, global: false, large: false }
    }

    #[test]
    fn an_access_over_the_end_of_a_page_misses() {
        let mut t = Tlb::new();
        t.fill(fill(0x5000));
        assert_eq!(t.read(0x5ffc, 4), Some(0x10_0ffc));
        assert_eq!(t.read(0x5ffd, 4), None);
        assert_eq!(t.write(0x5fff, 1), Some(0x10_0fff));
    }

    #[test]
    fn global_pages_survive_a_change_of_cr3_and_not_invlpg() {
        let mut t = Tlb::new();
        t.fill(Fill { global: true, ..fill(0x5000) });
        t.fill(fill(0x6000));
        t.flush_non_global();
        assert!(t.read(0x5000, 1).is_some() && t.read(0x6000, 1).is_none());
        t.flush_page(0x5123);
        assert!(t.read(0x5000, 1).is_none());
    }

    #[test]
    fn an_entry_filled_again_with_a_page_of_the_other_kind_is_flushed_as_that() {
        let mut t = Tlb::new();
        t.fill(fill(0x5000));
        t.fill(Fill { global: true, ..fill(0x100_5000) });
        t.flush_non_global();
        assert!(t.read(0x100_5000, 1).is_some());
        t.fill(fill(0x5000));
        t.flush_non_global();
        assert!(t.read(0x5000, 1).is_none());
        t.fill(Fill { global: true, ..fill(0x5000) });
        t.flush_all();
        assert!(t.read(0x5000, 1).is_none());
    }

    #[test]
    fn invlpg_drops_every_part_of_a_large_page() {
        let mut t = Tlb::new();
        t.fill(Fill { large: true, ..fill(0x40_5000) });
        t.flush_page(0x40_0000);
        assert!(t.read(0x40_5000, 1).is_none());
    }

    #[test]
    fn protected_and_watched_pages_miss() {
        let mut t = Tlb::new();
        t.fill(fill(0x5000));
        t.protect(0x10_0000..0x10_1000);
        assert!(t.write(0x5000, 1).is_none() && t.read(0x5000, 1).is_some());
        t.select(false, true);
        assert!(t.read(0x5000, 1).is_none());
    }
}
