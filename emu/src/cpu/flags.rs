//! EFLAGS, with the six arithmetic flags kept lazily.
//!
//! Two words hold all six: `result`, the last result sign-extended to 32 bits, and `aux`, the
//! carries of the operation that gave it. An arithmetic instruction then costs two stores and no
//! flag is computed before an instruction reads it.
//!
//! | flag | from |
//! |---|---|
//! | ZF | `result == 0` |
//! | SF | bit 31 of `result`, inverted by `aux` bit 0 |
//! | PF | parity of the low byte of `result` xor bits 8-15 of `aux` |
//! | CF | bit 31 of `aux`: the carry out of the operand's top bit |
//! | OF | bit 31 xor bit 30 of `aux`: the carries out of and into the top bit differ |
//! | AF | bit 3 of `aux`: the carry out of bit 3 |

use super::regs::Int;

/// Carry.
pub const CF: u32 = 1 << 0;
/// Bit 1 always reads one.
pub const FIXED: u32 = 1 << 1;
/// Parity.
pub const PF: u32 = 1 << 2;
/// Auxiliary (BCD) carry.
pub const AF: u32 = 1 << 4;
/// Zero.
pub const ZF: u32 = 1 << 6;
/// Sign.
pub const SF: u32 = 1 << 7;
/// Trap: single step.
pub const TF: u32 = 1 << 8;
/// Interrupts enabled.
pub const IF: u32 = 1 << 9;
/// Direction of string instructions.
pub const DF: u32 = 1 << 10;
/// Overflow.
pub const OF: u32 = 1 << 11;
/// I/O privilege level, two bits.
pub const IOPL: u32 = 3 << 12;
/// Nested task.
pub const NT: u32 = 1 << 14;
/// Resume: no instruction breakpoint on the next instruction.
pub const RF: u32 = 1 << 16;
/// Virtual-8086 mode.
pub const VM: u32 = 1 << 17;
/// Alignment check.
pub const AC: u32 = 1 << 18;
/// Virtual interrupt flag (no VME here: storage only).
pub const VIF: u32 = 1 << 19;
/// Virtual interrupt pending (no VME here: storage only).
pub const VIP: u32 = 1 << 20;
/// CPUID is there if this bit can be changed.
pub const ID: u32 = 1 << 21;
/// The six arithmetic flags.
pub const ARITH: u32 = CF | PF | AF | ZF | SF | OF;

const AUX_CF: u32 = 1 << 31;
const AUX_PO: u32 = 1 << 30;

/// EFLAGS.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    result: u32,
    aux: u32,
    /// All but the arithmetic flags.
    pub system: u32,
}

impl Default for Flags {
    fn default() -> Self {
        let mut f = Flags { result: 0, aux: 0, system: FIXED };
        f.set(FIXED);
        f
    }
}

impl Flags {
    /// The value as PUSHF would store it.
    pub fn get(&self) -> u32 {
        self.system | self.arith()
    }

    /// Replaces all flags; no privilege rules.
    pub fn set(&mut self, v: u32) {
        self.system = (v & !ARITH & 0x3f_7fd7) | FIXED;
        self.set_arith(v);
    }

    /// The six arithmetic flags.
    pub fn arith(&self) -> u32 {
        let bit = |on: bool, flag: u32| if on { flag } else { 0 };
        bit(self.cf(), CF)
            | bit(self.pf(), PF)
            | bit(self.af(), AF)
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// Replaces the six arithmetic flags.
    pub fn set_arith(&mut self, v: u32) {
        // A non-zero result with a positive sign and even parity, which aux then corrects.
        self.result = if v & ZF != 0 { 0 } else { 0x100 };
        let (cf, of) = (v & CF != 0, v & OF != 0);
        self.aux = (u32::from(cf) << 31)
            | (u32::from(cf != of) << 30)
            | (u32::from(v & PF == 0) << 8)
            | (u32::from(v & AF != 0) << 3)
            | u32::from(v & SF != 0);
    }

    /// Carry.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        self.aux & AUX_CF != 0
    }

    /// Parity of the low byte.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        ((self.result ^ (self.aux >> 8)) as u8).count_ones() & 1 == 0
    }

    /// Carry out of bit 3.
    #[inline(always)]
    pub fn af(&self) -> bool {
        self.aux & 8 != 0
    }

    /// Zero.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.result == 0
    }

    /// Sign.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        (self.result >> 31) ^ (self.aux & 1) != 0
    }

    /// Overflow.
    #[inline(always)]
    pub fn of(&self) -> bool {
        (self.aux ^ (self.aux << 1)) & AUX_CF != 0
    }

    /// Condition `c` as Jcc encodes it (SDM volume 1, appendix B).
    #[inline(always)]
    pub fn condition(&self, c: u8) -> bool {
        let v = match c >> 1 & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        v != (c & 1 != 0)
    }

    /// After an operation with result `r` whose carries out of each bit are `carries`.
    #[inline(always)]
    pub fn set_carries<T: Int>(&mut self, r: T, carries: T) {
        let c = carries.zext();
        self.result = r.sext();
        self.aux = ((c << (32 - T::BITS)) & (AUX_CF | AUX_PO)) | (c & 8);
    }

    /// After a logical operation: CF, OF and AF clear.
    #[inline(always)]
    pub fn set_logic<T: Int>(&mut self, r: T) {
        self.result = r.sext();
        self.aux = 0;
    }

    /// ZF, SF, PF from `r`; CF and OF given; AF clear.
    #[inline(always)]
    pub fn set_result<T: Int>(&mut self, r: T, cf: bool, of: bool) {
        self.result = r.sext();
        self.aux = (u32::from(cf) << 31) | (u32::from(cf != of) << 30);
    }

    /// As `set_carries`, but CF stays: INC and DEC.
    #[inline(always)]
    pub fn set_carries_keep_cf<T: Int>(&mut self, r: T, carries: T) {
        let cf = self.aux & AUX_CF;
        self.set_carries(r, carries);
        // OF is the difference of the top two bits, so both flip when CF has to.
        let flip = (self.aux ^ cf) & AUX_CF;
        self.aux ^= flip | (flip >> 1);
    }

    /// Changes CF only.
    #[inline(always)]
    pub fn set_cf(&mut self, cf: bool) {
        let flip = (self.aux ^ (u32::from(cf) << 31)) & AUX_CF;
        self.aux ^= flip | (flip >> 1);
    }

    /// Changes CF and OF only: rotates.
    #[inline(always)]
    pub fn set_cf_of(&mut self, cf: bool, of: bool) {
        let rest = self.aux & !(AUX_CF | AUX_PO);
        self.aux = rest | (u32::from(cf) << 31) | (u32::from(cf != of) << 30);
    }

    /// Changes ZF only.
    pub fn set_zf(&mut self, zf: bool) {
        let v = self.arith() & !ZF;
        self.set_arith(v | if zf { ZF } else { 0 });
    }

    /// I/O privilege level.
    #[inline(always)]
    pub fn iopl(&self) -> u8 {
        (self.system >> 12 & 3) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives() {
        for bits in 0..64u32 {
            let v = (bits & 1)
                | (bits >> 1 & 1) << 2
                | (bits >> 2 & 1) << 4
                | (bits >> 3 & 1) << 6
                | (bits >> 4 & 1) << 7
                | (bits >> 5 & 1) << 11;
            let mut f = Flags::default();
            f.set(v | FIXED);
            assert_eq!(f.get(), v | FIXED);
        }
    }

    #[test]
    fn inc_keeps_the_carry_and_sets_overflow() {
        let mut f = Flags::default();
        f.set(CF);
        let (a, b) = (0x7fff_ffffu32, 1u32);
        let r = a.wrapping_add(b);
        f.set_carries_keep_cf(r, (a & b) | ((a | b) & !r));
        assert!(f.cf() && f.of() && f.sf() && f.af() && !f.zf());
    }

    #[test]
    fn set_cf_leaves_overflow() {
        for of in [0, OF] {
            let mut f = Flags::default();
            f.set(of);
            f.set_cf(true);
            assert_eq!(f.arith() & (CF | OF), CF | of);
        }
    }
}
