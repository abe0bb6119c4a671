//! Segments: descriptors, limit and type checks, loading of segment registers (Intel SDM volume 3,
//! chapters 3 and 5).

use super::{Cpu, flags};
use crate::Segment;
use crate::cpu::mode;
use crate::exception::{Exception, Result};

/// Segment registers by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::upper_case_acronyms, missing_docs)]
pub enum SegName {
    ES = 0,
    CS = 1,
    SS = 2,
    DS = 3,
    FS = 4,
    GS = 5,
}

impl SegName {
    /// By the number in an instruction; 6 and 7 name none.
    pub fn from_number(n: u8) -> Option<Self> {
        use SegName::*;
        [ES, CS, SS, DS, FS, GS].get(n as usize).copied()
    }
}

/// Access byte: present.
pub(crate) const PRESENT: u8 = 0x80;
/// Access byte: code or data rather than a system descriptor.
pub(crate) const CODE_OR_DATA: u8 = 0x10;
/// Access byte: code.
pub(crate) const CODE: u8 = 0x08;
/// Access byte of code: conforming; of data: expand-down.
pub(crate) const CONFORMING: u8 = 0x04;
const EXPAND_DOWN: u8 = 0x04;
/// Access byte of code: readable; of data: writable.
pub(crate) const READ_WRITE: u8 = 0x02;
const ACCESSED: u8 = 0x01;

/// Types of system descriptors.
pub(crate) mod system {
    pub const TSS16: u8 = 1;
    pub const LDT: u8 = 2;
    pub const TSS16_BUSY: u8 = 3;
    pub const CALL_GATE16: u8 = 4;
    pub const TASK_GATE: u8 = 5;
    pub const INTERRUPT_GATE16: u8 = 6;
    pub const TRAP_GATE16: u8 = 7;
    pub const TSS32: u8 = 9;
    pub const TSS32_BUSY: u8 = 11;
    pub const CALL_GATE32: u8 = 12;
    pub const INTERRUPT_GATE32: u8 = 14;
    pub const TRAP_GATE32: u8 = 15;
    /// What makes a TSS type a busy one.
    pub const BUSY: u8 = 2;
}

/// A segment register with what the fast check needs.
#[derive(Clone, Copy)]
pub(crate) struct Seg {
    pub arch: Segment,
    /// Offsets below this may be read without a further check; 0 if there is one to make.
    read_end: u64,
    /// As `read_end`, for writes.
    write_end: u64,
    /// All 4 GiB can be read and written without a further check, from address 0 on.
    is_flat_data: bool,
    /// Base and limit are those of all 4 GiB.
    is_flat: bool,
    /// It was loaded in protected mode.
    protected: bool,
}

impl Default for Seg {
    fn default() -> Self {
        Self::new(Segment::real(0), false)
    }
}

impl Seg {
    fn new(arch: Segment, protected: bool) -> Self {
        let end = u64::from(arch.limit) + 1;
        let is_code = arch.access & CODE != 0;
        let (read, write) = if !protected {
            (true, true)
        } else if arch.null || arch.access & PRESENT == 0 {
            (false, false)
        } else if is_code {
            (arch.access & READ_WRITE != 0, false)
        } else if arch.access & EXPAND_DOWN == 0 {
            (true, arch.access & READ_WRITE != 0)
        } else {
            (false, false)
        };
        let is_flat = arch.base == 0 && arch.limit == u32::MAX;
        Self {
            arch,
            read_end: if read { end } else { 0 },
            write_end: if write { end } else { 0 },
            is_flat_data: is_flat && read && write,
            is_flat,
            protected,
        }
    }

    /// Whether `bytes` bytes at `offset` need no further check.
    #[inline(always)]
    pub fn allows(&self, offset: u32, bytes: u32, write: bool) -> bool {
        let end = if write { self.write_end } else { self.read_end };
        u64::from(offset) + u64::from(bytes) <= end
    }
}

/// A descriptor from the GDT or LDT, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub low: u32,
    pub high: u32,
    /// Linear address of the descriptor.
    pub at: u32,
}

impl Descriptor {
    pub fn access(&self) -> u8 {
        (self.high >> 8) as u8
    }
    pub fn base(&self) -> u32 {
        (self.low >> 16) | (self.high & 0xff) << 16 | (self.high & 0xff00_0000)
    }
    pub fn limit(&self) -> u32 {
        let raw = (self.low & 0xffff) | (self.high & 0x000f_0000);
        if self.high & 1 << 23 != 0 { raw << 12 | 0xfff } else { raw }
    }
    pub fn big(&self) -> bool {
        self.high & 1 << 22 != 0
    }
    pub fn dpl(&self) -> u8 {
        self.access() >> 5 & 3
    }
    pub fn present(&self) -> bool {
        self.access() & PRESENT != 0
    }
    pub fn is_code(&self) -> bool {
        self.access() & (CODE_OR_DATA | CODE) == CODE_OR_DATA | CODE
    }
    pub fn is_conforming_code(&self) -> bool {
        self.is_code() && self.access() & CONFORMING != 0
    }
    pub fn is_writable_data(&self) -> bool {
        self.access() & (CODE_OR_DATA | CODE | READ_WRITE) == CODE_OR_DATA | READ_WRITE
    }
    pub fn is_readable(&self) -> bool {
        let a = self.access();
        a & CODE_OR_DATA != 0 && (a & CODE == 0 || a & READ_WRITE != 0)
    }
    /// The type of a system descriptor; `None` for code and data.
    pub fn system(&self) -> Option<u8> {
        (self.access() & CODE_OR_DATA == 0).then_some(self.access() & 15)
    }
    /// A gate's target selector.
    pub fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }
    /// A gate's target offset; 16-bit gates have no upper half.
    pub fn gate_offset(&self, wide: bool) -> u32 {
        (self.low & 0xffff) | if wide { self.high & 0xffff_0000 } else { 0 }
    }
    pub fn segment(&self, selector: u16) -> Segment {
        Segment {
            selector,
            base: self.base(),
            limit: self.limit(),
            access: self.access(),
            big: self.big(),
            null: false,
        }
    }
}

/// A selector without its RPL that names no descriptor.
pub(crate) fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

impl Cpu {
    /// Recomputes what depends on segments and their mode.
    pub(crate) fn refresh_segments(&mut self) {
        let protected = self.protected();
        for seg in &mut self.seg {
            *seg = Seg::new(seg.arch, protected);
        }
        self.refresh_mode();
    }

    fn refresh_mode(&mut self) {
        let [es, cs, ss, ds, ..] = &self.seg;
        let mut m = 0;
        if cs.arch.big {
            m |= mode::CODE32;
        }
        if ss.arch.big {
            m |= mode::STACK32;
        }
        if es.is_flat_data && ss.is_flat_data && ds.is_flat_data {
            m |= mode::FLAT_DATA;
        }
        if cs.is_flat {
            m |= mode::FLAT_CODE;
        }
        self.mode = m;
    }

    /// Replaces a segment register's contents.
    pub(crate) fn set_segment(&mut self, name: SegName, segment: Segment) {
        let protected = self.protected();
        let seg = &mut self.seg[name as usize];
        // A system call loads what is there already into most of them.
        if seg.arch == segment && seg.protected == protected {
            return;
        }
        *seg = Seg::new(segment, protected);
        let before = self.mode;
        self.refresh_mode();
        // A block is decoded for its mode.
        self.attention |= self.mode != before;
    }

    pub(crate) fn segment(&self, name: SegName) -> &Segment {
        &self.seg[name as usize].arch
    }

    pub(crate) fn selector(&self, name: SegName) -> u16 {
        self.segment(name).selector
    }

    /// The linear address of `bytes` bytes at an offset, after all checks of the segment.
    pub(crate) fn check_segment(&self, name: u8, offset: u32, bytes: u32, write: bool) -> Result<u32> {
        let seg = &self.seg[name as usize];
        let linear = seg.arch.base.wrapping_add(offset);
        if seg.allows(offset, bytes, write) {
            return Ok(linear);
        }
        let error = if name == SegName::SS as u8 { Exception::SS0 } else { Exception::GP0 };
        let a = &seg.arch;
        let protected = self.protected();
        if protected {
            let readable = a.access & CODE == 0 || a.access & READ_WRITE != 0;
            let writable = a.access & CODE == 0 && a.access & READ_WRITE != 0;
            if a.null || a.access & PRESENT == 0 || !readable || write && !writable {
                return Err(error);
            }
        }
        let last = u64::from(offset) + u64::from(bytes) - 1;
        let inside = if protected && a.access & (CODE | EXPAND_DOWN) == EXPAND_DOWN {
            let top = if a.big { u64::from(u32::MAX) } else { 0xffff };
            offset > a.limit && last <= top
        } else {
            last <= a.limit.into()
        };
        if inside { Ok(linear) } else { Err(error) }
    }

    /// As [`Self::check_segment`] for reading a byte, for which code need only be executable.
    pub(crate) fn check_segment_to_run(&self, name: u8, offset: u32) -> Result<u32> {
        let a = &self.seg[name as usize].arch;
        if a.access & (PRESENT | CODE) == PRESENT | CODE && offset <= a.limit {
            return Ok(a.base.wrapping_add(offset));
        }
        self.check_segment(name, offset, 1, false)
    }

    /// Reads a descriptor; a selector outside its table is an error, #GP(selector) unless the
    /// caller maps it.
    pub(crate) fn descriptor(&mut self, selector: u16) -> Result<Descriptor> {
        let at = self.descriptor_address(selector).ok_or(Exception::protection(selector))?;
        let low = self.read_system::<u32>(at)?;
        let high = self.read_system::<u32>(at.wrapping_add(4))?;
        Ok(Descriptor { low, high, at })
    }

    fn descriptor_address(&self, selector: u16) -> Option<u32> {
        let (base, limit) = if selector & 4 == 0 {
            (self.gdtr.base, self.gdtr.limit.into())
        } else if self.ldtr.null {
            return None;
        } else {
            (self.ldtr.base, self.ldtr.limit)
        };
        let offset = u32::from(selector & !7);
        (offset + 7 <= limit).then(|| base.wrapping_add(offset))
    }

    /// Sets the accessed bit of a code or data descriptor in memory.
    pub(crate) fn mark_accessed(&mut self, d: &mut Descriptor) -> Result<()> {
        if d.access() & ACCESSED == 0 {
            d.high |= u32::from(ACCESSED) << 8;
            self.write_system::<u8>(d.at.wrapping_add(5), d.access())?;
        }
        Ok(())
    }

    /// MOV, POP and the like to a segment register other than CS.
    pub(crate) fn load_segment(&mut self, name: SegName, selector: u16) -> Result<()> {
        if self.real_segments() {
            self.load_real_segment(name, selector);
            return Ok(());
        }
        let segment = if name == SegName::SS {
            self.stack_segment(selector, self.cpl, Exception::protection)?
        } else {
            self.data_segment(selector)?
        };
        self.set_segment(name, segment);
        Ok(())
    }

    /// A selector as real and virtual-8086 mode take it. Real mode keeps limit and rights of the
    /// hidden part, which is what makes "unreal mode".
    pub(crate) fn load_real_segment(&mut self, name: SegName, selector: u16) {
        let base = u32::from(selector) << 4;
        let segment = if self.vm86() {
            Segment { access: 0xf3, ..Segment::real(selector) }
        } else if name == SegName::CS {
            Segment { selector, base, null: false, access: 0x93, ..*self.segment(name) }
        } else {
            Segment { selector, base, null: false, ..*self.segment(name) }
        };
        self.set_segment(name, segment);
    }

    fn data_segment(&mut self, selector: u16) -> Result<Segment> {
        if is_null(selector) {
            return Ok(null_segment(selector));
        }
        let mut d = self.descriptor(selector)?;
        let rpl = (selector & 3) as u8;
        let privileged = d.dpl() < rpl || d.dpl() < self.cpl;
        if !d.is_readable() || privileged && !d.is_conforming_code() {
            return Err(Exception::protection(selector));
        }
        if !d.present() {
            return Err(Exception::not_present(selector));
        }
        self.mark_accessed(&mut d)?;
        Ok(d.segment(selector))
    }

    /// A stack segment for privilege level `cpl`; `error` is #GP or, in a privilege change, #TS.
    pub(crate) fn stack_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        error: fn(u16) -> Exception,
    ) -> Result<Segment> {
        if is_null(selector) {
            return Err(error(0));
        }
        let mut d =
            self.descriptor(selector).map_err(|e| if e.vector == 13 { error(selector) } else { e })?;
        if (selector & 3) as u8 != cpl || d.dpl() != cpl || !d.is_writable_data() {
            return Err(error(selector));
        }
        if !d.present() {
            return Err(Exception::stack(selector));
        }
        self.mark_accessed(&mut d)?;
        Ok(d.segment(selector))
    }

    /// After a return to an outer level: data segments that the new level may not use are nulled.
    pub(crate) fn drop_inner_segments(&mut self) {
        for name in [SegName::ES, SegName::DS, SegName::FS, SegName::GS] {
            let s = *self.segment(name);
            let conforming = s.access & (CODE | CONFORMING) == CODE | CONFORMING;
            // A null selector's privilege bits go too.
            if s.null || !conforming && (s.access >> 5 & 3) < self.cpl {
                self.set_segment(name, null_segment(0));
            }
        }
    }

    /// I/O and some flag instructions: CPL is no more than IOPL.
    pub(crate) fn iopl_allows(&self) -> bool {
        self.cr0 & super::CR0_PE == 0 || self.cpl <= self.flags.iopl()
    }

    /// #GP(0) unless CPL is 0.
    pub(crate) fn require_cpl0(&self) -> Result<()> {
        if self.cpl == 0 { Ok(()) } else { Err(Exception::GP0) }
    }

    /// Whether a port access is allowed: CPL <= IOPL outside virtual-8086 mode, else the TSS's
    /// I/O permission bitmap.
    pub(crate) fn check_io(&mut self, port: u16, bytes: u32) -> Result<()> {
        if self.cr0 & super::CR0_PE == 0
            || self.flags.system & flags::VM == 0 && self.cpl <= self.flags.iopl()
        {
            return Ok(());
        }
        let wide = matches!(self.tr.access & 15, system::TSS32 | system::TSS32_BUSY);
        if self.tr.null || !wide || self.tr.limit < 103 {
            return Err(Exception::GP0);
        }
        let map = u32::from(self.read_system::<u16>(self.tr.base.wrapping_add(102))?);
        let at = map + u32::from(port / 8);
        if at + 1 > self.tr.limit {
            return Err(Exception::GP0);
        }
        let bits = self.read_system::<u16>(self.tr.base.wrapping_add(at))?;
        let mask = ((1 << bytes) - 1) << (port % 8);
        if u32::from(bits) & mask == 0 { Ok(()) } else { Err(Exception::GP0) }
    }
}

/// A data segment register with a null selector.
pub(crate) fn null_segment(selector: u16) -> Segment {
    Segment { selector, base: 0, limit: 0, access: 0, big: false, null: true }
}
