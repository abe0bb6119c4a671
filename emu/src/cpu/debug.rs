//! Debug registers (Intel SDM volume 3, chapter 17).

use super::{CR4_DE, Cpu, flags};

/// DR6.BD: debug register access detected.
pub(crate) const DR6_BD: u32 = 1 << 13;
/// DR6.BS: single step.
pub(crate) const DR6_BS: u32 = 1 << 14;
/// DR6.BT: task switch.
pub(crate) const DR6_BT: u32 = 1 << 15;
/// Bits of DR6 that always read one.
pub(crate) const DR6_FIXED: u32 = 0xffff_0ff0;
/// DR7.GD: general detect.
pub(crate) const DR7_GD: u32 = 1 << 13;
/// Bits of DR7 that always read one.
pub(crate) const DR7_FIXED: u32 = 0x400;
/// Bits of DR7 that exist.
pub(crate) const DR7_VALID: u32 = 0xffff_27ff;

/// The R/W field of a breakpoint.
mod kind {
    pub const EXECUTE: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const IO: u32 = 2;
    pub const ACCESS: u32 = 3;
}

/// Breakpoint `i` of DR7: enabled, kind, length in bytes.
fn breakpoint(dr7: u32, i: u32) -> (bool, u32, u32) {
    let enabled = dr7 >> (2 * i) & 3 != 0;
    let field = dr7 >> (16 + 4 * i) & 15;
    let len = [1, 2, 8, 4][(field >> 2) as usize];
    (enabled, field & 3, len)
}

/// What DR7 asks to be watched.
pub(crate) fn watch(dr7: u32, cr4: u32) -> super::Watch {
    let mut w = super::Watch::default();
    for i in 0..4 {
        match breakpoint(dr7, i) {
            (true, kind::EXECUTE, _) => w.code = true,
            (true, kind::IO, _) => w.io |= cr4 & CR4_DE != 0,
            (true, ..) => w.data = true,
            _ => {}
        }
    }
    w
}

impl Cpu {
    fn hits(&self, address: u32, bytes: u32, wanted: &[u32]) -> u32 {
        let mut hits = 0;
        for i in 0..4 {
            let (enabled, kind, len) = breakpoint(self.dr[7], i);
            let start = self.dr[i as usize] & !(len - 1);
            let overlap = address.wrapping_sub(start) < len || start.wrapping_sub(address) < bytes;
            if enabled && wanted.contains(&kind) && overlap {
                hits |= 1 << i;
            }
        }
        hits
    }

    /// An instruction breakpoint on the instruction at EIP, not suppressed by EFLAGS.RF.
    pub(crate) fn code_breakpoint(&mut self) -> bool {
        if self.flags.system & flags::RF != 0 {
            return false;
        }
        let hits = self.hits(self.linear_eip(), 1, &[kind::EXECUTE]);
        self.dr[6] |= hits;
        hits != 0
    }

    /// Notes data breakpoints and watchpoints that an access meets; the trap comes after the
    /// instruction.
    #[inline(always)]
    pub(crate) fn watch_data(&mut self, linear: u32, bytes: u32, write: bool) {
        if self.watch.data | self.watch.host {
            self.note_access(linear, bytes, write);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_access(&mut self, linear: u32, bytes: u32, write: bool) {
        if self.watch.host {
            self.debugger.note(linear, bytes, write);
            self.attention |= self.debugger.has_hit();
        }
        if self.watch.data {
            let wanted: &[u32] = if write { &[kind::WRITE, kind::ACCESS] } else { &[kind::ACCESS] };
            self.dr6_pending |= self.hits(linear, bytes, wanted);
            self.attention |= self.dr6_pending != 0;
        }
    }

    /// Notes I/O breakpoints that a port access meets.
    pub(crate) fn watch_io(&mut self, port: u16, bytes: u32) {
        if self.watch.io {
            self.dr6_pending |= self.hits(port.into(), bytes, &[kind::IO]);
            self.attention |= self.dr6_pending != 0;
        }
    }
}
