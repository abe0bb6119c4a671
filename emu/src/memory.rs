//! Guest physical memory.

#![allow(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::slice;

/// Bytes in a page.
pub const PAGE_SIZE: u32 = 4096;
/// The window that video cards claim, which is never RAM.
pub const VGA_WINDOW: core::ops::Range<u32> = 0xa_0000..0xc_0000;
/// Where ROMs are, and RAM that takes their place: pages here can be read-only.
pub const SHADOW: core::ops::Range<u32> = 0xc_0000..0x10_0000;
/// The alias of the first MiB below 4 GiB, present while a ROM image is fitted.
pub const ROM_ALIAS: u32 = 0xfff0_0000;
/// RAM comes in multiples of this many bytes, as v86's does.
pub const GRANULARITY: u32 = 128 << 10;
/// The least RAM a PC can start with.
pub const MIN_SIZE: u32 = 1 << 20;
/// The most RAM that fits below the memory-mapped devices.
pub const MAX_SIZE: u32 = (2 << 30) - GRANULARITY;

/// Why memory could not be made.
#[derive(Debug)]
pub enum MemoryError {
    /// Outside what the board can carry.
    Size(u64),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Size(size) = self;
        write!(f, "Memory of {size} bytes is not possible; choose between 1 MiB and 2047 MiB")
    }
}

impl Error for MemoryError {}

/// The size in bytes of RAM that is to have at least `size` bytes.
///
/// # Errors
/// If no board can carry so much or so little.
pub fn rounded(size: u64) -> Result<u32, MemoryError> {
    let rounded = size.checked_next_multiple_of(GRANULARITY.into()).ok_or(MemoryError::Size(size))?;
    let possible = (MIN_SIZE.into()..=MAX_SIZE.into()).contains(&rounded);
    if possible { Ok(rounded as u32) } else { Err(MemoryError::Size(size)) }
}

/// Bytes of the host's that a guest has as RAM, such as pages of a file that are mapped.
///
/// # Safety
///
/// The bytes stay where they are for as long as the backing lives and wherever it is moved, and nothing
/// else reads or writes them: the processor keeps their addresses.
pub unsafe trait Backing: Send {
    /// The bytes. This is called once, before the guest starts.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Memory beside RAM, such as a graphics card's: the name under which [`Memory`] keeps it.
///
/// A region has no address of its own. The guest reaches it through windows ([`Memory::place`]).
/// The default is a region of no bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Offset of its first byte among all that [`Memory`] keeps.
    first: u32,
    len: u32,
}

impl Region {
    /// Bytes in it.
    pub fn size(self) -> u32 {
        self.len
    }
}

/// Physical addresses that lead to a region: the name of one such window. The default is one that
/// is never anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(usize);

impl Default for Window {
    fn default() -> Self {
        Self(usize::MAX)
    }
}

/// Where a window is, and what is behind it. Everything is a multiple of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// First physical address.
    pub address: u32,
    /// Bytes.
    pub len: u32,
    /// The region that it shows.
    pub region: Region,
    /// Offset in the region of what `address` shows.
    pub offset: u32,
}

impl Placement {
    fn is_sound(&self) -> bool {
        let aligned = (self.address | self.len | self.offset).is_multiple_of(PAGE_SIZE);
        let last = self.len.checked_sub(1).and_then(|last| self.address.checked_add(last));
        let inside = self.offset.checked_add(self.len).is_some_and(|end| end <= self.region.len);
        aligned && last.is_some() && inside
    }

    fn meets(&self, other: &Self) -> bool {
        self.address - other.address.min(self.address) < other.len
            && other.address - self.address.min(other.address) < self.len
    }
}

/// A moment between changes of regions: what was changed before differs in its generation from what
/// is changed afterwards. The default is before the first change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// Bytes that the guest has: RAM, or a region.
struct Store {
    /// What the bytes belong to. They are reached by their address alone.
    _owner: Box<dyn Send>,
    /// Host address of the first byte, with its provenance exposed; it never moves.
    base: usize,
    len: usize,
    /// Offset of the first byte among all that [`Memory`] keeps.
    first: usize,
    /// The generation in which each page was written last. RAM has none.
    written: Vec<u64>,
}

impl Store {
    fn zeroed(len: usize, first: usize) -> Self {
        let mut bytes = vec![0u8; len];
        let base = bytes.as_mut_ptr().expose_provenance();
        Self { _owner: Box::new(bytes), base, len, first, written: Vec::new() }
    }

    fn backed(mut backing: Box<dyn Backing>) -> Self {
        let bytes = backing.bytes_mut();
        let (base, len) = (bytes.as_mut_ptr().expose_provenance(), bytes.len());
        Self { _owner: Box::new(backing), base, len, first: 0, written: Vec::new() }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `base` is where `len` bytes are that `_owner` keeps and nothing else refers to.
        // What the processor reaches through the TLB it reaches while it has the `Memory`,
        // exclusively.
        unsafe { slice::from_raw_parts(with_exposed_provenance(self.base), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
        unsafe { slice::from_raw_parts_mut(with_exposed_provenance_mut(self.base), self.len) }
    }

    /// Where an offset in memory is in this store, if it is.
    #[inline]
    fn position(&self, offset: usize) -> Option<usize> {
        offset.checked_sub(self.first).filter(|at| *at < self.len)
    }

    fn host_range(&self) -> Range<usize> {
        self.base..self.base + self.len
    }
}

/// Words that hold a bit for each page of `bytes` bytes.
fn marks(bytes: usize) -> usize {
    (bytes / PAGE_SIZE as usize).div_ceil(64)
}

/// What the TLB has to do because windows moved, a generation ended or pages became read-only, by host address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retag {
    /// These bytes are no longer where they were.
    Forget(Range<usize>),
    /// The next write to these bytes is to be noted, or dropped.
    Protect(Range<usize>),
}

/// A page of memory, for the TLB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryPage {
    /// Its offset.
    pub offset: u32,
    /// Its host address.
    pub host: usize,
    /// Writes need not come here: the page is RAM and not read-only, or a region's and was written in this
    /// generation.
    pub writable: bool,
}

/// Guest RAM and other memory that behaves like it, by physical address.
///
/// RAM covers 0 to `size`, less [`VGA_WINDOW`]. Regions are reached through windows, where there is
/// no RAM. Accesses outside both read all ones and write nothing, as a bus master on the real board
/// would see. Neither does a write to a page that the board has made read-only ([`Memory::set_read_only`]).
///
/// Pages that the processor has decoded code from are marked, so that a write to one by anything
/// but the processor itself is noted for the block cache.
///
/// # Changes of regions
///
/// What shows a region on a screen needs to know what of it changed. Each page bears the [`Generation`] in
/// which it was written last. [`Memory::end_generation`] gives the present one and begins another;
/// [`Memory::changes`] tells what was written since such a generation. So any number of viewers
/// can look, each when it likes, and each remembers nothing but a number.
///
/// The processor's stores cost what they cost in RAM: the TLB lets a page of a region be written
/// only once it bears the present generation, and the end of a generation takes that leave away.
///
/// # One memory, once
///
/// The processor keeps addresses of bytes, and devices get `&mut Memory`. So that safe code cannot put
/// another memory in the place of the one it was given (by `mem::swap`, say), the type has no size
/// known when compiling: its last field is a slice, an empty one. It is always in a [`Box`].
pub struct Memory<Unsized: ?Sized = [()]> {
    ram: Store,
    rom_alias: bool,
    /// A bit for each page of [`SHADOW`], the lowest first: it is not written.
    read_only: u64,
    /// What follows RAM in the order of offsets. Never taken away and never moved: the TLB has their
    /// addresses.
    regions: Vec<Store>,
    windows: Vec<Option<Placement>>,
    generation: u64,
    /// Something bears the present generation.
    changed: bool,
    retags: Vec<Retag>,
    /// One bit a page: blocks were decoded from it.
    code: Vec<u64>,
    /// Ranges in code pages that were written: offset of the first byte, length.
    code_writes: Vec<(u32, u32)>,
    _unsized: Unsized,
}

impl Memory {
    /// Zeroed RAM of `size` bytes, rounded up to [`GRANULARITY`].
    pub fn new(size: u64) -> Result<Box<Self>, MemoryError> {
        Ok(Self::over(Store::zeroed(rounded(size)? as usize, 0)))
    }

    fn over(ram: Store) -> Box<Self> {
        let code = vec![0; marks(ram.len)];
        Box::new(Memory {
            ram,
            rom_alias: false,
            read_only: 0,
            regions: Vec::new(),
            windows: Vec::new(),
            generation: 1,
            changed: false,
            retags: Vec::new(),
            code,
            code_writes: Vec::new(),
            _unsized: [],
        })
    }

    /// RAM in a backing of the host's: its length is the size.
    pub fn with_backing(backing: Box<dyn Backing>) -> Result<Box<Self>, MemoryError> {
        let ram = Store::backed(backing);
        let size = ram.len as u64;
        if !size.is_multiple_of(GRANULARITY.into()) || !(MIN_SIZE.into()..=MAX_SIZE.into()).contains(&size) {
            return Err(MemoryError::Size(size));
        }
        Ok(Self::over(ram))
    }

    /// Adds a region of `size` zero bytes, rounded up to [`PAGE_SIZE`] and cut to what 32-bit offsets
    /// leave beside RAM and other regions. It stays as long as the memory does.
    pub fn add_region(&mut self, size: u32) -> Region {
        let last = self.regions.last().unwrap_or(&self.ram);
        let first = last.first + last.len;
        let room = (u32::MAX - first as u32) & !(PAGE_SIZE - 1);
        let len = size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u32::MAX).min(room);
        let mut store = Store::zeroed(len as usize, first);
        store.written.resize((len / PAGE_SIZE) as usize, 0);
        self.regions.push(store);
        self.code.resize(marks(first + len as usize), 0);
        Region { first: first as u32, len }
    }

    /// Adds a window, which is nowhere yet.
    pub fn add_window(&mut self) -> Window {
        self.windows.push(None);
        Window(self.windows.len() - 1)
    }

    /// Moves a window, or takes it away. Where there is RAM, or a window that was added before, that
    /// stays in front. A placement that is not whole pages of its region is none.
    pub fn place(&mut self, window: Window, to: Option<Placement>) {
        let to = to.filter(Placement::is_sound);
        let Some(slot) = self.windows.get_mut(window.0).filter(|slot| **slot != to) else { return };
        let from = std::mem::replace(slot, to);
        // The TLB may have what the window showed, and what others show where it is now. An address
        // that leads to a device is never there.
        let hidden = self.windows.iter().flatten().filter(|other| to.is_some_and(|to| to.meets(other)));
        for Placement { len, region, offset, .. } in from.iter().chain(hidden) {
            let base = self.host((region.first + offset) as usize, *len as usize);
            self.retags.push(Retag::Forget(base..base + *len as usize));
        }
    }

    fn store(&self, region: Region) -> Option<&Store> {
        self.regions.iter().find(|store| store.first == region.first as usize)
    }

    /// All of a region.
    pub fn region(&self, region: Region) -> &[u8] {
        self.store(region).map_or(&[], Store::bytes)
    }

    /// Whether the page of a region at this offset has never been written: it is zero, and takes none of the host's
    /// memory until it is looked at.
    pub fn is_fresh(&self, region: Region, offset: u32) -> bool {
        let written = self.store(region).and_then(|store| store.written.get((offset / PAGE_SIZE) as usize));
        written == Some(&0)
    }

    /// A part of a region, as far as there is one, to be written; it counts as written.
    pub fn region_mut(&mut self, region: Region, part: Range<u32>) -> &mut [u8] {
        let end = part.end.min(region.len);
        let start = part.start.min(end);
        if start < end {
            self.note_write(region.first + start, end - start);
        }
        let store = self.regions.iter_mut().find(|store| store.first == region.first as usize);
        store.map_or(&mut [], |store| &mut store.bytes_mut()[start as usize..end as usize])
    }

    /// Says that something changes which viewers of regions see, too, such as a register. Gives the
    /// generation that it bears.
    pub fn note_change(&mut self) -> Generation {
        self.changed = true;
        Generation(self.generation)
    }

    /// Ends the present generation, if something bears it; gives the one that begins.
    pub fn end_generation(&mut self) -> Generation {
        if std::mem::take(&mut self.changed) {
            self.generation += 1;
            let protect = self.regions.iter().map(|store| Retag::Protect(store.host_range()));
            self.retags.extend(protect);
        }
        Generation(self.generation)
    }

    /// The parts of `part` of a region that were written in generation `since` or later, by offset and
    /// in whole pages, the lowest first.
    pub fn changes(
        &self,
        region: Region,
        part: Range<u32>,
        since: Generation,
    ) -> impl Iterator<Item = Range<u32>> {
        let written = self.store(region).map_or(&[][..], |store| &store.written);
        let end = (part.end.div_ceil(PAGE_SIZE) as usize).min(written.len());
        let start = ((part.start / PAGE_SIZE) as usize).min(end);
        let mut pages = (start..end).peekable();
        std::iter::from_fn(move || {
            let first = pages.find(|page| written[*page] >= since.0)?;
            let mut last = first;
            while pages.next_if(|page| written[*page] >= since.0).is_some() {
                last += 1;
            }
            Some(first as u32 * PAGE_SIZE..(last as u32 + 1) * PAGE_SIZE)
        })
    }

    /// All of RAM by physical address, for a state to be saved. In the VGA window are zeros.
    pub fn contents(&self) -> &[u8] {
        self.ram.bytes()
    }

    /// Puts bytes of a saved state into RAM; those outside it are dropped. The processor's state is
    /// to be set afterwards, which drops what was decoded from before.
    pub fn load(&mut self, addr: u32, data: &[u8]) {
        let start = addr as usize;
        if let Some(to) = self.ram.bytes_mut().get_mut(start..start.saturating_add(data.len())) {
            to.copy_from_slice(data);
        }
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u32 {
        self.ram.len as u32
    }

    /// Whether the first MiB has an alias at [`ROM_ALIAS`].
    pub fn has_rom_alias(&self) -> bool {
        self.rom_alias
    }

    /// Fits or removes that alias.
    pub fn set_rom_alias(&mut self, present: bool) {
        self.rom_alias = present;
    }

    /// The pages of [`SHADOW`] that are read-only: a bit each, the lowest page first.
    pub fn read_only(&self) -> u64 {
        self.read_only
    }

    /// Makes pages of [`SHADOW`] read-only, and the others writable: what the guest and its bus masters write
    /// there is dropped. Gives what was read-only before.
    pub fn set_read_only(&mut self, pages: u64) -> u64 {
        if pages & !self.read_only != 0 {
            // The TLB may have leave to write there.
            let base = self.ram.base;
            self.retags.push(Retag::Protect(base + SHADOW.start as usize..base + SHADOW.end as usize));
        }
        std::mem::replace(&mut self.read_only, pages)
    }

    /// Whether the page of RAM at an offset is read-only.
    #[inline]
    pub(crate) fn is_read_only(&self, offset: u32) -> bool {
        SHADOW.contains(&offset) && self.read_only >> ((offset - SHADOW.start) / PAGE_SIZE) & 1 != 0
    }

    /// The offset of the RAM or of the region's byte behind a physical address, if there is either.
    #[inline]
    pub(crate) fn offset(&self, addr: u32) -> Option<usize> {
        if addr < self.size() && !VGA_WINDOW.contains(&addr) {
            return Some(addr as usize);
        }
        self.extent(addr).map(|extent| extent.start)
    }

    /// The offsets that physical addresses from `addr` on lead to, as far as they follow each other.
    fn extent(&self, addr: u32) -> Option<Range<usize>> {
        let ram = if self.rom_alias && addr >= ROM_ALIAS { addr - ROM_ALIAS } else { addr };
        if ram < self.size() && !VGA_WINDOW.contains(&ram) {
            let end = match ram {
                _ if ram < VGA_WINDOW.start => VGA_WINDOW.start as usize,
                _ if ram != addr => ROM_ALIAS.wrapping_neg() as usize,
                _ => self.ram.len,
            };
            return Some(ram as usize..end.min(self.ram.len));
        }
        self.windows.iter().flatten().find_map(|window| {
            let at = addr.checked_sub(window.address).filter(|at| *at < window.len)?;
            let first = (window.region.first + window.offset) as usize;
            // Something in front may begin in the midst of this one.
            let others = self.windows.iter().flatten().map(|other| other.address);
            let fronts = others.chain([VGA_WINDOW.end, ROM_ALIAS]).filter(|front| *front > addr);
            let end = fronts.map(|front| front - window.address).fold(window.len, u32::min);
            Some(first + at as usize..first + end as usize)
        })
    }

    /// The bytes of a range that is RAM, or one region, throughout.
    pub fn slice(&self, addr: u32, len: u32) -> Option<&[u8]> {
        let extent = self.extent(addr).filter(|extent| len != 0 && extent.len() >= len as usize)?;
        Some(self.bytes_at(extent.start, len as usize))
    }

    /// The bytes at an offset, as many as follow there in RAM or in the region.
    pub(crate) fn bytes_at(&self, offset: usize, len: usize) -> &[u8] {
        if let Some(bytes) = self.ram.bytes().get(offset..offset + len) {
            return bytes;
        }
        let found = self.regions.iter().find_map(|store| Some((store, store.position(offset)?)));
        found.map_or(&[], |(store, at)| &store.bytes()[at..at + len])
    }

    /// The bytes at an offset, to be written; they count as written.
    fn bytes_at_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        self.note_write(offset as u32, len as u32);
        let mut stores = std::iter::once(&mut self.ram).chain(&mut self.regions);
        let found = stores.find_map(|store| Some((store.position(offset)?, store)));
        found.map_or(&mut [], |(at, store)| &mut store.bytes_mut()[at..at + len])
    }

    /// Reads bytes; those that are neither RAM nor a region's are FFh.
    pub fn read(&self, addr: u32, buf: &mut [u8]) {
        let (mut addr, mut buf) = (addr, buf);
        while !buf.is_empty() {
            let extent = self.extent(addr);
            // What is memory and what is not begins and ends with a page.
            let room = extent.as_ref().map_or((PAGE_SIZE - addr % PAGE_SIZE) as usize, Range::len);
            let (now, rest) = buf.split_at_mut(room.min(buf.len()));
            match extent {
                Some(extent) => now.copy_from_slice(self.bytes_at(extent.start, now.len())),
                None => now.fill(0xff),
            }
            addr = addr.wrapping_add(now.len() as u32);
            buf = rest;
        }
    }

    /// Writes bytes; those that are neither RAM nor a region's, and those in read-only pages, are dropped.
    pub fn write(&mut self, addr: u32, data: &[u8]) {
        let (mut addr, mut data) = (addr, data);
        while !data.is_empty() {
            let extent = self.extent(addr);
            let page = (PAGE_SIZE - addr % PAGE_SIZE) as usize;
            // Page by page where one may be written and the next may not.
            let together = |extent: &Range<usize>| {
                let mixed = self.read_only != 0 && SHADOW.contains(&(extent.start as u32));
                if mixed { page } else { extent.len() }
            };
            let room = extent.as_ref().map_or(page, together);
            let (now, rest) = data.split_at(room.min(data.len()));
            if let Some(extent) = extent.filter(|extent| !self.is_read_only(extent.start as u32)) {
                self.bytes_at_mut(extent.start, now.len()).copy_from_slice(now);
            }
            addr = addr.wrapping_add(now.len() as u32);
            data = rest;
        }
    }

    fn note_write(&mut self, offset: u32, len: u32) {
        let mut pages = offset / PAGE_SIZE..=(offset + (len - 1)) / PAGE_SIZE;
        pages.clone().for_each(|page| self.note_page(page * PAGE_SIZE));
        if pages.any(|p| self.is_code(p)) {
            self.code_writes.push((offset, len));
        }
    }

    /// Notes that the page at an offset is written in this generation, if it is a region's.
    #[inline]
    fn note_page(&mut self, offset: u32) {
        if offset as usize >= self.ram.len {
            self.note_region_page(offset);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_region_page(&mut self, offset: u32) {
        for store in &mut self.regions {
            if let Some(at) = store.position(offset as usize) {
                store.written[at / PAGE_SIZE as usize] = self.generation;
                self.changed = true;
            }
        }
    }

    /// The page at a physical address, if it is memory. `write` notes that it is written now.
    #[inline]
    pub(crate) fn page(&mut self, addr: u32, write: bool) -> Option<MemoryPage> {
        if addr < self.size() && !(VGA_WINDOW.start..SHADOW.end).contains(&addr) {
            return Some(MemoryPage { offset: addr, host: self.ram.base + addr as usize, writable: true });
        }
        self.special_page(addr, write)
    }

    #[cold]
    #[inline(never)]
    fn special_page(&mut self, addr: u32, write: bool) -> Option<MemoryPage> {
        let offset = self.extent(addr)?.start;
        if write {
            self.note_page(offset as u32);
        }
        let bears = |store: &Store| {
            let at = store.position(offset)?;
            Some(store.written[at / PAGE_SIZE as usize] == self.generation)
        };
        let writable = match offset < self.ram.len {
            true => !self.is_read_only(offset as u32),
            false => self.regions.iter().find_map(bears) == Some(true),
        };
        Some(MemoryPage { offset: offset as u32, host: self.host(offset, PAGE_SIZE as usize), writable })
    }

    /// Whether [`Memory::take_retags`] or [`Memory::take_code_writes`] has something.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.retags.len() | self.code_writes.len() != 0
    }

    /// What the TLB has to do before it is used again.
    pub(crate) fn take_retags(&mut self) -> Vec<Retag> {
        std::mem::take(&mut self.retags)
    }

    /// Whether blocks were decoded from a page (by its number in the order of offsets).
    pub(crate) fn is_code(&self, page: u32) -> bool {
        self.code.get(page as usize / 64).is_some_and(|w| w >> (page % 64) & 1 != 0)
    }

    /// Marks a page as one that blocks were decoded from, or no longer so.
    pub(crate) fn set_code(&mut self, page: u32, code: bool) {
        let bit = 1 << (page % 64);
        if let Some(word) = self.code.get_mut(page as usize / 64) {
            *word = if code { *word | bit } else { *word & !bit };
        }
    }

    /// The ranges in code pages written since the last call.
    pub(crate) fn take_code_writes(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.code_writes)
    }

    /// The host address of `bytes` bytes at an offset.
    #[inline]
    pub(crate) fn host(&self, offset: usize, bytes: usize) -> usize {
        if offset + bytes <= self.ram.len { self.ram.base + offset } else { self.region_host(offset, bytes) }
    }

    #[cold]
    #[inline(never)]
    fn region_host(&self, offset: usize, bytes: usize) -> usize {
        let inside = |store: &Store| {
            let at = store.position(offset)?;
            (at + bytes <= store.len).then(|| store.base + at)
        };
        let host = self.regions.iter().find_map(inside);
        host.unwrap_or_else(|| panic!("{bytes} bytes at {offset:x} are not memory"))
    }

    /// The number of the page that is at a host address.
    #[inline]
    pub(crate) fn page_at(&self, host: usize) -> Option<u32> {
        let page = |store: &Store| {
            let at = host.wrapping_sub(store.base);
            (at < store.len).then(|| ((store.first + at) >> PAGE_SIZE.trailing_zeros()) as u32)
        };
        page(&self.ram).or_else(|| self.regions.iter().find_map(page))
    }

    /// Reads 1, 2 or 4 bytes at an offset; they must not go over a page.
    #[inline]
    pub(crate) fn peek(&self, offset: u32, bytes: u32) -> u32 {
        let host = self.host(offset as usize, bytes as usize);
        // SAFETY: `host` has checked that the bytes are RAM or a region's, which `self` owns and never
        // moves.
        unsafe {
            match bytes {
                1 => with_exposed_provenance::<u8>(host).read().into(),
                2 => u16::from_le(with_exposed_provenance::<u16>(host).read_unaligned()).into(),
                _ => u32::from_le(with_exposed_provenance::<u32>(host).read_unaligned()),
            }
        }
    }

    /// Writes 1, 2 or 4 bytes at an offset, for the processor, which does its own bookkeeping of code
    /// pages; they must not go over a page.
    #[inline]
    pub(crate) fn poke(&mut self, offset: u32, bytes: u32, value: u32) {
        let host = self.host(offset as usize, bytes as usize);
        // SAFETY: as in `peek`.
        unsafe {
            match bytes {
                1 => with_exposed_provenance_mut::<u8>(host).write(value as u8),
                2 => with_exposed_provenance_mut::<u16>(host).write_unaligned((value as u16).to_le()),
                _ => with_exposed_provenance_mut::<u32>(host).write_unaligned(value.to_le()),
            }
        }
        self.note_page(offset);
    }

    /// Reads one byte.
    pub fn read_u8(&self, addr: u32) -> u8 {
        self.offset(addr).map_or(0xff, |o| self.peek(o as u32, 1) as u8)
    }

    /// Reads a little-endian 16-bit value at any alignment.
    pub fn read_u16(&self, addr: u32) -> u16 {
        let mut b = [0; 2];
        self.read(addr, &mut b);
        u16::from_le_bytes(b)
    }

    /// Reads a little-endian 32-bit value at any alignment.
    #[inline]
    pub fn read_u32(&self, addr: u32) -> u32 {
        // What is RAM and what is not begins and ends with a page.
        if addr < self.size() && !VGA_WINDOW.contains(&addr) && addr % PAGE_SIZE <= PAGE_SIZE - 4 {
            // SAFETY: the bytes are RAM, which `self` owns and never moves.
            let value =
                unsafe { with_exposed_provenance::<u32>(self.ram.base + addr as usize).read_unaligned() };
            return u32::from_le(value);
        }
        self.read_u32_slowly(addr)
    }

    #[cold]
    #[inline(never)]
    fn read_u32_slowly(&self, addr: u32) -> u32 {
        let mut b = [0; 4];
        self.read(addr, &mut b);
        u32::from_le_bytes(b)
    }

    /// Reads a little-endian 64-bit value at any alignment.
    pub fn read_u64(&self, addr: u32) -> u64 {
        let mut b = [0; 8];
        self.read(addr, &mut b);
        u64::from_le_bytes(b)
    }

    /// Writes one byte.
    pub fn write_u8(&mut self, addr: u32, value: u8) {
        self.write(addr, &[value]);
    }

    /// Writes a little-endian 16-bit value at any alignment.
    pub fn write_u16(&mut self, addr: u32, value: u16) {
        self.write(addr, &value.to_le_bytes());
    }

    /// Writes a little-endian 32-bit value at any alignment.
    pub fn write_u32(&mut self, addr: u32, value: u32) {
        self.write(addr, &value.to_le_bytes());
    }

    /// Writes a little-endian 64-bit value at any alignment.
    pub fn write_u64(&mut self, addr: u32, value: u64) {
        self.write(addr, &value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    // A list of one range is meant.
    #![allow(clippy::single_range_in_vec_init)]

    use super::*;

    const REGION: u32 = 0x2_0000;
    const BAR: u32 = 0xe000_0000;

    fn with_window() -> (Box<Memory>, Region, Window) {
        let mut mem = Memory::new(1 << 20).unwrap();
        let (region, window) = (mem.add_region(REGION), mem.add_window());
        mem.place(window, Some(Placement { address: BAR, len: REGION, region, offset: 0 }));
        (mem, region, window)
    }

    #[test]
    fn read_only_pages_are_read_and_not_written() {
        let mut mem = Memory::new(1 << 20).unwrap();
        mem.set_rom_alias(true);
        mem.write(0xc_0ffe, &[1, 2, 3, 4]);
        // The second and the last page.
        assert_eq!(mem.set_read_only(1 << 1 | 1 << 63), 0);
        assert_eq!(mem.take_retags().len(), 1);
        mem.write(0xc_0ffe, &[5, 6, 7, 8]);
        mem.write(0xc_1ffe, &[9; 4]);
        assert_eq!(mem.slice(0xc_0ffe, 4), Some(&[5, 6, 3, 4][..]));
        assert_eq!(mem.slice(0xc_1ffe, 4), Some(&[0, 0, 9, 9][..]));
        mem.write(0xf_effe, &[1; 4]);
        mem.write(0xffff_f000, &[2]);
        mem.write_u32(0xffff_effe, 0x0404_0404);
        assert_eq!(mem.slice(0xf_effe, 4), Some(&[4, 4, 0, 0][..]));
        assert!(!mem.page(0xc_1000, true).unwrap().writable && mem.page(0xc_2000, true).unwrap().writable);
        assert!(
            !mem.page(0xffff_f000, false).unwrap().writable && mem.page(0xffff_e000, false).unwrap().writable
        );
        assert_eq!(mem.set_read_only(1 << 63), 1 << 1 | 1 << 63);
        assert!(mem.take_retags().is_empty(), "no leave is taken away");
        mem.write_u8(0xc_1000, 10);
        assert_eq!((mem.read_u8(0xc_1000), mem.read_only()), (10, 1 << 63));
    }

    fn changes(mem: &Memory, region: Region, since: Generation) -> Vec<Range<u32>> {
        mem.changes(region, 0..region.size(), since).collect()
    }

    #[test]
    fn a_region_is_memory_where_its_windows_are() {
        let (mut mem, region, window) = with_window();
        mem.write_u32(BAR + 0x1ffe, 0x0403_0201);
        assert_eq!(mem.region(region)[0x1ffe..0x2002], [1, 2, 3, 4]);
        assert_eq!(mem.read_u32(BAR + 0x1ffe), 0x0403_0201);
        assert_eq!(mem.slice(BAR + 0x1ffe, 4), Some(&[1, 2, 3, 4][..]));
        assert_eq!(mem.slice(BAR + REGION - 2, 4), None);
        mem.write(BAR + REGION - 2, &[5, 6, 7]);
        let mut end = [0; 4];
        mem.read(BAR + REGION - 2, &mut end);
        assert_eq!(end, [5, 6, 0xff, 0xff]);
        let shifted = Placement { address: VGA_WINDOW.start, len: 0x1000, region, offset: 0x1000 };
        mem.place(window, Some(shifted));
        assert_eq!(
            (mem.read_u16(0xa_0ffe), mem.read_u16(0xa_1000), mem.read_u8(BAR)),
            (0x0201, 0xffff, 0xff)
        );
        mem.place(window, None);
        assert_eq!(mem.read_u8(0xa_0ffe), 0xff);
    }

    #[test]
    fn a_window_that_is_no_part_of_its_region_shows_nothing() {
        let (mut mem, region, window) = with_window();
        for (address, len, offset) in
            [(BAR, REGION, 0x1000), (BAR + 1, 0x1000, 0), (BAR, 0, 0), (0xffff_f000, 0x2000, 0)]
        {
            mem.place(window, Some(Placement { address, len, region, offset }));
            assert_eq!(mem.offset(address), None, "{address:x}");
        }
    }

    #[test]
    fn what_is_in_front_hides_what_is_behind() {
        let (mut mem, region, _) = with_window();
        let behind = mem.add_window();
        mem.place(behind, Some(Placement { address: BAR - 0x1000, len: REGION, region, offset: 0 }));
        mem.region_mut(region, 0..1)[0] = 7;
        assert_eq!((mem.read_u8(BAR - 0x1000), mem.read_u8(BAR)), (7, 7));
        assert_eq!(mem.slice(BAR - 0x1000, 0x1001), None);
        mem.place(behind, Some(Placement { address: 0x1000, len: REGION, region, offset: 0 }));
        assert_eq!(mem.read_u8(0x1000), 0, "RAM");
    }

    #[test]
    fn each_viewer_learns_what_changed_since_it_looked() {
        let (mut mem, region, _) = with_window();
        assert_eq!(changes(&mem, region, Generation::default()), [0..REGION], "never seen");
        assert!(mem.is_fresh(region, 0x8000) && !mem.is_fresh(region, REGION), "a page there, and none");
        let first = mem.end_generation();
        assert_eq!(mem.end_generation(), first, "nothing happened");
        mem.write(BAR + 0x2fff, &[1, 2]);
        mem.region_mut(region, 0x8000..0x8001)[0] = 3;
        assert!(!mem.is_fresh(region, 0x8000) && mem.is_fresh(region, 0x9000));
        let second = mem.end_generation();
        assert_eq!(changes(&mem, region, first), [0x2000..0x4000, 0x8000..0x9000]);
        mem.write_u8(BAR, 1);
        assert_eq!(changes(&mem, region, second), [0..0x1000]);
        assert_eq!(changes(&mem, region, first).len(), 3);
        assert_eq!(mem.changes(region, 0x2800..0x2801, first).next(), Some(0x2000..0x3000));
        let third = mem.end_generation();
        assert!(changes(&mem, region, third).is_empty());
        assert_eq!(mem.note_change(), third);
        assert!(mem.end_generation() > third);
    }
}
