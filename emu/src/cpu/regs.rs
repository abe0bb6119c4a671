//! The register file, addressed by byte offset so that AL, AH, AX and EAX are one mechanism.

#![allow(unsafe_code)]

/// Unsigned integers of operand width, and what flags need to know of them.
pub trait Int: Copy + Eq + Send + Sync + 'static {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u32 = Self::BITS / 8;
    /// The low bits of `v`.
    fn truncate(v: u32) -> Self;
    /// Zero-extended.
    fn zext(self) -> u32;
    /// Sign-extended.
    fn sext(self) -> u32;
    /// As often as 32 bits have room for it: a rotation of all is one of each.
    fn repeated(self) -> u32;
}

macro_rules! int {
    ($t:ty, $s:ty) => {
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn truncate(v: u32) -> Self {
                v as $t
            }
            #[inline(always)]
            fn zext(self) -> u32 {
                self as u32
            }
            #[inline(always)]
            fn sext(self) -> u32 {
                self as $s as i32 as u32
            }
            #[inline(always)]
            fn repeated(self) -> u32 {
                u32::from(self) * (u32::MAX / <$t>::MAX as u32)
            }
        }
    };
}
int!(u8, i8);
int!(u16, i16);
int!(u32, i32);

/// Numbers of the general registers.
pub mod gpr {
    #![allow(missing_docs)]
    pub const EAX: u8 = 0;
    pub const ECX: u8 = 1;
    pub const EDX: u8 = 2;
    pub const EBX: u8 = 3;
    pub const ESP: u8 = 4;
    pub const EBP: u8 = 5;
    pub const ESI: u8 = 6;
    pub const EDI: u8 = 7;
}

/// Byte offset of a register in [`RegFile`]. The only constructors give offsets at which four
/// bytes are inside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u8);

impl Reg {
    /// A register that reads as zero: the absent base or index of an address.
    pub const ZERO: Reg = Reg(32);

    /// EAX … EDI (also the low half of each).
    #[inline(always)]
    pub const fn dword(n: u8) -> Reg {
        Reg((n & 7) * 4)
    }

    /// AL CL DL BL AH CH DH BH.
    #[inline(always)]
    pub const fn byte(n: u8) -> Reg {
        let n = n & 7;
        if n < 4 { Reg(n * 4) } else { Reg((n - 4) * 4 + 1) }
    }

    /// The number of a register of 32 bits.
    pub const fn number(self) -> u8 {
        self.0 / 4
    }

    /// The register of number `n` in an operand of `bytes` bytes.
    pub const fn of_size(n: u8, bytes: u32) -> Reg {
        if bytes == 1 { Self::byte(n) } else { Self::dword(n) }
    }
}

/// EAX to EDI, then the zero register, then padding so that a read at any [`Reg`] is inside.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct RegFile {
    words: [u32; 12],
}

impl RegFile {
    /// All zero.
    pub const fn new() -> Self {
        Self { words: [0; 12] }
    }

    /// Reads a register at an operand's width.
    #[inline(always)]
    pub fn get<T: Int>(&self, r: Reg) -> T {
        // SAFETY: a Reg's offset is at most 32 and T has at most 4 bytes; the file has 48.
        unsafe { (&raw const self.words).cast::<u8>().add(r.0 as usize).cast::<T>().read_unaligned() }
    }

    /// Writes a register at an operand's width; the rest of it stays. `Reg::ZERO` is never a
    /// destination.
    #[inline(always)]
    pub fn set<T: Int>(&mut self, r: Reg, v: T) {
        debug_assert!(r != Reg::ZERO);
        if T::BITS < 32 {
            return self.merge(r.0 >> 2, u32::from(r.0 & 3) * 8, v);
        }
        // SAFETY: as in `get`.
        unsafe { (&raw mut self.words).cast::<u8>().add(r.0 as usize).cast::<T>().write_unaligned(v) }
    }

    /// Reads a 32-bit register by number (0 to 7).
    #[inline(always)]
    pub fn r32(&self, n: u8) -> u32 {
        self.words[n as usize & 7]
    }

    /// Writes a 32-bit register by number (0 to 7).
    #[inline(always)]
    pub fn set_r32(&mut self, n: u8, v: u32) {
        self.words[n as usize & 7] = v;
    }

    /// The low bits of a 32-bit register by number (0 to 7), of which all are read: what stored it stored all, and
    /// some processors hand that on at once, but not a part of it.
    #[inline(always)]
    pub fn low<T: Int>(&self, n: u8) -> T {
        // SAFETY: it is one of `words`, which are borrowed here.
        T::truncate(unsafe { (&raw const self.words[n as usize & 7]).read_volatile() })
    }

    /// Replaces the low bits of a 32-bit register by number (0 to 7).
    #[inline(always)]
    pub fn set_low<T: Int>(&mut self, n: u8, v: T) {
        self.merge(n, 0, v);
    }

    /// Replaces the bits of a 32-bit register by number (0 to 7) from `shift` on. All of it is written, for what comes
    /// next may read all, and processors do not hand on the store of a part to that: it would wait for the cache.
    #[inline(always)]
    fn merge<T: Int>(&mut self, n: u8, shift: u32, v: T) {
        let mask = u32::MAX >> (32 - T::BITS) << shift;
        let word = &raw mut self.words[n as usize & 7];
        // SAFETY: it is one of `words`, which are borrowed here. The accesses are volatile because the compiler
        // would make the store of a part of them.
        unsafe { word.write_volatile(word.read_volatile() & !mask | v.zext() << shift) }
    }

    /// The eight general registers.
    pub fn all(&self) -> [u32; 8] {
        std::array::from_fn(|i| self.words[i])
    }
}

impl Default for RegFile {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_byte_registers_alias_the_second_byte() {
        let mut r = RegFile::new();
        r.set_r32(gpr::EBX, 0x1122_3344);
        assert_eq!(r.get::<u8>(Reg::byte(7)), 0x33);
        r.set(Reg::byte(7), 0xaau8);
        assert_eq!(r.r32(gpr::EBX), 0x1122_aa44);
    }

    #[test]
    fn the_zero_register_reads_zero() {
        assert_eq!(RegFile::new().get::<u32>(Reg::ZERO), 0);
    }
}
