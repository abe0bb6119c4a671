//! MMX and SSE: what stands between the instruction and [`crate::simd`].

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::float::{NOT_NEAR, check_pending};
use super::lower::{AddrKind, Builder, by_addr};
use super::operand::{Addr, Flat, FlatIndexed};
use crate::Cpu;
use crate::cpu::regs::gpr;
use crate::cpu::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT};
use crate::dispatch::{Flow, Handler, Op, Step, Stop, Uop, quick, step};
use crate::exception::{Exception, Result};
use crate::simd::{self, Unit};

/// The processor as an MMX or SSE instruction sees it. If the operand is to be `NEAR`, it is at `at` and read through
/// the TLB alone.
struct Simd<'a, const NEAR: bool> {
    cpu: &'a mut Cpu,
    u: &'a Uop,
    at: u32,
}

impl<const NEAR: bool> Simd<'_, NEAR> {
    fn linear(&self, size: u8, aligned: bool, write: bool) -> Result<u32> {
        // Before the segment is asked: a misaligned operand beyond the stack's limit is #GP, too.
        let base = self.cpu.seg[usize::from(self.u.form & 7) % 6].arch.base;
        if aligned && base.wrapping_add(self.cpu.offset(self.u)) & 15 != 0 {
            return Err(Exception::GP0);
        }
        self.cpu.linear(self.u, size.into(), write)
    }
}

impl<const NEAR: bool> simd::Operands for Simd<'_, NEAR> {
    fn xmm(&self, index: u8) -> u128 {
        self.cpu.xmm[usize::from(index & 7)]
    }
    fn set_xmm(&mut self, index: u8, value: u128) {
        self.cpu.xmm[usize::from(index & 7)] = value;
    }
    fn mmx(&self, index: u8) -> u64 {
        self.cpu.fpu.mmx(index)
    }
    fn set_mmx(&mut self, index: u8, value: u64) {
        self.cpu.fpu.set_mmx(index, value);
    }
    fn enter_mmx(&mut self) {
        self.cpu.fpu.enter_mmx();
    }
    fn leave_mmx(&mut self) {
        self.cpu.fpu.emms();
    }
    fn gpr(&self, index: u8) -> u32 {
        self.cpu.regs.r32(index)
    }
    fn set_gpr(&mut self, index: u8, value: u32) {
        self.cpu.regs.set_r32(index, value);
    }
    #[inline(always)]
    fn load(&mut self, size: u8, aligned: bool) -> Result<u128> {
        if NEAR {
            let value =
                if aligned && self.at & 15 != 0 { None } else { self.cpu.load_wide(self.at, size).ok() };
            return value.ok_or(NOT_NEAR);
        }
        let at = self.linear(size, aligned, false)?;
        Ok(match size {
            1 => self.cpu.read::<u8>(at)?.into(),
            2 => self.cpu.read::<u16>(at)?.into(),
            4 => self.cpu.read::<u32>(at)?.into(),
            8 => u64::from_le_bytes(self.cpu.read_array(at)?).into(),
            _ => u128::from_le_bytes(self.cpu.read_array(at)?),
        })
    }
    fn store(&mut self, size: u8, value: u128, aligned: bool) -> Result<()> {
        let at = self.linear(size, aligned, true)?;
        match size {
            1 => self.cpu.write(at, value as u8),
            2 => self.cpu.write(at, value as u16),
            4 => self.cpu.write(at, value as u32),
            8 => self.cpu.write_array(at, &(value as u64).to_le_bytes()),
            _ => self.cpu.write_array(at, &value.to_le_bytes()),
        }
    }
    fn store_masked(&mut self, size: u8, value: u128, mask: u16) -> Result<()> {
        let edi = self.cpu.regs.r32(gpr::EDI);
        let offset = if self.u.addr16() { edi & 0xffff } else { edi };
        // MMX mode comes before any fault. The whole operand must be writable, whatever the mask.
        if size == 8 {
            self.cpu.fpu.enter_mmx();
        }
        let at = self.cpu.check_segment(self.u.form & 7, offset, size.into(), true)?;
        for part in (0..size).step_by(8) {
            self.cpu.probe_write(at.wrapping_add(part.into()), 8)?;
        }
        for i in (0..u32::from(size)).filter(|i| mask >> i & 1 != 0) {
            self.cpu.write(at.wrapping_add(i), (value >> (8 * i)) as u8)?;
        }
        Ok(())
    }
    fn probe(&mut self) -> Result<()> {
        let at = self.cpu.check_segment_to_run(self.u.form & 7, self.cpu.offset(self.u))?;
        self.cpu.probe_read(at, 1)
    }
    fn mxcsr(&self) -> u32 {
        self.cpu.mxcsr
    }
    fn set_mxcsr(&mut self, value: u32) {
        self.cpu.mxcsr = value;
    }
    fn set_arithmetic_flags(&mut self, flags: u32) {
        self.cpu.flags.set_arith(flags);
    }
}

fn check_unit(cpu: &mut Cpu, row: &simd::Row, memory: bool) -> Result<()> {
    let unavailable = match row.unit() {
        Unit::None => return Ok(()),
        Unit::Mmx => cpu.cr0 & CR0_EM != 0,
        Unit::Sse => cpu.cr0 & CR0_EM != 0 || cpu.cr4 & CR4_OSFXSR == 0,
    };
    if unavailable {
        return Err(Exception::INVALID_OPCODE);
    }
    if cpu.cr0 & CR0_TS != 0 {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    if row.uses_mmx(memory) || matches!(row.op, simd::Op::Emms) {
        check_pending(cpu)?;
    }
    Ok(())
}

#[inline(never)]
fn simd_run(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let row = &simd::TABLE[(u.imm >> 16) as usize];
    check_unit(cpu, row, u.is_mem())?;
    let insn = simd_insn(u, u.is_mem());
    simd::execute(row, &insn, &mut Simd::<false> { cpu, u, at: 0 }).map_err(|e| match e {
        Exception::SIMD_ERROR if cpu.cr4 & CR4_OSXMMEXCPT == 0 => Exception::INVALID_OPCODE,
        e => e,
    })
}

#[inline(always)]
fn simd_insn(u: &Uop, memory: bool) -> simd::Insn {
    let modrm = (u.imm >> 8) as u8;
    simd::Insn { reg: modrm >> 3 & 7, rm: modrm & 7, imm: u.imm as u8, memory }
}

/// An SSE instruction by its row, on registers.
struct OnXmm<const ROW: usize>;
/// The same with an operand in memory.
struct OnXmmMemory<A, const ROW: usize>(P<A>);

/// Any MMX or SSE instruction, whatever it needs.
struct AnySimd;

impl Op for AnySimd {
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        simd_run(cpu, u).map_err(|e| cpu.stop(e))?;
        Ok(Flow::Next)
    }
}

impl<const ROW: usize> Op for OnXmm<ROW> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        simd_step(cpu, u, 0, simd_quick::<ROW, false>)
    }
}

impl<A: Addr, const ROW: usize> Op for OnXmmMemory<A, ROW> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let at = A::linear::<false>(cpu, u, 1, false)?;
        simd_step(cpu, u, at, simd_quick::<ROW, true>)
    }
}

/// SSE is there and on.
#[inline(always)]
fn has_sse(cpu: &Cpu) -> bool {
    cpu.cr0 & (CR0_EM | CR0_TS) == 0 && cpu.cr4 & CR4_OSFXSR != 0
}

#[inline(always)]
fn simd_step(cpu: &mut Cpu, u: &Uop, at: u32, run: fn(&mut Cpu, &Uop, u32) -> bool) -> Step {
    if has_sse(cpu) && run(cpu, u, at) { Ok(Flow::Next) } else { Err(Stop::Slow) }
}

/// Executes the instruction if its operand is at hand and it raises nothing, and says whether it did. It has a frame of
/// its own, because it passes the addresses of its locals on.
#[inline(never)]
fn simd_quick<const ROW: usize, const MEMORY: bool>(cpu: &mut Cpu, u: &Uop, at: u32) -> bool {
    let row = const {
        let row = simd::TABLE[ROW];
        assert!(
            matches!(row.unit(), Unit::Sse) && !row.touches_mmx(),
            "all that is to be checked is checked"
        );
        row
    };
    let before = cpu.mxcsr;
    let done = simd::execute(&row, &simd_insn(u, MEMORY), &mut Simd::<true> { cpu, u, at }).is_ok();
    if !done {
        // The slow path raises it, with all that comes with it.
        cpu.mxcsr = before;
    }
    done
}

/// Picks the instance of a handler for the row of an instruction that numerical programs are full of:
/// `by_row!(name, ROW => expression using ROW)`, or none.
macro_rules! by_row {
    ($name:expr, $ROW:ident => $e:expr) => {
        by_row!(@ $name, $ROW => $e,
            "addss" "addsd" "subss" "subsd" "mulss" "mulsd" "divss" "divsd" "sqrtss" "sqrtsd"
            "minss" "minsd" "maxss" "maxsd" "cmpss" "cmpsd" "ucomiss" "ucomisd" "comiss" "comisd"
            "cvtss2sd" "cvtsd2ss" "cvtsi2ss" "cvtsi2sd" "cvtss2si" "cvtsd2si" "cvttss2si" "cvttsd2si"
            "addps" "addpd" "subps" "subpd" "mulps" "mulpd" "divps" "divpd")
    };
    (@ $name:expr, $ROW:ident => $e:expr, $($known:literal)*) => {
        match $name {
            $($known => { const $ROW: usize = simd::row($known); Some($e) })*
            _ => None,
        }
    };
}

/// The quick handler of a row, if it has one.
fn by_opcode(kind: Option<AddrKind>, row: &simd::Row) -> Option<Handler> {
    match kind {
        None => by_row!(row.name, ROW => quick::<OnXmm<ROW>, AnySimd>),
        Some(AddrKind::Flat) => by_row!(row.name, ROW => quick::<OnXmmMemory<Flat, ROW>, AnySimd>),
        Some(AddrKind::Indexed) => by_row!(row.name, ROW => quick::<OnXmmMemory<FlatIndexed, ROW>, AnySimd>),
        Some(AddrKind::Segmented) => None,
    }
}

/// The registers in a SIMD uop's ModR/M byte: reg and r/m.
fn xmm_operands(u: &Uop) -> (usize, usize) {
    ((u.imm >> 11 & 7) as usize, (u.imm >> 8 & 7) as usize)
}

/// The common shapes of other SSE instructions, without the generality of [`simd::execute`]. The slow path is that of
/// all others.
macro_rules! shape {
    ($name:ident $(<$p:ident>)?, |$cpu:ident, $u:ident| $body:expr) => {
        impl $(<$p: Addr, const SIZE: u8>)? Op for $name $(<$p, SIZE>)? {
            #[inline(always)]
            fn exec<const SLOW: bool>($cpu: &mut Cpu, $u: &Uop) -> Step {
                if SLOW {
                    simd_run($cpu, $u).map_err(|e| $cpu.stop(e))?;
                } else if has_sse($cpu) {
                    $body
                } else {
                    return Err(Stop::Slow);
                }
                Ok(Flow::Next)
            }
        }
    };
}

/// Moves between registers.
struct Copy;
/// Moves from a general register.
struct FromGpr;
/// Operations between registers.
struct Wide;
/// Loads of SIZE bytes, zero-extended.
struct Load<A, const SIZE: u8>(P<A>);
/// Stores of SIZE bytes.
struct Store<A, const SIZE: u8>(P<A>);
/// Operations with SIZE bytes of memory.
struct WideMem<A, const SIZE: u8>(P<A>);
/// Operations that end in SIZE bytes of memory.
struct WideStore<A, const SIZE: u8>(P<A>);
/// Operations that end in a general register.
struct ToGpr;
/// Moves to a general register.
struct CopyToGpr;

shape!(Copy, |cpu, u| {
    let (reg, rm) = xmm_operands(u);
    cpu.xmm[reg] = cpu.xmm[rm];
});
shape!(FromGpr, |cpu, u| {
    let (reg, rm) = xmm_operands(u);
    cpu.xmm[reg] = cpu.regs.r32(rm as u8).into();
});
shape!(Wide, |cpu, u| wide(cpu, u, cpu.xmm[xmm_operands(u).1]));
shape!(Load<A>, |cpu, u| {
    let at = aligned::<A, SIZE>(cpu, u, false)?;
    cpu.xmm[xmm_operands(u).0] = cpu.load_wide(at, SIZE)?;
});
shape!(Store<A>, |cpu, u| {
    let at = aligned::<A, SIZE>(cpu, u, true)?;
    cpu.store_wide(at, SIZE, cpu.xmm[xmm_operands(u).0])?;
});
shape!(WideMem<A>, |cpu, u| {
    let at = aligned::<A, SIZE>(cpu, u, false)?;
    let src = cpu.load_wide(at, SIZE)?;
    wide(cpu, u, src);
});
shape!(WideStore<A>, |cpu, u| {
    let at = aligned::<A, SIZE>(cpu, u, true)?;
    let v = low_of(cpu, u, xmm_operands(u).0);
    cpu.store_wide(at, SIZE, v.into())?;
});
shape!(ToGpr, |cpu, u| {
    let (reg, rm) = xmm_operands(u);
    let v = low_of(cpu, u, rm);
    cpu.regs.set_r32(reg as u8, v as u32);
});
shape!(CopyToGpr, |cpu, u| {
    let (reg, rm) = xmm_operands(u);
    cpu.regs.set_r32(rm as u8, cpu.xmm[reg] as u32);
});

/// The address of the operand; alignment, where the row wants it, is the slow path's to complain of.
#[inline(always)]
fn aligned<A: Addr, const SIZE: u8>(cpu: &mut Cpu, u: &Uop, write: bool) -> core::result::Result<u32, Stop> {
    let at = A::linear::<false>(cpu, u, SIZE.into(), write)?;
    let misaligned = SIZE == 16 && at & 15 != 0 && simd::TABLE[(u.imm >> 16) as usize].form.aligned;
    if misaligned { Err(Stop::Slow) } else { Ok(at) }
}

// Out of line, so that the copies whose addresses are passed on are gone when the handler jumps.
#[inline(never)]
fn wide(cpu: &mut Cpu, u: &Uop, src: u128) {
    if let simd::Op::Wide(f) = simd::TABLE[(u.imm >> 16) as usize].op {
        f(&mut cpu.xmm[xmm_operands(u).0], &src, u.imm as u8);
    }
}

/// The low quadword of what the operation makes of a register, where the destination's old value does not matter.
#[inline(never)]
fn low_of(cpu: &mut Cpu, u: &Uop, register: usize) -> u64 {
    let mut v = 0;
    if let simd::Op::Wide(f) = simd::TABLE[(u.imm >> 16) as usize].op {
        f(&mut v, &cpu.xmm[register], u.imm as u8);
    }
    v as u64
}

/// Picks the instance of a handler for the size of an operand in memory: `by_size!(size, SIZE => expression using
/// SIZE)`, or none.
macro_rules! by_size {
    ($size:expr, $SIZE:ident => $e:expr) => {
        by_size!(@ $size, $SIZE => $e, 4 8 16)
    };
    (@ $size:expr, $SIZE:ident => $e:expr, $($known:literal)*) => {
        match $size {
            $($known => { const $SIZE: u8 = $known; Some($e) })*
            _ => None,
        }
    };
}

/// The quick handler for a row's shape, if it has one.
fn by_shape(kind: Option<AddrKind>, row: &simd::Row) -> Option<Handler> {
    use simd::{Class, Dest};
    let copies = matches!(row.op, simd::Op::Copy);
    if !copies && !matches!(row.op, simd::Op::Wide(_)) || row.touches_mmx() {
        return None;
    }
    let form = &row.form;
    let Some(kind) = kind else {
        return match (form.reg, form.rm, form.dest) {
            (Class::Xmm, Class::Xmm, Dest::Reg) if copies => Some(step::<Copy>),
            (Class::Xmm, Class::Xmm, Dest::Reg) => Some(step::<Wide>),
            (Class::Xmm, Class::Gpr, Dest::Reg) if copies => Some(step::<FromGpr>),
            (Class::Xmm, Class::Gpr, Dest::Rm) if copies => Some(step::<CopyToGpr>),
            (Class::Gpr, Class::Xmm, Dest::Reg) => Some(step::<ToGpr>),
            _ => None,
        };
    };
    if form.reg != Class::Xmm {
        return None;
    }
    match form.dest {
        Dest::Reg if copies => by_size!(form.size, SIZE => by_addr!(kind, A => step::<Load<A, SIZE>>)),
        Dest::Reg => by_size!(form.size, SIZE => by_addr!(kind, A => step::<WideMem<A, SIZE>>)),
        Dest::Rm if copies => by_size!(form.size, SIZE => by_addr!(kind, A => step::<Store<A, SIZE>>)),
        // MOVQ, MOVHPS and MOVHPD.
        Dest::Rm if form.size == 8 => Some(by_addr!(kind, A => step::<WideStore<A, 8>>)),
        Dest::Rm => None,
    }
}

/// Lowers an MMX or SSE instruction.
pub(super) fn simd(b: &mut Builder, i: &Insn, row: u16) {
    let imm = u32::from(row) << 16 | u32::from(i.modrm) << 8 | (i.imm & 0xff);
    let entry = &simd::TABLE[usize::from(row)];
    let kind = i.mem.is_some().then(|| b.addr_kind(i));
    let Some(run) = by_opcode(kind, entry).or_else(|| by_shape(kind, entry)) else {
        b.call(i, simd_run).imm = imm;
        return;
    };
    b.emit(i, run).imm = imm;
    b.leaves();
    match (entry.form.reg, entry.form.rm, entry.form.dest) {
        (simd::Class::Gpr, _, simd::Dest::Reg) => b.writes(i.reg()),
        (_, simd::Class::Gpr, simd::Dest::Rm) => b.writes(i.rm()),
        _ => {}
    }
    if matches!(entry.op, simd::Op::Compare(_)) {
        b.writes_flags(true, None);
    }
}

#[cfg(test)]
mod tests {
    use crate::bus::Unconnected;
    use crate::cpu::tests::flat;
    use crate::cpu::{CR4_OSFXSR, CR4_OSXMMEXCPT};
    use crate::simd::tests::encode;
    use crate::simd::{Class, Insn, RmKind, TABLE, mxcsr};
    use crate::{Cpu, Exit};

    const DATA: u32 = 0x10_0000;
    const CODE: u32 = 0x1000;

    /// Numbers that are the same each time, and among them those at which something changes.
    struct Numbers(u64);

    impl Numbers {
        fn any(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            self.0 ^ self.0 >> 29
        }

        fn quadword(&mut self) -> u64 {
            let double =
                [0.0, -0.0, 1.0, 3.0, -2.5, 1e300, 1e-300, 5e-324, f64::INFINITY, f64::NAN, 2e9, -3e9];
            let single = [0.0f32, -1.0, 3.0, 1e38, 1e-38, 1e-45, f32::NEG_INFINITY, f32::NAN, 4e9, 0.1];
            let n = self.any() as usize;
            match n >> 8 & 3 {
                0 => double[n % 12].to_bits(),
                1 => u64::from(single[n % 10].to_bits()) << 32 | u64::from(single[(n >> 4) % 10].to_bits()),
                _ => self.any(),
            }
        }
    }

    fn machine(code: &[u8], numbers: &mut Numbers, watched: bool) -> Cpu {
        let mut cpu = flat(&[]);
        cpu.mem.write(CODE, code);
        let mut s = cpu.state();
        s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
        s.xmm =
            std::array::from_fn(|_| u128::from(numbers.quadword()) << 64 | u128::from(numbers.quadword()));
        s.mxcsr = match numbers.any() & 3 {
            0 => numbers.any() as u32 & mxcsr::VALID,
            _ => mxcsr::DEFAULT | numbers.any() as u32 & 0x3f,
        };
        (s.gpr[0], s.gpr[1], s.gpr[2]) = (numbers.any() as u32, numbers.any() as u32, numbers.any() as u32);
        // Now and then it is misaligned.
        s.gpr[7] = DATA + if numbers.any() & 7 == 0 { 4 } else { 0 };
        for at in (DATA..DATA + 32).step_by(8) {
            cpu.mem.write_u64(at, numbers.quadword());
        }
        if watched {
            // A breakpoint on data elsewhere: nothing is reached through the TLB.
            (s.dr[0], s.dr[7]) = (DATA + 0x1000, 0x1_0402);
        }
        cpu.set_state(&s);
        cpu
    }

    #[test]
    fn quick_handlers_do_what_the_slow_path_does() {
        // What the TLB does not have is the slow path's, so the page is read and written first: mov al, [edi]; mov [edi], al
        const WARM: [u8; 4] = [0x8a, 0x07, 0x88, 0x07];
        for row in TABLE.iter().filter(|row| row.form.reg == Class::Xmm || row.form.rm == Class::Xmm) {
            for seed in 0..if cfg!(miri) { 2 } else { 100 } {
                let memory = match row.form.rm_kind {
                    RmKind::Any => seed & 1 != 0,
                    kind => kind == RmKind::Memory,
                };
                let insn = Insn { reg: 1, rm: 2, imm: seed as u8, memory };
                let code = [&WARM[..], &encode(row, &insn), &[0xf4]].concat();
                let [quick, slow] = [false, true].map(|watched| {
                    let mut cpu = machine(&code, &mut Numbers(seed), watched);
                    let exit = cpu.run(&mut Unconnected, 100);
                    assert!(matches!(exit, Exit::Halted | Exit::Shutdown), "{}", row.name);
                    let s = cpu.state();
                    let data: Vec<u32> = (0..8).map(|n| cpu.mem.read_u32(DATA + n * 4)).collect();
                    (exit, s.gpr, s.eip, s.eflags, s.xmm, s.mxcsr, data)
                });
                assert_eq!(quick, slow, "{} {code:02x?} {seed}", row.name);
            }
        }
    }
}
