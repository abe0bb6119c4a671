//! Tests that run on any host; `host_test` compares with a real processor.

use super::softfloat::{self, Double, Float, Single};
use super::*;

/// The bytes of an instruction.
pub(crate) fn encode(row: &Row, insn: &Insn) -> Vec<u8> {
    let mut code = match row.prefix {
        Prefix::None | Prefix::Any => vec![],
        Prefix::P66 => vec![0x66],
        Prefix::F3 => vec![0xf3],
        Prefix::F2 => vec![0xf2],
    };
    code.extend([0x0f, row.opcode]);
    if row.has_modrm() {
        let reg = row.extension.unwrap_or(insn.reg) << 3;
        // [edi], [rdi] in 64-bit mode, or a register.
        code.push(if insn.memory { reg | 7 } else { 0xc0 | reg | insn.rm });
    }
    if row.form.imm {
        code.push(insn.imm);
    }
    code
}

/// A small processor: registers, and 32 bytes of memory whose operand is at an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Toy {
    pub xmm: [u128; 8],
    pub mmx: [u64; 8],
    pub gpr: [u32; 8],
    pub memory: [u8; 32],
    /// Where the memory operand is, and where EDI points.
    pub address: usize,
    pub mxcsr: u32,
    pub flags: u32,
    /// True after an instruction that used MMX registers, false after EMMS.
    pub mmx_mode: Option<bool>,
    /// Every memory access faults.
    pub fault: bool,
}

impl Default for Toy {
    fn default() -> Self {
        Self {
            xmm: [0; 8],
            mmx: [0; 8],
            gpr: [0; 8],
            memory: [0; 32],
            address: 0,
            mxcsr: mxcsr::DEFAULT,
            flags: 0,
            mmx_mode: None,
            fault: false,
        }
    }
}

impl Toy {
    fn access(&self, aligned: bool) -> Result<()> {
        if aligned && !self.address.is_multiple_of(16) {
            Err(Exception::GP0)
        } else if self.fault {
            Err(Exception::page_fault(0))
        } else {
            Ok(())
        }
    }
}

impl Operands for Toy {
    fn xmm(&self, index: u8) -> u128 {
        self.xmm[usize::from(index)]
    }
    fn set_xmm(&mut self, index: u8, value: u128) {
        self.xmm[usize::from(index)] = value;
    }
    fn mmx(&self, index: u8) -> u64 {
        self.mmx[usize::from(index)]
    }
    fn set_mmx(&mut self, index: u8, value: u64) {
        assert_eq!(self.mmx_mode, Some(true), "MMX mode comes before the write");
        self.mmx[usize::from(index)] = value;
    }
    fn enter_mmx(&mut self) {
        self.mmx_mode = Some(true);
    }
    fn leave_mmx(&mut self) {
        self.mmx_mode = Some(false);
    }
    fn gpr(&self, index: u8) -> u32 {
        self.gpr[usize::from(index)]
    }
    fn set_gpr(&mut self, index: u8, value: u32) {
        self.gpr[usize::from(index)] = value;
    }
    fn load(&mut self, size: u8, aligned: bool) -> Result<u128> {
        self.access(aligned)?;
        let bytes = &self.memory[self.address..][..usize::from(size)];
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte)))
    }
    fn store(&mut self, size: u8, value: u128, aligned: bool) -> Result<()> {
        self.access(aligned)?;
        let size = usize::from(size);
        self.memory[self.address..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }
    fn store_masked(&mut self, size: u8, value: u128, mask: u16) -> Result<()> {
        self.access(false)?;
        for i in (0..usize::from(size)).filter(|i| mask >> i & 1 != 0) {
            self.memory[self.address + i] = value.to_le_bytes()[i];
        }
        Ok(())
    }
    fn probe(&mut self) -> Result<()> {
        self.access(false)
    }
    fn mxcsr(&self) -> u32 {
        self.mxcsr
    }
    fn set_mxcsr(&mut self, value: u32) {
        self.mxcsr = value;
    }
    fn set_arithmetic_flags(&mut self, flags: u32) {
        self.flags = flags;
    }
}

/// SplitMix64: the same numbers on every host.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number in which special values, near-special values and short fractions are frequent.
    pub fn float<F: Float>(&mut self) -> F {
        let near = |center: u64, random: &mut Self| center.wrapping_add(random.below(5)).wrapping_sub(2);
        let magnitude = match self.below(16) {
            0 => 0,
            1 => F::INFINITY,
            2 => F::INFINITY | F::QUIET | self.next() & F::FRACTION_MASK,
            3 => F::INFINITY | 1 | self.next() & F::FRACTION_MASK >> 1,
            4 => self.next() & F::FRACTION_MASK,
            5 => near(F::MIN_NORMAL, self),
            6 => near(F::INFINITY - 2, self),
            7 => 1 + self.below(3),
            8..=10 => {
                // About one, with few bits set.
                let exponent = (F::EXPONENT_MAX as u64 + self.below(8) - 4) << F::FRACTION;
                exponent | (self.below(16) << (F::FRACTION - 4))
            }
            11 => {
                // About the range of integers.
                let exponent = (F::EXPONENT_MAX as u64 + self.below(36)) << F::FRACTION;
                exponent | self.next() & F::FRACTION_MASK & (!0 << self.below(u64::from(F::FRACTION)))
            }
            12..=13 => {
                // About one, with many bits.
                let exponent = (F::EXPONENT_MAX as u64 + self.below(4) - 2) << F::FRACTION;
                exponent | self.next() & F::FRACTION_MASK
            }
            14 => {
                // Where products meet the limits of the format, and where doubles meet those of
                // singles.
                let bias = F::EXPONENT_MAX as u64;
                let at = [
                    bias / 2,
                    bias + bias / 2,
                    bias.saturating_sub(126),
                    bias.saturating_sub(149),
                    bias + 127,
                ];
                let exponent = (at[self.below(5) as usize] + self.below(4)).max(3) - 2;
                let keep = !0 << self.below(u64::from(F::FRACTION) + 1);
                let fraction = if self.below(3) == 0 { !0 } else { self.next() };
                (exponent << F::FRACTION) | fraction & keep & F::FRACTION_MASK
            }
            _ => self.next(),
        };
        F::signed(self.next() & 1 != 0, magnitude & !F::SIGN)
    }

    /// A register: numbers of one format, or any bits.
    pub fn register(&mut self) -> u128 {
        match self.below(3) {
            0 => (0..4).fold(0, |r, _| r << 32 | u128::from(self.float::<Single>().0)),
            1 => u128::from(self.float::<Double>().0) << 64 | u128::from(self.float::<Double>().0),
            _ => u128::from(self.next()) << 64 | u128::from(self.next()),
        }
    }
}

#[test]
fn table_is_ordered_and_every_row_is_found_by_its_encoding() {
    assert!(TABLE.is_sorted_by_key(|row| row.opcode));
    for (index, row) in TABLE.iter().enumerate() {
        let prefix = if row.prefix == Prefix::Any { Prefix::None } else { row.prefix };
        let memory = row.form.rm_kind == RmKind::Memory;
        let reg = row.extension.unwrap_or(0);
        let found = lookup(prefix, row.opcode, reg, memory);
        assert_eq!(found, Some(index as u16), "{}", row.name);
    }
}

#[test]
fn no_encoding_belongs_to_two_rows() {
    for prefix in [Prefix::None, Prefix::P66, Prefix::F3, Prefix::F2] {
        for opcode in 0..=0xff {
            for modrm in 0..16 {
                let rows = TABLE.iter().filter(|row| row.fits(prefix, opcode, modrm & 7, modrm > 7));
                assert!(rows.count() <= 1, "{prefix:?} 0f {opcode:02x}");
            }
        }
    }
}

#[test]
fn what_is_not_in_the_table_is_not_found() {
    assert_eq!(lookup(Prefix::None, 0x38, 0, false), None, "SSSE3");
    assert_eq!(lookup(Prefix::None, 0x6c, 0, false), None, "PUNPCKLQDQ has no MMX form");
    assert_eq!(lookup(Prefix::F3, 0xfc, 0, false), None);
    assert_eq!(lookup(Prefix::None, 0xae, 0, true), None, "FXSAVE is elsewhere");
    assert_eq!(lookup(Prefix::None, 0x50, 0, true), None, "MOVMSKPS takes no memory");
    assert_eq!(lookup(Prefix::None, 0x2b, 0, false), None, "MOVNTPS takes no register");
    assert_eq!(lookup(Prefix::None, 0x71, 3, false), None);
    assert_eq!(lookup(Prefix::None, 0xff, 0, false), None);
    assert_eq!(lookup(Prefix::None, 0x00, 0, false), None);
}

fn find(prefix: Prefix, opcode: u8, reg: u8, memory: bool) -> &'static Row {
    &TABLE[usize::from(lookup(prefix, opcode, reg, memory).unwrap())]
}

#[test]
fn units() {
    assert_eq!(find(Prefix::None, 0xfc, 0, false).unit(), Unit::Mmx);
    assert_eq!(find(Prefix::P66, 0xfc, 0, false).unit(), Unit::Sse);
    assert_eq!(find(Prefix::None, 0x2a, 0, false).unit(), Unit::Sse, "CVTPI2PS");
    assert!(find(Prefix::None, 0x2a, 0, false).touches_mmx());
    assert!(!find(Prefix::P66, 0x2a, 0, true).touches_mmx(), "CVTPI2PD from memory");
    assert_eq!(find(Prefix::None, 0x6e, 0, false).unit(), Unit::Mmx, "MOVD to MMX");
    assert_eq!(find(Prefix::None, 0x77, 0, false).unit(), Unit::Mmx, "EMMS");
    assert_eq!(find(Prefix::None, 0xc3, 0, true).unit(), Unit::None, "MOVNTI");
    assert_eq!(find(Prefix::None, 0xae, 7, false).unit(), Unit::None, "SFENCE");
    assert_eq!(find(Prefix::None, 0xae, 2, true).unit(), Unit::Sse, "LDMXCSR");
    assert_eq!(find(Prefix::None, 0xf7, 0, false).unit(), Unit::Mmx, "MASKMOVQ");
}

#[test]
fn unaligned_operands_fault_where_they_must() {
    let insn = Insn { memory: true, ..Insn::default() };
    let mut toy = Toy { address: 1, ..Toy::default() };
    let result = |row: &Row, toy: &mut Toy| execute(row, &insn, toy);
    assert_eq!(result(find(Prefix::None, 0x28, 0, true), &mut toy), Err(Exception::GP0), "MOVAPS");
    assert_eq!(result(find(Prefix::None, 0x29, 0, true), &mut toy), Err(Exception::GP0), "MOVAPS");
    assert_eq!(result(find(Prefix::P66, 0xe7, 0, true), &mut toy), Err(Exception::GP0), "MOVNTDQ");
    assert_eq!(result(find(Prefix::None, 0x58, 0, true), &mut toy), Err(Exception::GP0), "ADDPS");
    assert_eq!(result(find(Prefix::None, 0x10, 0, true), &mut toy), Ok(()), "MOVUPS");
    assert_eq!(result(find(Prefix::F2, 0xf0, 0, true), &mut toy), Ok(()), "LDDQU");
    assert_eq!(result(find(Prefix::F3, 0x58, 0, true), &mut toy), Ok(()), "ADDSS");
    assert_eq!(result(find(Prefix::None, 0xfc, 0, true), &mut toy), Ok(()), "PADDB, MMX");
}

#[test]
fn memory_faults_change_nothing() {
    for row in TABLE.iter().filter(|row| matches!(row.form.rm_kind, RmKind::Any | RmKind::Memory)) {
        let before = Toy { fault: true, xmm: [!0; 8], ..Toy::default() };
        let mut toy = before.clone();
        let result = execute(row, &Insn { memory: true, ..Insn::default() }, &mut toy);
        let expected = if matches!(row.op, Op::Nothing) { Ok(()) } else { Err(Exception::page_fault(0)) };
        assert_eq!(result, expected, "{}", row.name);
        assert_eq!(toy, before, "{}", row.name);
    }
}

#[test]
fn ldmxcsr_refuses_reserved_bits() {
    let ldmxcsr = find(Prefix::None, 0xae, 2, true);
    let insn = Insn { memory: true, ..Insn::default() };
    let mut toy = Toy::default();
    toy.memory[..4].copy_from_slice(&0x1_1f80u32.to_le_bytes());
    assert_eq!(execute(ldmxcsr, &insn, &mut toy), Err(Exception::GP0));
    assert_eq!(toy.mxcsr, mxcsr::DEFAULT);
    toy.memory[..4].copy_from_slice(&0xffc0u32.to_le_bytes());
    assert_eq!(execute(ldmxcsr, &insn, &mut toy), Ok(()));
    assert_eq!(toy.mxcsr, 0xffc0);
}

#[test]
fn an_unmasked_exception_leaves_the_destination_and_sets_the_flag() {
    let divss = find(Prefix::F3, 0x5e, 0, false);
    let mut toy = Toy { mxcsr: mxcsr::DEFAULT & !(mxcsr::ZE << mxcsr::MASK_SHIFT), ..Toy::default() };
    toy.xmm[0] = 1f32.to_bits().into();
    assert_eq!(execute(divss, &Insn { rm: 1, ..Insn::default() }, &mut toy), Err(Exception::SIMD_ERROR));
    assert_eq!(toy.xmm[0], 1f32.to_bits().into());
    assert_eq!(toy.mxcsr & 0x3f, mxcsr::ZE);
}

/// The fast paths of `float` against the integers of `softfloat`, through the table's functions.
fn fast_equals_slow<F: Float>(
    name: &str,
    fast: FloatFn,
    slow: impl Fn(&mut Env, F, F) -> F,
    random: &mut Random,
) {
    for _ in 0..20_000 {
        let (a, b) = (random.float::<F>(), random.float::<F>());
        let mxcsr = mxcsr::DEFAULT | random.next() as u32 & (mxcsr::PE | mxcsr::DAZ | mxcsr::FTZ);
        let (mut env, mut slow_env) = (Env::new(mxcsr), Env::new(mxcsr));
        let mut got = a.bits().into();
        fast(&mut env, &mut got, &b.bits().into(), 0).unwrap();
        let result = slow(&mut slow_env, a, b);
        let want = slow_env.finish(u128::from(result.bits())).unwrap();
        assert_eq!((got, env.mxcsr), (want, slow_env.mxcsr), "{name} {:x} {:x}", a.bits(), b.bits());
    }
}

#[test]
fn fast_paths_equal_softfloat() {
    let random = &mut Random(1);
    fast_equals_slow::<Single>("addss", float::addss, softfloat::add, random);
    fast_equals_slow::<Double>("addsd", float::addsd, softfloat::add, random);
    fast_equals_slow::<Single>("subss", float::subss, softfloat::sub, random);
    fast_equals_slow::<Double>("subsd", float::subsd, softfloat::sub, random);
    fast_equals_slow::<Single>("mulss", float::mulss, softfloat::mul, random);
    fast_equals_slow::<Double>("mulsd", float::mulsd, softfloat::mul, random);
    fast_equals_slow::<Single>("divss", float::divss, softfloat::div, random);
    fast_equals_slow::<Double>("divsd", float::divsd, softfloat::div, random);
    fast_equals_slow::<Single>("sqrtss", float::sqrtss, |env, _, b| softfloat::sqrt(env, b), random);
    fast_equals_slow::<Double>("sqrtsd", float::sqrtsd, |env, _, b| softfloat::sqrt(env, b), random);
}
