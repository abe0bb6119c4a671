//! Operands of uops: addresses, sources, destinations.
//!
//! Hot instructions are generic over [`Addr`], [`Source`] and [`Dest`], so that each combination
//! is straight code; the others use the `*_rm` methods of [`Cpu`].

use crate::Cpu;
use crate::cpu::regs::{Int, Reg};
use crate::dispatch::{Stop, Uop, form};
use crate::exception::Result;

/// How a memory operand's address is made.
pub(crate) trait Addr: 'static {
    /// This way of addressing with the registers taken from the uop, for the slow path.
    type Plain: Addr;
    /// The linear address of `bytes` bytes; segment checks included.
    fn linear<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<u32, Stop>;
}

/// `base + disp` in a flat segment.
pub(crate) struct Flat;
/// `base + index * scale + disp` in a flat segment.
pub(crate) struct FlatIndexed;
/// As [`Flat`], the base being general register `N`.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
pub(crate) struct Based<const N: u8>;
/// As [`FlatIndexed`], the base being general register `N`.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
pub(crate) struct BasedIndexed<const N: u8>;
/// Any segment, any address size.
pub(crate) struct Segmented;

/// An address in a flat segment. The segment's limit can be exceeded in one way alone: the access begins below
/// 4 GiB and ends beyond. Such an access crosses pages, so the slow path checks it.
#[inline(always)]
fn flat<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, at: u32, bytes: u32, write: bool) -> Result<u32, Stop> {
    if SLOW && at.checked_add(bytes - 1).is_none() {
        return cpu.check_segment(u.form & 7, at, bytes, write).map_err(|e| cpu.stop(e));
    }
    Ok(at)
}

impl Addr for Flat {
    type Plain = Self;
    #[inline(always)]
    fn linear<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<u32, Stop> {
        let at = cpu.regs.get::<u32>(u.base).wrapping_add(u.disp);
        flat::<SLOW>(cpu, u, at, bytes, write)
    }
}

impl Addr for FlatIndexed {
    type Plain = Self;
    #[inline(always)]
    fn linear<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<u32, Stop> {
        let at = cpu.sum(u);
        flat::<SLOW>(cpu, u, at, bytes, write)
    }
}

impl<const N: u8> Addr for Based<N> {
    type Plain = Flat;
    #[inline(always)]
    fn linear<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<u32, Stop> {
        let at = cpu.regs.r32(N).wrapping_add(u.disp);
        flat::<SLOW>(cpu, u, at, bytes, write)
    }
}

impl<const N: u8> Addr for BasedIndexed<N> {
    type Plain = FlatIndexed;
    #[inline(always)]
    fn linear<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<u32, Stop> {
        let at = cpu.regs.r32(N).wrapping_add(cpu.scaled_index(u)).wrapping_add(u.disp);
        flat::<SLOW>(cpu, u, at, bytes, write)
    }
}

impl Addr for Segmented {
    type Plain = Self;
    #[inline(always)]
    fn linear<const SLOW: bool>(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<u32, Stop> {
        let offset = cpu.offset(u);
        if SLOW {
            return cpu.check_segment(u.form & 7, offset, bytes, write).map_err(|e| cpu.stop(e));
        }
        let seg = &cpu.seg[usize::from(u.form & 7) % 6];
        if seg.allows(offset, bytes, write) {
            Ok(seg.arch.base.wrapping_add(offset))
        } else {
            Err(Stop::Slow)
        }
    }
}

/// An operand that is read.
pub(crate) trait Source: 'static {
    /// This operand with its register taken from the uop, for the slow path.
    type Plain: Source;
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop>;
}

/// An operand that is written, or read and written.
pub(crate) trait Dest: 'static {
    /// This operand with its register taken from the uop, for the slow path.
    type Plain: Dest;
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop>;
    fn set<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop, v: T) -> Result<(), Stop>;
    #[inline(always)]
    fn modify<T: Int, const SLOW: bool>(
        cpu: &mut Cpu,
        u: &Uop,
        f: impl FnOnce(&mut Cpu, T) -> T,
    ) -> Result<(), Stop> {
        let old = Self::get::<T, SLOW>(cpu, u)?;
        let new = f(cpu, old);
        Self::set::<T, SLOW>(cpu, u, new)
    }
}

/// The register `Uop::src`.
pub(crate) struct SrcReg;
/// `Uop::imm`.
pub(crate) struct SrcImm;
/// `Uop::disp`, as an immediate.
pub(crate) struct SrcDisp;
/// The sum of the register `Uop::src` and of `Uop::imm`: one of the two where the other is zero.
pub(crate) struct SrcSum;
/// The memory operand, read.
pub(crate) struct SrcMem<A>(std::marker::PhantomData<A>);
/// The register `Uop::dst`.
pub(crate) struct DstReg;
/// The memory operand, written.
pub(crate) struct DstMem<A>(std::marker::PhantomData<A>);
/// General register `N` of 32 bits, as source or destination. Its place is a constant of the handler's
/// code then: one load less to find it, and processors that rename memory forward what was stored there
/// without delay.
///
/// With [`ANY`] for `N` it is the operand that the uop names.
pub(crate) struct R<const N: u8>;

/// The low byte or word of general register `N`.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
pub(crate) struct Low<const N: u8>;

/// In place of a register's number: where dispatch costs so much that handlers of each register's own
/// would bring nothing.
pub(crate) const ANY: u8 = 8;

impl<const N: u8> R<N> {
    #[inline(always)]
    fn place(operand: Reg) -> Reg {
        if N == ANY { operand } else { Reg::dword(N) }
    }
}

impl Source for SrcReg {
    type Plain = Self;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(cpu.regs.get(u.src))
    }
}

impl Source for SrcImm {
    type Plain = Self;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(_: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(T::truncate(u.imm))
    }
}

impl Source for SrcDisp {
    type Plain = Self;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(_: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(T::truncate(u.disp))
    }
}

impl Source for SrcSum {
    type Plain = Self;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(T::truncate(cpu.regs.get::<u32>(u.src).wrapping_add(u.imm)))
    }
}

impl<A: Addr> Source for SrcMem<A> {
    type Plain = SrcMem<A::Plain>;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        let at = A::linear::<SLOW>(cpu, u, T::BYTES, false)?;
        cpu.load::<T, SLOW>(at)
    }
}

impl<const N: u8> Source for R<N> {
    type Plain = SrcReg;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(cpu.regs.get(Self::place(u.src)))
    }
}

impl<const N: u8> Source for Low<N> {
    type Plain = SrcReg;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Result<T, Stop> {
        Ok(cpu.regs.low(N))
    }
}

impl<const N: u8> Dest for Low<N> {
    type Plain = DstReg;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Result<T, Stop> {
        Ok(cpu.regs.low(N))
    }
    #[inline(always)]
    fn set<T: Int, const SLOW: bool>(cpu: &mut Cpu, _: &Uop, v: T) -> Result<(), Stop> {
        cpu.regs.set_low(N, v);
        Ok(())
    }
}

impl Dest for DstReg {
    type Plain = Self;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(cpu.regs.get(u.dst))
    }
    #[inline(always)]
    fn set<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop, v: T) -> Result<(), Stop> {
        cpu.regs.set(u.dst, v);
        Ok(())
    }
}

impl<const N: u8> Dest for R<N> {
    type Plain = DstReg;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        Ok(cpu.regs.get(Self::place(u.dst)))
    }
    #[inline(always)]
    fn set<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop, v: T) -> Result<(), Stop> {
        cpu.regs.set(Self::place(u.dst), v);
        Ok(())
    }
}

impl<A: Addr> Dest for DstMem<A> {
    type Plain = DstMem<A::Plain>;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Result<T, Stop> {
        let at = A::linear::<SLOW>(cpu, u, T::BYTES, false)?;
        cpu.load::<T, SLOW>(at)
    }
    #[inline(always)]
    fn set<T: Int, const SLOW: bool>(cpu: &mut Cpu, u: &Uop, v: T) -> Result<(), Stop> {
        let at = A::linear::<SLOW>(cpu, u, T::BYTES, true)?;
        cpu.store::<T, SLOW>(at, v)
    }
    #[inline(always)]
    fn modify<T: Int, const SLOW: bool>(
        cpu: &mut Cpu,
        u: &Uop,
        f: impl FnOnce(&mut Cpu, T) -> T,
    ) -> Result<(), Stop> {
        let at = A::linear::<SLOW>(cpu, u, T::BYTES, true)?;
        cpu.modify::<T, SLOW>(at, f)
    }
}

impl Cpu {
    /// `base + index * scale + disp`.
    #[inline(always)]
    pub(crate) fn sum(&self, u: &Uop) -> u32 {
        self.regs.get::<u32>(u.base).wrapping_add(self.scaled_index(u)).wrapping_add(u.disp)
    }

    /// `index * scale`.
    #[inline(always)]
    fn scaled_index(&self, u: &Uop) -> u32 {
        self.regs.get::<u32>(u.index) << (u.form >> form::SCALE)
    }

    /// The memory operand's offset in its segment.
    #[inline(always)]
    pub(crate) fn offset(&self, u: &Uop) -> u32 {
        let sum = self.sum(u);
        if u.addr16() { sum & 0xffff } else { sum }
    }

    /// The memory operand's linear address, after all segment checks.
    pub(crate) fn linear(&self, u: &Uop, bytes: u32, write: bool) -> Result<u32> {
        self.check_segment(u.form & 7, self.offset(u), bytes, write)
    }

    /// Reads the memory operand `delta` bytes on (offsets wrap at the address size).
    pub(crate) fn read_mem<T: Int>(&mut self, u: &Uop, delta: u32) -> Result<T> {
        let offset = self.wrap_offset(u, delta);
        let at = self.check_segment(u.form & 7, offset, T::BYTES, false)?;
        self.read(at)
    }

    /// Writes the memory operand `delta` bytes on.
    pub(crate) fn write_mem<T: Int>(&mut self, u: &Uop, delta: u32, v: T) -> Result<()> {
        let offset = self.wrap_offset(u, delta);
        let at = self.check_segment(u.form & 7, offset, T::BYTES, true)?;
        self.write(at, v)
    }

    /// The memory operand's offset `delta` bytes on.
    pub(crate) fn wrap_offset(&self, u: &Uop, delta: u32) -> u32 {
        let offset = self.offset(u).wrapping_add(delta);
        if u.addr16() { offset & 0xffff } else { offset }
    }

    /// Reads the r/m operand: the memory operand or the register `dst`.
    pub(crate) fn get_rm<T: Int>(&mut self, u: &Uop) -> Result<T> {
        if u.is_mem() { self.read_mem(u, 0) } else { Ok(self.regs.get(u.dst)) }
    }

    /// Writes the r/m operand.
    pub(crate) fn set_rm<T: Int>(&mut self, u: &Uop, v: T) -> Result<()> {
        if u.is_mem() {
            self.write_mem(u, 0, v)
        } else {
            self.regs.set(u.dst, v);
            Ok(())
        }
    }

    /// Raises what writing the r/m operand would raise.
    pub(crate) fn probe_rm<T: Int>(&mut self, u: &Uop) -> Result<()> {
        if u.is_mem() {
            let at = self.linear(u, T::BYTES, true)?;
            self.probe_write(at, T::BYTES)?;
        }
        Ok(())
    }

    /// Writes a register that an instruction names by number, at 16 or 32 bits.
    pub(crate) fn set_reg_sized(&mut self, r: Reg, v: u32, op16: bool) {
        if op16 { self.regs.set(r, v as u16) } else { self.regs.set(r, v) }
    }

    /// The EIP of the instruction after `u`.
    pub(crate) fn next_eip(&self, u: &Uop) -> u32 {
        self.eip.wrapping_add(u.at.end())
    }

    /// The EIP of the instruction `u`.
    pub(crate) fn this_eip(&self, u: &Uop) -> u32 {
        self.eip.wrapping_add(u.at.start())
    }

    /// Selector of the memory operand's segment.
    pub(crate) fn operand_selector(&self, u: &Uop) -> u16 {
        self.seg[usize::from(u.form & 7) % 6].arch.selector
    }
}
