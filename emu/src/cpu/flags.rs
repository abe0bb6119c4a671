//! EFLAGS, with the six arithmetic flags kept lazily.
//!
//! Three words hold all six: `result`, the last result sign-extended to 32 bits; `carry`, what was carried out of the
//! operand's top bit; and `aux`, the exclusive or of the two operands, so that `result` xor `aux` has the carry *into*
//! each bit. An arithmetic instruction then costs one more operation and two stores, and no flag is computed before an
//! instruction reads it.
//!
//! | flag | from |
//! |---|---|
//! | ZF | `result == 0` |
//! | SF | bit 31 of `result`, inverted by bit 32 of `aux` |
//! | PF | parity of the low byte of `result` xor bits 40-47 of `aux` |
//! | CF | bit 0 of `carry`; the others mean nothing |
//! | OF | bit 31 of `result` xor `aux`, xor CF: the carries into and out of the top bit differ |
//! | AF | bit 4 of `result` xor `aux`: the carry into bit 4 |
//!
//! The upper half of `aux` is for flags that no result would give together.

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

/// The top bit of a result.
const TOP: u32 = 31;
/// The bit of `aux` that inverts SF.
const INVERTS_SIGN: u32 = 32;
/// The first of the bits of `aux` that PF is corrected by.
const PARITY: u32 = 40;
/// The bit that AF is the carry into.
const NIBBLE: u32 = 4;

/// EFLAGS.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Flags {
    result: u32,
    /// Behind `result`, for both come from a sum of 64 bits more often than not, and are stored at once.
    carry: u32,
    /// All but the arithmetic flags. Before `aux`, for the compiler would else load it with what is before it, which no
    /// processor forwards from the two stores that may just have been made.
    pub system: u32,
    aux: u64,
}

impl Default for Flags {
    fn default() -> Self {
        let mut f = Flags { result: 0, carry: 0, system: FIXED, aux: 0 };
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
        let bit = |flag: u32| u64::from(v & flag != 0);
        // A non-zero result with a positive sign and even parity, which aux then corrects.
        self.result = if v & ZF != 0 { 0 } else { 0x100 };
        self.carry = (v & CF != 0).into();
        self.aux = (bit(CF) ^ bit(OF)) << TOP
            | bit(AF) << NIBBLE
            | bit(SF) << INVERTS_SIGN
            | (bit(PF) ^ 1) << PARITY;
    }

    /// Carry.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        self.carry & 1 != 0
    }

    /// Parity of the low byte.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        ((self.result ^ (self.aux >> PARITY) as u32) as u8).count_ones() & 1 == 0
    }

    /// Carry out of bit 3.
    #[inline(always)]
    pub fn af(&self) -> bool {
        (self.result ^ self.aux as u32) >> NIBBLE & 1 != 0
    }

    /// Zero.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.result == 0
    }

    /// Sign.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        (self.result >> TOP ^ (self.aux >> INVERTS_SIGN) as u32) & 1 != 0
    }

    /// Overflow.
    #[inline(always)]
    pub fn of(&self) -> bool {
        ((self.result ^ self.aux as u32) >> TOP ^ self.carry) & 1 != 0
    }

    /// SF and OF differ: the first operand of a comparison was less, as signed numbers.
    #[inline(always)]
    fn less(&self) -> bool {
        ((self.aux >> TOP ^ self.aux >> INVERTS_SIGN) as u32 ^ self.carry) & 1 != 0
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
            6 => self.less(),
            _ => self.zf() || self.less(),
        };
        v != (c & 1 != 0)
    }

    /// Adds, and takes the flags from it.
    #[inline(always)]
    pub fn add<T: Int>(&mut self, a: T, b: T, carry: u32) -> T {
        let sum = u64::from(a.zext()).wrapping_add(b.zext().into()).wrapping_add(carry.into());
        self.set_sum(a, b, sum)
    }

    /// Subtracts, and takes the flags from it.
    #[inline(always)]
    pub fn sub<T: Int>(&mut self, a: T, b: T, borrow: u32) -> T {
        let difference = u64::from(a.zext()).wrapping_sub(b.zext().into()).wrapping_sub(borrow.into());
        self.set_sum(a, b, difference)
    }

    /// After an addition or subtraction of zero-extended operands in 64 bits.
    #[inline(always)]
    fn set_sum<T: Int>(&mut self, a: T, b: T, sum: u64) -> T {
        let r = T::truncate(sum as u32);
        self.result = r.sext();
        self.carry = (sum >> T::BITS) as u32;
        self.aux = T::truncate(a.zext() ^ b.zext()).sext().into();
        r
    }

    /// After a logical operation: CF, OF and AF clear.
    #[inline(always)]
    pub fn set_logic<T: Int>(&mut self, r: T) {
        self.result = r.sext();
        self.carry = 0;
        self.aux = self.result.into();
    }

    /// ZF, SF, PF from `r`; CF given in bit 0, and OF; AF clear.
    #[inline(always)]
    pub fn set_result<T: Int>(&mut self, r: T, carry: u32, of: bool) {
        self.result = r.sext();
        self.carry = carry;
        self.aux = (self.result ^ (carry ^ u32::from(of)) << TOP).into();
    }

    /// After a shift to the left in 64 bits: CF is the last bit that left the operand, OF says whether it differs
    /// from the result's sign, AF is clear.
    #[inline(always)]
    pub fn set_shifted_left<T: Int>(&mut self, shifted: u64) {
        self.result = T::truncate(shifted as u32).sext();
        self.carry = (shifted >> T::BITS) as u32;
        self.aux = (self.result & !(1 << TOP)).into();
    }

    /// After INC or DEC of `a` with result `r`: CF stays. The top bit of `carries` is the carry out of the
    /// operand's.
    #[inline(always)]
    fn set_count<T: Int>(&mut self, a: T, r: T, carries: T) {
        self.result = r.sext();
        // OF is CF xor the carry into the top bit, which is therefore inverted where CF is not the carry out.
        let inverted = (carries.sext() ^ self.carry << TOP) & 1 << TOP;
        self.aux = (a.sext() ^ inverted).into();
    }

    /// Adds one, and takes the flags from it, but CF stays.
    #[inline(always)]
    pub fn inc<T: Int>(&mut self, a: T) -> T {
        let r = T::truncate(a.zext().wrapping_add(1));
        self.set_count(a, r, T::truncate(a.zext() & !r.zext()));
        r
    }

    /// Subtracts one, and takes the flags from it, but CF stays.
    #[inline(always)]
    pub fn dec<T: Int>(&mut self, a: T) -> T {
        let r = T::truncate(a.zext().wrapping_sub(1));
        self.set_count(a, r, T::truncate(!a.zext() & r.zext()));
        r
    }

    /// Changes CF only.
    #[inline(always)]
    pub fn set_cf(&mut self, cf: bool) {
        let flip = (self.carry ^ u32::from(cf)) & 1;
        self.carry = cf.into();
        self.aux ^= u64::from(flip << TOP);
    }

    /// Changes CF and OF only: rotates.
    #[inline(always)]
    pub fn set_cf_of(&mut self, cf: bool, of: bool) {
        self.carry = cf.into();
        let top = (self.result ^ u32::from(cf != of) << TOP) & 1 << TOP;
        self.aux = self.aux & !(1 << TOP) | u64::from(top);
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
        assert_eq!(f.inc(0x7fff_ffffu32), 0x8000_0000);
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
