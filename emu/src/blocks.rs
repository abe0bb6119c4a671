//! The block cache: decoded code by physical address and mode.
//!
//! Uops live in an arena and stay where they are until the whole cache is emptied, which happens
//! only between blocks. A block whose code was written is taken out of the index and its first
//! uop becomes an exit; links that lead to it need not be found. When the same code is decoded
//! again, that first uop becomes a jump to the new block.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::ManuallyDrop;

use crate::Cpu;
use crate::dispatch::{Extent, Handler, Header, Link, Run, Slot, Uop, forward, stale};

/// Uops in an arena chunk.
const CHUNK: usize = 16 << 10;
/// Chunks before the cache is emptied: 12 MiB of uops.
const MAX_CHUNKS: usize = 32;
/// Bytes of code per bit in a page's map.
const LINE: u32 = 64;

#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// First uop (a guard, if the block has one).
    pub entry: *mut Uop,
    /// Offset of the first byte in memory, and the mode above bit 32.
    key: u64,
    /// Bytes of code.
    pub len: u32,
    /// The page of memory after the first, if the code runs into one.
    pub page2: Option<u32>,
    valid: bool,
}

#[derive(Default)]
struct PageBlocks {
    blocks: Vec<u32>,
    /// Bit i: a block has code in the page's i-th [`LINE`].
    lines: u64,
}

#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(b.into());
        }
    }
    fn write_u32(&mut self, v: u32) {
        self.write_u64(v.into());
    }
    fn write_u64(&mut self, v: u64) {
        let x = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ (x >> 29);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

#[derive(Default)]
pub(crate) struct Blocks {
    chunks: Vec<Vec<Slot>>,
    blocks: Vec<Block>,
    index: Map<u64, u32>,
    /// First uops of invalidated blocks, to be forwarded when their code is decoded again.
    stale: Map<u64, *mut Uop>,
    pages: Map<u32, PageBlocks>,
}

fn key(physical: u32, mode: u32) -> u64 {
    u64::from(mode) << 32 | u64::from(physical)
}

/// The lines of a page that `len` bytes from `offset` on touch, clipped to the page.
fn line_mask(offset: u32, len: u32) -> u64 {
    let first = (offset & 0xfff) / LINE;
    let last = ((offset & 0xfff) + len - 1).min(0xfff) / LINE;
    (first..=last).fold(0, |m, i| m | 1 << i)
}

impl Blocks {
    pub fn find(&self, physical: u32, mode: u32) -> Option<&Block> {
        self.index.get(&key(physical, mode)).map(|&i| &self.blocks[i as usize])
    }

    /// Whether `uops` more uops need the cache emptied first.
    pub fn is_full(&self, uops: usize) -> bool {
        self.chunks.len() >= MAX_CHUNKS && !self.fits(uops)
    }

    fn fits(&self, uops: usize) -> bool {
        self.chunks.last().is_some_and(|c| c.capacity() - c.len() >= uops)
    }

    /// Forgets everything. No uop may be executing, and the caller drops all pointers to uops that
    /// it holds. Gives the pages that had code.
    pub fn clear(&mut self) -> Vec<u32> {
        let pages = self.pages.keys().copied().collect();
        *self = Self::default();
        pages
    }

    /// Adds a block: its uops (guard first), link slots included, laid out behind a header.
    /// Self-referring link slots are made to refer to themselves where they now are.
    pub fn insert(
        &mut self,
        physical: u32,
        mode: u32,
        len: u32,
        page2: Option<u32>,
        host_page: usize,
        uops: &[Uop],
        links: u128,
    ) -> *mut Uop {
        if !self.fits(uops.len() + 1) {
            self.chunks.push(Vec::with_capacity(CHUNK.max(uops.len() + 1)));
        }
        let id = self.blocks.len() as u32;
        let Some(chunk) = self.chunks.last_mut() else { unreachable!("a chunk was just made") };
        let start = chunk.len();
        chunk.push(Slot { header: Header { code: host_page + (physical & 0xfff) as usize, block: id } });
        chunk.extend(uops.iter().map(|u| Slot { uop: ManuallyDrop::new(u.clone()) }));
        let base = chunk.as_mut_ptr().cast::<Uop>();
        // SAFETY: `start + 1` is inside the chunk, which never grows beyond its capacity and so
        // never moves.
        let entry = unsafe { base.add(start + 1) };
        // SAFETY: `links` are the link slots among the uops just copied.
        unsafe { init_links(entry, links) };
        let k = key(physical, mode);
        self.blocks.push(Block { entry, key: k, len, page2, valid: true });
        self.index.insert(k, id);
        if let Some(old) = self.stale.remove(&k) {
            let link = Link { run: Run::new(forward), target: entry, dest: entry };
            // SAFETY: uops stay allocated until `clear`, which also empties `stale`.
            unsafe { old.cast::<Link>().write(link) };
        }
        let page = self.pages.entry(physical >> 12).or_default();
        page.blocks.push(id);
        page.lines |= line_mask(physical, len);
        if let Some(second) = page2 {
            let in_first = 0x1000 - (physical & 0xfff);
            let page = self.pages.entry(second).or_default();
            page.blocks.push(id);
            page.lines |= line_mask(0, len - in_first);
        }
        entry
    }

    /// Drops the blocks that `len` bytes of memory from `offset` on are part of. Gives how many those
    /// were, and whether the (first) page has no code left.
    pub fn invalidate(&mut self, offset: u32, len: u32) -> (u64, bool) {
        let page_number = offset >> 12;
        let Some(page) = self.pages.get_mut(&page_number) else { return (0, true) };
        if page.lines & line_mask(offset, len) == 0 {
            return (0, false);
        }
        let mut ids = std::mem::take(&mut page.blocks);
        let mut dropped = 0;
        let mut kept_lines = 0;
        ids.retain(|&id| {
            let block = &mut self.blocks[id as usize];
            if !block.valid {
                return false;
            }
            let start = block.key as u32;
            let (from, to) = if start >> 12 == page_number {
                let from = start & 0xfff;
                (from, (from + block.len).min(0x1000))
            } else {
                (0, block.len - (0x1000 - (start & 0xfff)))
            };
            let at = offset & 0xfff;
            if at < to && from < at + len {
                block.valid = false;
                dropped += 1;
                self.index.remove(&block.key);
                self.stale.insert(block.key, block.entry);
                // SAFETY: uops stay allocated until `clear`. The uop may be executing right now: its
                // handler refers to it, but a cell may be set meanwhile.
                unsafe { (*block.entry).run.set(Run::new(stale)) };
                return false;
            }
            kept_lines |= line_mask(from, to - from);
            true
        });
        let empty = ids.is_empty();
        if empty {
            self.pages.remove(&page_number);
        } else if let Some(page) = self.pages.get_mut(&page_number) {
            page.blocks = ids;
            page.lines = kept_lines;
        }
        (dropped, empty)
    }
}

/// A uop that is never run.
pub(crate) fn filler() -> Uop {
    use crate::cpu::regs::Reg;
    Uop {
        run: Cell::new(Run::new(stale)),
        imm: 0,
        disp: 0,
        dst: Reg::ZERO,
        src: Reg::ZERO,
        base: Reg::ZERO,
        index: Reg::ZERO,
        form: 0,
        n: 0,
        at: Extent::new(0, 0),
    }
}

/// Makes link slots refer to themselves.
///
/// # Safety
/// `first` is a block's first uop, and `links` has a bit for each of its uops that is a link slot.
pub(crate) unsafe fn init_links(first: *mut Uop, mut links: u128) {
    while links != 0 {
        // SAFETY: the caller's promise.
        unsafe {
            let slot = first.add(links.trailing_zeros() as usize).cast::<Link>();
            let run = (*slot).run;
            slot.write(Link { run, target: slot.cast(), dest: std::ptr::null() });
        }
        links &= links - 1;
    }
}

/// A link slot that leads nowhere yet, and what is run then.
pub(crate) fn link_slot(run: Handler) -> Uop {
    Uop { run: Cell::new(Run::new(run)), ..filler() }
}

/// The latest calls: where to they return, and the slots that lead there.
pub(crate) struct Calls {
    /// Where the next call goes, beyond multiples of the size.
    next: usize,
    entries: [(u64, *const Link); Self::SIZE],
}

impl Calls {
    const SIZE: usize = 16;

    pub fn new() -> Self {
        Self { next: 0, entries: [(NO_TAG, std::ptr::null()); _] }
    }

    /// Remembers a call that returns to `linear`, where `slot` of a live block leads.
    #[inline(always)]
    pub fn push(&mut self, linear: u32, mode: u32, slot: *const Link) {
        self.entries[self.next % Self::SIZE] = (key(linear, mode), slot);
        self.next = self.next.wrapping_add(1);
    }

    /// Takes back the last call; gives its slot if `linear` is where it returns to.
    #[inline(always)]
    pub fn pop(&mut self, linear: u32, mode: u32) -> Option<*const Link> {
        self.next = self.next.wrapping_sub(1);
        let (tag, slot) = self.entries[self.next % Self::SIZE];
        (tag == key(linear, mode)).then_some(slot)
    }

    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

/// A tag of linear address and mode that no mode has.
const NO_TAG: u64 = u64::MAX;

/// First uops of blocks by linear address, for jumps whose target is not in the code.
pub(crate) struct Jumps {
    entries: Vec<Target>,
}

#[derive(Clone, Copy)]
struct Target {
    /// Linear address and mode, or [`NO_TAG`].
    tag: u64,
    entry: *const Uop,
}

impl Jumps {
    const SIZE: usize = 4096;

    pub fn new() -> Self {
        Self { entries: vec![Target { tag: NO_TAG, entry: std::ptr::null() }; Self::SIZE] }
    }

    #[inline(always)]
    fn index(linear: u32) -> usize {
        (linear ^ linear >> 12) as usize % Self::SIZE
    }

    /// The block last seen at this address. It may be in a page that has been unmapped since.
    #[inline(always)]
    pub fn get(&self, linear: u32, mode: u32) -> Option<*const Uop> {
        // SAFETY: `entries` always has SIZE entries.
        let t = unsafe { self.entries.get_unchecked(Self::index(linear)) };
        (t.tag == key(linear, mode)).then_some(t.entry)
    }

    pub fn set(&mut self, linear: u32, mode: u32, entry: *const Uop) {
        self.entries[Self::index(linear)] = Target { tag: key(linear, mode), entry };
    }

    pub fn clear(&mut self) {
        self.entries.fill(Target { tag: NO_TAG, entry: std::ptr::null() });
    }
}

impl Cpu {
    /// Whether the block with this first uop is what is mapped at the current EIP.
    ///
    /// # Safety
    /// `entry` is the first uop of a block that the cache has not freed.
    #[inline(always)]
    pub(crate) unsafe fn is_mapped(&self, entry: *const Uop) -> bool {
        // SAFETY: a header stands before every first uop.
        let code = unsafe { (*entry.sub(1).cast::<Header>()).code };
        self.tlb.read(self.linear_eip(), 1) == Some(code)
    }

    /// As [`Cpu::is_mapped`], with a walk through the page tables.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn is_there(&mut self, entry: *const Uop) -> bool {
        // SAFETY: the caller's promise.
        self.find_again(self.linear_eip()) && unsafe { self.is_mapped(entry) }
    }
}
