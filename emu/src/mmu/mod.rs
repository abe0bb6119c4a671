//! Linear memory as instructions see it.
//!
//! [`Cpu::load`], [`Cpu::store`] and [`Cpu::modify`] are the fast path of hot handlers: a TLB
//! comparison, then host memory. [`Cpu::read`] and [`Cpu::write`] are complete: they walk pages,
//! reach devices, split what crosses pages, check alignment and data breakpoints.

#![allow(unsafe_code)]

pub(crate) mod tlb;
pub mod walk;

use crate::Cpu;
use crate::bus::Width;
use crate::cpu::regs::Int;
use crate::dispatch::Stop;
use crate::exception::{Exception, Result};
use crate::memory::{MemoryPage, PAGE_SIZE, Retag};
use tlb::Fill;
use walk::{Access, Paging};

const PAGE: u32 = 0xfff;

/// Where a physical page leads.
#[derive(Clone, Copy)]
enum Place {
    /// Offset of the page in [`Memory`](crate::Memory): RAM, or a region.
    Ram(u32),
    /// Physical address of a page that is a device or nothing.
    Device(u32),
}

/// The first number below `count` that is `wanted`. It is looked for in rows, of which the host compares all at once.
#[inline(always)]
fn first(count: u32, wanted: impl Fn(u32) -> bool) -> Option<u32> {
    const ROW: u32 = 32;
    let has_none = |row: &u32| !(0..ROW).fold(false, |any, i| any | wanted(row * ROW + i));
    let rows = (0..count / ROW).take_while(has_none).count() as u32;
    (rows * ROW..count).find(|i| wanted(*i))
}

impl Cpu {
    /// Reads from linear memory.
    #[inline(always)]
    pub(crate) fn load<T: Int, const SLOW: bool>(&mut self, linear: u32) -> Result<T, Stop> {
        if SLOW {
            return self.read(linear).map_err(|e| self.stop(e));
        }
        match self.tlb.read(linear, T::BYTES) {
            // SAFETY: a TLB hit says that all bytes are inside one page of RAM, which `self.mem`
            // owns and never moves; any bit pattern is a valid integer.
            Some(host) => Ok(unsafe { (host as *const T).read_unaligned() }),
            None => Err(Stop::Slow),
        }
    }

    /// Writes to linear memory.
    #[inline(always)]
    pub(crate) fn store<T: Int, const SLOW: bool>(&mut self, linear: u32, value: T) -> Result<(), Stop> {
        if SLOW {
            return self.write(linear, value).map_err(|e| self.stop(e));
        }
        match self.tlb.write(linear, T::BYTES) {
            // SAFETY: as in `load`; the write tag says that the page may be written.
            Some(host) => unsafe { (host as *mut T).write_unaligned(value) },
            None => return Err(Stop::Slow),
        }
        Ok(())
    }

    /// Reads 4, 8 or 16 bytes through the TLB, zero-extended.
    #[inline(always)]
    pub(crate) fn load_wide(&self, linear: u32, size: u8) -> Result<u128, Stop> {
        let value = match size {
            4 => self.tlb.load(linear).map(|bytes| u32::from_le_bytes(bytes).into()),
            8 => self.tlb.load(linear).map(|bytes| u64::from_le_bytes(bytes).into()),
            _ => self.tlb.load(linear).map(u128::from_le_bytes),
        };
        value.ok_or(Stop::Slow)
    }

    /// Writes the low 4, 8 or 16 bytes through the TLB.
    #[inline(always)]
    pub(crate) fn store_wide(&mut self, linear: u32, size: u8, value: u128) -> Result<(), Stop> {
        let stored = match size {
            4 => self.tlb.store(linear, (value as u32).to_le_bytes()),
            8 => self.tlb.store(linear, (value as u64).to_le_bytes()),
            _ => self.tlb.store(linear, value.to_le_bytes()),
        };
        if stored { Ok(()) } else { Err(Stop::Slow) }
    }

    /// Replaces a value in linear memory by a function of it.
    #[inline(always)]
    pub(crate) fn modify<T: Int, const SLOW: bool>(
        &mut self,
        linear: u32,
        f: impl FnOnce(&mut Cpu, T) -> T,
    ) -> Result<(), Stop> {
        if SLOW {
            // A fault must come before `f` changes flags.
            let old = self.probe_write(linear, T::BYTES).and_then(|()| self.read(linear));
            let new = match old {
                Ok(old) => f(self, old),
                Err(e) => return Err(self.stop(e)),
            };
            return self.write(linear, new).map_err(|e| self.stop(e));
        }
        let Some(host) = self.tlb.write(linear, T::BYTES) else { return Err(Stop::Slow) };
        // SAFETY: as in `store`. `f` cannot free or move guest memory.
        unsafe {
            let new = f(self, (host as *const T).read_unaligned());
            (host as *mut T).write_unaligned(new);
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn stop(&mut self, e: Exception) -> Stop {
        self.fault = e;
        Stop::Fault
    }

    /// Reads from linear memory with the current privilege.
    pub(crate) fn read<T: Int>(&mut self, linear: u32) -> Result<T> {
        if let Some(host) = self.tlb.read(linear, T::BYTES) {
            // SAFETY: as in `load`.
            return Ok(unsafe { (host as *const T).read_unaligned() });
        }
        let mut value = 0;
        self.read_slow(linear, T::BYTES, self.cpl == 3, &mut value)?;
        Ok(T::truncate(value))
    }

    /// Writes to linear memory with the current privilege.
    pub(crate) fn write<T: Int>(&mut self, linear: u32, value: T) -> Result<()> {
        if let Some(host) = self.tlb.write(linear, T::BYTES) {
            // SAFETY: as in `store`.
            unsafe { (host as *mut T).write_unaligned(value) };
            return Ok(());
        }
        self.write_slow(linear, T::BYTES, self.cpl == 3, value.zext())
    }

    /// Copies upwards within two pages, element order kept, if both are at hand in the TLB.
    pub(crate) fn copy_in_pages(&mut self, to: u32, from: u32, bytes: u32) -> bool {
        let (Some(to), Some(from)) = (self.tlb.write(to, bytes), self.tlb.read(from, bytes)) else {
            return false;
        };
        // An upward copy onto itself a little further up repeats a pattern.
        if to > from && to - from < bytes as usize {
            return false;
        }
        // SAFETY: as in `load` and `store`, for `bytes` bytes, which are within a page each. `copy`
        // allows the remaining overlap.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) };
        true
    }

    /// Moves up to `count` values from a port upwards into a page, if it is at hand in the TLB and the board gives
    /// them at once: how many.
    pub(crate) fn input_in_page(&mut self, port: u16, width: Width, to: u32, count: u32) -> u32 {
        let size = width.bytes();
        let Some(host) = self.tlb.write(to, count * size) else { return 0 };
        self.with_bus(|bus, mem| {
            let Some(values) = bus.port_source(port, width) else { return 0 };
            let count = count.min(values.len() as u32 / size);
            let bytes = (count * size) as usize;
            // SAFETY: as in `store`, for `bytes` bytes within a page; `values` has as many.
            unsafe { std::ptr::copy(values.as_ptr(), host as *mut u8, bytes) };
            bus.port_moved(mem, port, bytes);
            count
        })
    }

    /// The same from a page to a port.
    pub(crate) fn output_in_page(&mut self, port: u16, width: Width, from: u32, count: u32) -> u32 {
        let size = width.bytes();
        let Some(host) = self.tlb.read(from, count * size) else { return 0 };
        self.with_bus(|bus, mem| {
            let Some(room) = bus.port_sink(port, width) else { return 0 };
            let count = count.min(room.len() as u32 / size);
            let bytes = (count * size) as usize;
            // SAFETY: as in `load`, for `bytes` bytes within a page; `room` is as large.
            unsafe { std::ptr::copy(host as *const u8, room.as_mut_ptr(), bytes) };
            bus.port_moved(mem, port, bytes);
            count
        })
    }

    /// Fills within a page, if it is at hand in the TLB.
    pub(crate) fn fill_in_page<T: Int>(&mut self, to: u32, value: T, count: u32) -> bool {
        let Some(host) = self.tlb.write(to, count * T::BYTES) else { return false };
        for i in 0..count as usize {
            // SAFETY: as in `store`, for `count` elements within a page.
            unsafe { (host as *mut T).add(i).write_unaligned(value) };
        }
        true
    }

    /// Compares a value with upward elements within a page, if it is at hand in the TLB, until one is
    /// `equal` or is not: how many it looked at, and the last of them.
    pub(crate) fn scan_in_page<T: Int>(
        &self,
        at: u32,
        count: u32,
        value: T,
        equal: bool,
    ) -> Option<(u32, T)> {
        let host = self.tlb.read(at, count * T::BYTES)? as *const T;
        // SAFETY: as in `load`, for `count` elements within a page.
        let element = |i: u32| unsafe { host.add(i as usize).read_unaligned() };
        let last = first(count, |i| (element(i) == value) == equal).unwrap_or(count - 1);
        Some((last + 1, element(last)))
    }

    /// Compares upward elements of two pages in the same way; gives the last of both.
    pub(crate) fn compare_in_pages<T: Int>(
        &self,
        a: u32,
        b: u32,
        count: u32,
        equal: bool,
    ) -> Option<(u32, T, T)> {
        let a = self.tlb.read(a, count * T::BYTES)? as *const T;
        let b = self.tlb.read(b, count * T::BYTES)? as *const T;
        // SAFETY: as in `load`, for `count` elements within a page each.
        let pair =
            |i: u32| unsafe { (a.add(i as usize).read_unaligned(), b.add(i as usize).read_unaligned()) };
        let ends = |i| {
            let (a, b) = pair(i);
            (a == b) == equal
        };
        let last = first(count, ends).unwrap_or(count - 1);
        let (a, b) = pair(last);
        Some((last + 1, a, b))
    }

    /// Reads a block of bytes, at most a page.
    pub(crate) fn read_array<const N: usize>(&mut self, linear: u32) -> Result<[u8; N]> {
        let mut out = [0; N];
        if let Some(host) = self.tlb.read(linear, N as u32) {
            // SAFETY: as in `load`, for N bytes within a page.
            unsafe { std::ptr::copy_nonoverlapping(host as *const u8, out.as_mut_ptr(), N) };
            return Ok(out);
        }
        self.probe_read(linear, N as u32)?;
        for (i, b) in out.iter_mut().enumerate() {
            *b = self.read(linear.wrapping_add(i as u32))?;
        }
        Ok(out)
    }

    /// Writes a block of bytes, at most a page: all or none.
    pub(crate) fn write_array<const N: usize>(&mut self, linear: u32, bytes: &[u8; N]) -> Result<()> {
        if let Some(host) = self.tlb.write(linear, N as u32) {
            // SAFETY: as in `store`, for N bytes within a page.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host as *mut u8, N) };
            return Ok(());
        }
        self.probe_write(linear, N as u32)?;
        for (i, &b) in bytes.iter().enumerate() {
            self.write(linear.wrapping_add(i as u32), b)?;
        }
        Ok(())
    }

    /// Reads as the processor itself does from descriptor tables and task states: with supervisor
    /// privilege whatever the CPL.
    pub(crate) fn read_system<T: Int>(&mut self, linear: u32) -> Result<T> {
        if let Some(host) = self.tlb.system(linear, T::BYTES, false) {
            // SAFETY: as in `load`.
            return Ok(unsafe { (host as *const T).read_unaligned() });
        }
        let mut value = 0;
        self.read_slow(linear, T::BYTES, false, &mut value)?;
        Ok(T::truncate(value))
    }

    /// Writes as `read_system` reads.
    pub(crate) fn write_system<T: Int>(&mut self, linear: u32, value: T) -> Result<()> {
        if let Some(host) = self.tlb.system(linear, T::BYTES, true) {
            // SAFETY: as in `store`.
            unsafe { (host as *mut T).write_unaligned(value) };
            return Ok(());
        }
        self.write_slow(linear, T::BYTES, false, value.zext())
    }

    /// Raises what a write of `bytes` bytes (at most a page) would raise.
    pub(crate) fn probe_write(&mut self, linear: u32, bytes: u32) -> Result<()> {
        self.probe(linear, bytes, Access { write: true, user: self.cpl == 3 })
    }

    /// Raises what a read of `bytes` bytes (at most a page) would raise.
    pub(crate) fn probe_read(&mut self, linear: u32, bytes: u32) -> Result<()> {
        self.probe(linear, bytes, Access { write: false, user: self.cpl == 3 })
    }

    pub(crate) fn probe(&mut self, linear: u32, bytes: u32, access: Access) -> Result<()> {
        // Operands that are no power of two long are made of parts that are.
        let part = (bytes & bytes.wrapping_neg()).min(16);
        self.check_alignment(linear, part, access.user)?;
        self.translate(linear, access)?;
        let last = linear.wrapping_add(bytes - 1);
        if (last ^ linear) & !PAGE != 0 {
            self.translate(last & !PAGE, access)?;
        }
        Ok(())
    }

    fn paging(&self) -> Paging {
        Paging { cr0: self.cr0, cr3: self.cr3, cr4: self.cr4, pdpte: self.pdpte }
    }

    /// Translates a page and remembers it.
    fn translate(&mut self, linear: u32, access: Access) -> Result<Place> {
        self.stats.tlb_misses += 1;
        let page = match self.paging().walk(&mut self.mem, linear, access) {
            Ok(page) => page,
            Err(e) => {
                self.cr2 = linear;
                return Err(e);
            }
        };
        let Some(MemoryPage { offset, host, writable }) = self.mem.page(page.physical, access.write) else {
            return Ok(Place::Device(page.physical));
        };
        let (reads, writes) =
            if self.watch.host { self.debugger.watches_page(linear) } else { (false, false) };
        if reads {
            return Ok(Place::Ram(offset));
        }
        let fill = Fill {
            linear,
            host,
            writable: !writes && page.writable && writable && !self.mem.is_code(offset >> 12),
            user: access.user,
            global: page.global,
            large: page.large,
        };
        self.tlb.fill(fill);
        Ok(Place::Ram(offset))
    }

    /// #AC for a misaligned user access while it is on. Hardware raises it before page
    /// faults.
    pub(crate) fn check_alignment(&self, linear: u32, bytes: u32, user: bool) -> Result<()> {
        if self.watch.alignment && user && linear & (bytes - 1) != 0 {
            return Err(Exception::ALIGNMENT_CHECK);
        }
        Ok(())
    }

    #[inline(never)]
    fn read_slow(&mut self, linear: u32, bytes: u32, user: bool, value: &mut u32) -> Result<()> {
        self.check_alignment(linear, bytes, user)?;
        let access = Access { write: false, user };
        *value = if (linear & PAGE) + bytes <= PAGE + 1 {
            match self.translate(linear, access)? {
                Place::Ram(page) => self.mem.peek(page + (linear & PAGE), bytes),
                Place::Device(page) => self.device_read(page + (linear & PAGE), bytes),
            }
        } else if let Some(v) = self.read_across(linear, bytes, user) {
            v
        } else {
            // Both pages are translated before either is touched.
            let first = self.translate(linear, access)?;
            let second = self.translate(linear.wrapping_add(bytes - 1) & !PAGE, access)?;
            let mut v = 0;
            for i in 0..bytes {
                let at = (linear & PAGE) + i;
                let place = if at <= PAGE { first } else { second };
                v |= match place {
                    Place::Ram(page) => self.mem.peek(page + (at & PAGE), 1),
                    Place::Device(page) => self.device_read(page + (at & PAGE), 1),
                } << (8 * i);
            }
            v
        };
        self.watch_data(linear, bytes, false);
        Ok(())
    }

    #[inline(never)]
    fn write_slow(&mut self, linear: u32, bytes: u32, user: bool, value: u32) -> Result<()> {
        self.check_alignment(linear, bytes, user)?;
        let access = Access { write: true, user };
        if (linear & PAGE) + bytes <= PAGE + 1 {
            match self.translate(linear, access)? {
                Place::Ram(page) => self.ram_write(page + (linear & PAGE), bytes, value),
                Place::Device(page) => self.device_write(page + (linear & PAGE), bytes, value),
            }
        } else if !self.write_across(linear, bytes, user, value) {
            let first = self.translate(linear, access)?;
            let second = self.translate(linear.wrapping_add(bytes - 1) & !PAGE, access)?;
            for i in 0..bytes {
                let at = (linear & PAGE) + i;
                let place = if at <= PAGE { first } else { second };
                let byte = value >> (8 * i) & 0xff;
                match place {
                    Place::Ram(page) => self.ram_write(page + (at & PAGE), 1, byte),
                    Place::Device(page) => self.device_write(page + (at & PAGE), 1, byte),
                }
            }
        }
        self.watch_data(linear, bytes, true);
        Ok(())
    }

    /// Reads what lies in two pages that the TLB has for the current privilege.
    fn read_across(&self, linear: u32, bytes: u32, user: bool) -> Option<u32> {
        if user != (self.cpl == 3) {
            return None;
        }
        let second = linear.wrapping_add(bytes - 1) & !PAGE;
        let low = u32::from_le_bytes(self.tlb.load(second.wrapping_sub(4))?);
        let high = u32::from_le_bytes(self.tlb.load(second)?);
        let both = u64::from(high) << 32 | u64::from(low);
        Some((both >> (8 * (linear & 3))) as u32 & u32::MAX >> (32 - 8 * bytes))
    }

    /// Writes what lies in two pages that the TLB has for the current privilege; says whether it could.
    fn write_across(&self, linear: u32, bytes: u32, user: bool, value: u32) -> bool {
        let second = linear.wrapping_add(bytes - 1) & !PAGE;
        if user != (self.cpl == 3)
            || self.tlb.write(linear, 1).is_none()
            || self.tlb.write(second, 1).is_none()
        {
            return false;
        }
        (0..bytes).zip(value.to_le_bytes()).all(|(i, byte)| self.tlb.store(linear.wrapping_add(i), [byte]))
    }

    fn ram_write(&mut self, offset: u32, bytes: u32, value: u32) {
        if self.mem.is_read_only(offset) {
            return;
        }
        self.mem.poke(offset, bytes, value);
        if self.mem.is_code(offset >> 12) {
            self.code_written(offset, bytes);
        }
    }

    fn device_read(&mut self, addr: u32, bytes: u32) -> u32 {
        let Some(width) = width(bytes) else { return !0 };
        if (addr & PAGE) + bytes > PAGE + 1 {
            return width.mask();
        }
        self.with_bus(|bus, mem| bus.mmio_read(mem, addr, width)) & width.mask()
    }

    fn device_write(&mut self, addr: u32, bytes: u32, value: u32) {
        if let Some(width) = width(bytes) {
            self.with_bus(|bus, mem| bus.mmio_write(mem, addr, width, value));
        }
    }

    /// Walks the page tables for an instruction fetch, so that the TLB has the page, if it is there. What the
    /// walk would raise, it raises when the driver fetches.
    pub(crate) fn find_again(&mut self, linear: u32) -> bool {
        let cr2 = self.cr2;
        let found = self.translate(linear, Access { write: false, user: self.cpl == 3 }).is_ok();
        self.cr2 = cr2;
        found
    }

    /// The page of memory, by number, that the TLB has for a linear address.
    pub(crate) fn mapped_page(&mut self, linear: u32) -> Option<u32> {
        self.mem.page_at(self.tlb.read(linear & !PAGE, 1)?)
    }

    /// Translates for an instruction fetch. Gives the offset in memory, or the physical address of
    /// what is not memory.
    pub(crate) fn fetch_page(&mut self, linear: u32) -> Result<core::result::Result<u32, u32>> {
        if let Some(page) = self.mapped_page(linear) {
            return Ok(Ok(page << 12));
        }
        Ok(match self.translate(linear, Access { write: false, user: self.cpl == 3 })? {
            Place::Ram(page) => Ok(page),
            Place::Device(page) => Err(page),
        })
    }

    /// Makes all mappings of a page of memory read-only in the TLB.
    pub(crate) fn protect_page(&mut self, page: u32) {
        let host = self.host_page(page);
        self.tlb.protect(host..host + PAGE_SIZE as usize);
    }

    /// Host address of a page of memory, as block headers have it.
    pub(crate) fn host_page(&mut self, page: u32) -> usize {
        self.mem.host((page as usize) << 12, PAGE_SIZE as usize)
    }

    /// Brings the TLB in line with windows that moved and with the end of a generation.
    #[cold]
    #[inline(never)]
    pub(crate) fn retag(&mut self) {
        for retag in self.mem.take_retags() {
            match retag {
                Retag::Forget(host) => self.tlb.forget(host),
                Retag::Protect(host) => self.tlb.protect(host),
            }
        }
    }
}

fn width(bytes: u32) -> Option<Width> {
    match bytes {
        1 => Some(Width::Byte),
        2 => Some(Width::Word),
        4 => Some(Width::Dword),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
