//! Every instruction against the host's own x87: the whole unit's state before and after, over
//! random operands among which the special values are common.
#![allow(unsafe_code)]

use super::*;

core::arch::global_asm!(
    // One stub per register form (D8 C0 to DF FF) and one per memory form (operand at RDI), each
    // four bytes: the instruction, RET, padding.
    ".balign 16",
    "env86_test_register_forms:",
    ".set opcode, 0xd8",
    ".rept 8",
    ".set modrm, 0xc0",
    ".rept 64",
    ".byte opcode, modrm, 0xc3, 0x90",
    ".set modrm, modrm + 1",
    ".endr",
    ".set opcode, opcode + 1",
    ".endr",
    "env86_test_memory_forms:",
    ".set opcode, 0xd8",
    ".rept 8",
    ".set modrm, 7",
    ".rept 8",
    ".byte opcode, modrm, 0xc3, 0x90",
    ".set modrm, modrm + 8",
    ".endr",
    ".set opcode, opcode + 1",
    ".endr",
);

/// What an instruction sees and leaves behind outside the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct World {
    pub(super) memory: [u8; 112],
    pub(super) flags: u64,
    pub(super) ax: u16,
}

impl Operands for World {
    fn load<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(core::array::from_fn(|i| self.memory[i]))
    }
    fn store<const N: usize>(&mut self, bytes: [u8; N]) -> Result<()> {
        self.memory[..N].copy_from_slice(&bytes);
        Ok(())
    }
    fn probe_store<const N: usize>(&mut self) -> Result<()> {
        Ok(())
    }
    fn set_ax(&mut self, value: u16) {
        self.ax = value;
    }
    fn eflags(&self) -> u32 {
        self.flags as u32
    }
    fn set_eflags(&mut self, zf: bool, pf: bool, cf: bool) {
        let bit = |set, flag| if set { u64::from(flag) } else { 0 };
        self.flags = self.flags & !u64::from(ARITHMETIC_FLAGS) | bit(zf, ZF) | bit(pf, PF) | bit(cf, CF);
    }
}

const ARITHMETIC_FLAGS: u32 = 0x8d5;

fn insn(opcode: u8, modrm: u8) -> Insn {
    Insn { opcode, modrm, op32: true, protected: true, cs: 0, eip: 0, ds: 0, dp: 0 }
}

fn image_of(fpu: &Fpu) -> [u8; environment::SAVE_32] {
    let mut image = [0; environment::SAVE_32];
    image[..environment::ENVIRONMENT_32].copy_from_slice(&fpu.environment32(&insn(0xdd, 0x37)));
    fpu.stack_image(&mut image[environment::ENVIRONMENT_32..]);
    image
}

fn fpu_of(image: &[u8; environment::SAVE_32]) -> Fpu {
    let mut fpu = Fpu::default();
    fpu.load_environment32(&insn(0xdd, 0x27), image);
    fpu.load_stack(&image[environment::ENVIRONMENT_32..]);
    fpu
}

/// Executes one instruction on the host; also gives the status word as the host has it.
fn hardware(opcode: u8, modrm: u8, fpu: &Fpu, world: &mut World) -> (Fpu, u16) {
    let mut image = image_of(fpu);
    let index = usize::from(opcode - 0xd8);
    let offset = if modrm >= 0xc0 {
        index * 64 + usize::from(modrm - 0xc0)
    } else {
        8 * 64 + index * 8 + usize::from(modrm >> 3 & 7)
    };
    // SAFETY: the stub is one x87 instruction and RET. It writes at most 108 bytes at RDI, which
    // `memory` has; FRSTOR and FNSAVE move exactly `image`. FNSAVE leaves the unit as FNINIT does,
    // which is what the ABI asks for between functions, and all its registers are declared.
    unsafe {
        core::arch::asm!(
            "frstor [{image}]",
            "lea {stub}, [rip + env86_test_register_forms]",
            "add {stub}, {offset}",
            "push {flags}",
            "popfq",
            "call {stub}",
            "pushfq",
            "pop {flags}",
            "fnsave [{image}]",
            image = in(reg) image.as_mut_ptr(),
            stub = out(reg) _,
            offset = in(reg) offset * 4,
            flags = inout(reg) world.flags,
            in("rdi") world.memory.as_mut_ptr(),
            inout("ax") world.ax,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    (fpu_of(&image), u16::from_le_bytes([image[4], image[5]]))
}

const SEED: u64 = 7;
const COUNT: usize = 20000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Bits in patterns that rounding cares about.
    fn bits(&mut self) -> u64 {
        let x = self.next();
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => x & u64::MAX << self.below(64),
            3 => x | u64::MAX >> self.below(64),
            4 => 1 << self.below(64),
            5 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            _ => x,
        }
    }

    fn f80(&mut self) -> F80 {
        const EXPONENTS: [u16; 15] =
            [0, 0, 0, 1, 2, 63, 64, 65, 0x3ffe, 0x3fff, 0x4000, 0x403d, 0x403e, 0x7ffe, 0x7fff];
        let significand = match self.below(8) {
            0 => 0,
            1 => 1 << 63,
            2 => 3 << 62 | self.bits(),
            3 => self.bits(),
            _ => 1 << 63 | self.bits(),
        };
        let exponent = match self.below(8) {
            0 | 1 => self.pick(&EXPONENTS),
            2 => 0x3fff - 20 + self.below(100) as u16,
            3 => 0x3fff - 160 + self.below(320) as u16,
            4 => 0x3fff - 1100 + self.below(2200) as u16,
            5 | 6 => 0x3fff - 4 + self.below(8) as u16,
            _ => self.below(0x8000) as u16,
        };
        F80::new(self.one_in(2), exponent, significand)
    }

    fn memory(&mut self) -> [u8; 112] {
        let mut memory = [0; 112];
        for chunk in memory.chunks_exact_mut(8) {
            let bits = match self.below(4) {
                0 => self.bits() & 0x800f_ffff_ffff_ffff | self.pick(&[0, 0x7ff << 52, 0x3ff << 52]),
                1 => self.bits() & 0x807f_ffff | self.pick(&[0, 0xff << 23, 0x7f << 23]),
                2 => self.below(1 << 20),
                _ => self.bits(),
            };
            chunk.copy_from_slice(&bits.to_le_bytes());
        }
        memory
    }

    fn fpu(&mut self) -> Fpu {
        let mut fpu = Fpu::default();
        let masks = if self.one_in(3) { self.below(64) as u16 } else { 0x3f };
        let mode = if self.one_in(3) { 3 } else { self.below(16) as u16 };
        fpu.set_control_word(masks | mode << 8);
        // Raised earlier: only what is masked, or the instruction would not start.
        let raised = if self.one_in(2) { self.next() as u16 & (masks | SF) } else { 0 };
        fpu.set_status_word(raised | self.next() as u16 & (CONDITION_CODES | 7 << TOP_SHIFT));
        fpu.empty = if self.one_in(4) { self.next() as u8 } else { 1 << fpu.physical(7) };
        if self.one_in(8) {
            fpu.empty = 0;
        }
        (fpu.ip, fpu.cs, fpu.dp, fpu.ds, fpu.opcode) = (0x1234_5678, 0x23, 0x9abc_def0, 0x2b, 0x555);
        for i in 0..8 {
            fpu.set_register(i, self.f80());
        }
        let near = self.below(4) as u8;
        if near < 2 {
            // Operands that meet: equal, or a few bits apart.
            let mut b = fpu.st(0);
            b.sign_exponent ^= self.pick(&[0, 0x8000]);
            b.sign_exponent = b.sign_exponent.wrapping_add(self.below(8) as u16).wrapping_sub(4);
            b.significand ^= self.pick(&[0, 0, 1, 3, 1 << 62, 0x8000]);
            let one = fpu.physical(1);
            fpu.set_register(one, b);
        }
        fpu
    }
}

/// How many values of the format two finite numbers lie apart.
fn distance(a: F80, b: F80) -> u64 {
    let key = |x: F80| match x.exponent() {
        0 => i128::from(x.significand),
        exponent => (i128::from(exponent - 1) << 63) + i128::from(x.significand),
    };
    if a.is_negative() != b.is_negative() {
        return u64::MAX;
    }
    u64::try_from((key(a) - key(b)).abs()).unwrap_or(u64::MAX)
}

fn describe(fpu: &Fpu, world: &World) -> String {
    let stack: Vec<String> = (0..8)
        .map(|i| {
            let tag = if fpu.is_empty(i) { "-" } else { "" };
            format!("{tag}{:04x}:{:016x}", fpu.st(i).sign_exponent, fpu.st(i).significand)
        })
        .collect();
    let (control, status, stack) = (fpu.control, fpu.status_word(), stack.join(" "));
    format!("cw {control:04x} sw {status:04x} [{stack}] {world:02x?}")
}

/// The host is of the make that we follow in what the manuals leave undefined: C1 after FCMOVcc and
/// FFREE, results outside an instruction's domain, when the pointers are lost.
fn is_reference() -> bool {
    let vendor = core::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

/// What an instruction may differ in from the host.
#[derive(Clone, Copy, Default)]
struct Tolerance {
    /// Status bits.
    status: u16,
    /// Units in the last place of the registers.
    ulps: u64,
    /// Bytes of memory, from and to.
    memory: (usize, usize),
}

/// Runs `count` cases of one instruction on both.
fn compare(opcode: u8, modrm: u8, count: usize, tolerance: Tolerance) {
    if !is_reference() {
        return;
    }
    let mut random = Random(SEED << 16 | u64::from(opcode) << 8 | u64::from(modrm));
    for _ in 0..count {
        let before = random.fpu();
        let flags = 0x202 | random.next() & u64::from(ARITHMETIC_FLAGS);
        let memory = if modrm < 0xc0 { random.memory() } else { [0; 112] };
        let world = World { memory, flags, ax: 0x1234 };
        let (mut fpu, mut world_after) = (before.clone(), world);
        fpu.execute(&insn(opcode, modrm), &mut world_after).expect("an instruction");
        // Where the code lies is the host's business; that the pointers change is not. Hosts lose
        // them when they switch tasks in between: what counts is that they agree some time.
        let pointers = |x: &Fpu| (x.ip != before.ip, x.dp != before.dp, x.opcode);
        let mut expected_world = world;
        let (mut expected, mut status) = hardware(opcode, modrm, &before, &mut expected_world);
        for _ in 0..20 {
            if pointers(&expected) == pointers(&fpu) {
                break;
            }
            expected_world = world;
            (expected, status) = hardware(opcode, modrm, &before, &mut expected_world);
        }
        let host = (expected.clone(), expected_world);
        let text = || {
            format!(
                "{opcode:02x} {modrm:02x}\n before {}\n host   {}\n ours   {}",
                describe(&before, &world),
                describe(&host.0, &host.1),
                describe(&fpu, &world_after)
            )
        };
        let differing = (status ^ fpu.status_word()) & !tolerance.status;
        assert!(differing == 0, "status {differing:04x}: {}", text());
        assert_eq!(pointers(&expected), pointers(&fpu), "pointers: {}", text());
        (expected.ip, expected.cs, expected.dp, expected.ds) = (fpu.ip, fpu.cs, fpu.dp, fpu.ds);
        expected.status = fpu.status;
        for i in 0..8 {
            if distance(fpu.register(i), expected.register(i)) <= tolerance.ulps {
                expected.set_register(i, fpu.register(i));
            }
        }
        let (from, to) = tolerance.memory;
        expected_world.memory[from..to].copy_from_slice(&world_after.memory[from..to]);
        assert!(fpu == expected && world_after == expected_world, "{}", text());
    }
}

/// Every form of an opcode that `Fpu` executes, those that differ in nothing but ST(i) less often.
fn compare_all(opcode: u8, memory: bool, except: &[u8]) {
    let forms: Vec<u8> = if memory { (7..0x40).step_by(8).collect() } else { (0xc0..=0xff).collect() };
    for modrm in forms {
        let mut world = World { memory: [0; 112], flags: 2, ax: 0 };
        let exists = Fpu::default().execute(&insn(opcode, modrm), &mut world).is_ok();
        if exists && !except.contains(&modrm) {
            let rare = !memory && opcode != 0xd9 && modrm & 7 > 1;
            compare(opcode, modrm, if rare { COUNT / 20 } else { COUNT }, Tolerance::default());
        }
    }
}

const TRANSCENDENTAL: [u8; 8] = [0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff];

#[test]
fn arithmetic_of_registers() {
    for opcode in [0xd8, 0xdc, 0xde] {
        compare_all(opcode, false, &[]);
    }
}

#[test]
fn arithmetic_of_memory_operands() {
    for opcode in [0xd8, 0xda, 0xdc, 0xde] {
        compare_all(opcode, true, &[]);
    }
}

#[test]
fn loads_and_stores() {
    // The environment and the whole state: with pointers, below.
    let whole = [0x27, 0x37];
    for opcode in [0xd9, 0xdb, 0xdd, 0xdf] {
        compare_all(opcode, true, if matches!(opcode, 0xd9 | 0xdd) { &whole } else { &[] });
    }
}

#[test]
fn moves_comparisons_and_control() {
    for opcode in [0xda, 0xdb, 0xdd, 0xdf] {
        compare_all(opcode, false, &[]);
    }
}

#[test]
fn single_operand_and_remainder() {
    compare_all(0xd9, false, &TRANSCENDENTAL);
}

#[test]
fn transcendental_within_one_ulp() {
    // C1: the host does not tell which way its approximation went.
    let tolerance = Tolerance { status: C1, ulps: 1, ..Tolerance::default() };
    for modrm in TRANSCENDENTAL {
        compare(0xd9, modrm, COUNT, tolerance);
    }
}

#[test]
fn environment_and_state() {
    let tolerance = Tolerance { memory: (12, environment::ENVIRONMENT_32), ..Tolerance::default() };
    for (opcode, modrm) in [(0xd9, 0x27), (0xdd, 0x27), (0xd9, 0x37), (0xdd, 0x37)] {
        compare(opcode, modrm, COUNT, tolerance);
    }
}

#[test]
fn fxsave_and_fxrstor() {
    /// The area that the instructions ask for.
    #[repr(align(16))]
    struct Area([u8; 512]);
    const MXCSR: core::ops::Range<usize> = 24..32;
    const POINTERS: core::ops::Range<usize> = 6..24;
    let mut random = Random(SEED);
    for _ in 0..COUNT {
        let (mut from, mut to) = (Area([0; 512]), Area([0; 512]));
        for chunk in from.0[..environment::FXSAVE].chunks_exact_mut(8) {
            chunk.copy_from_slice(&random.bits().to_le_bytes());
        }
        from.0[MXCSR].copy_from_slice(&0x1f80u64.to_le_bytes());
        // SAFETY: both areas are 512 bytes and aligned; what the load changes is declared, the XMM
        // registers by the ABI's list, and FNINIT leaves the unit as the ABI asks.
        unsafe {
            core::arch::asm!(
                "fxrstor [{from}]", "fxsave [{to}]", "fninit",
                from = in(reg) &from, to = in(reg) &mut to,
                clobber_abi("sysv64"),
            );
        }
        let mut fpu = Fpu::default();
        fpu.fxrstor_image(&core::array::from_fn(|i| from.0[i]));
        for (i, ours) in fpu.fxsave_image().into_iter().enumerate() {
            // The host keeps the pointers only while an exception is pending.
            if !MXCSR.contains(&i) && !POINTERS.contains(&i) {
                assert_eq!(ours, to.0[i], "byte {i} of {:02x?}", &from.0[..environment::FXSAVE]);
            }
        }
    }
}

#[test]
fn mmx_registers() {
    const VALUE: u64 = 0x1122_3344_5566_7788;
    let mut random = Random(SEED);
    for case in 0..COUNT {
        let before = random.fpu();
        let (mut image, mut fpu) = (image_of(&before), before.clone());
        let mut value = VALUE;
        // SAFETY: FRSTOR and FNSAVE move exactly `image`, and FNSAVE initialises the unit.
        unsafe {
            match case % 3 {
                0 => core::arch::asm!(
                    "frstor [{i}]", "movq mm3, {v}", "fnsave [{i}]",
                    i = in(reg) image.as_mut_ptr(), v = in(reg) value, clobber_abi("sysv64"),
                ),
                1 => core::arch::asm!(
                    "frstor [{i}]", "movq rax, mm3", "fnsave [{i}]",
                    i = in(reg) image.as_mut_ptr(), out("rax") value, clobber_abi("sysv64"),
                ),
                _ => core::arch::asm!(
                    "frstor [{i}]", "emms", "fnsave [{i}]",
                    i = in(reg) image.as_mut_ptr(), clobber_abi("sysv64"),
                ),
            }
        }
        match case % 3 {
            0 => fpu.set_mmx(3, VALUE),
            1 => {
                fpu.enter_mmx();
                assert_eq!(fpu.mmx(3), value);
            }
            _ => fpu.emms(),
        }
        let mut expected = fpu_of(&image);
        (expected.ip, expected.cs, expected.dp, expected.ds) = (fpu.ip, fpu.cs, fpu.dp, fpu.ds);
        expected.opcode = fpu.opcode;
        assert_eq!(fpu, expected);
    }
}

/// Memory that is not there.
struct Faulting;

impl Operands for Faulting {
    fn load<const N: usize>(&mut self) -> Result<[u8; N]> {
        Err(Exception::page_fault(0))
    }
    fn store<const N: usize>(&mut self, _: [u8; N]) -> Result<()> {
        Err(Exception::page_fault(2))
    }
    fn probe_store<const N: usize>(&mut self) -> Result<()> {
        Err(Exception::page_fault(2))
    }
    fn set_ax(&mut self, _: u16) {}
    fn eflags(&self) -> u32 {
        0
    }
    fn set_eflags(&mut self, _: bool, _: bool, _: bool) {}
}

#[test]
fn a_fault_changes_nothing() {
    let mut random = Random(SEED);
    for _ in 0..200 {
        let before = random.fpu();
        for (opcode, reg) in (0xd8..=0xdf).flat_map(|opcode| (0..8).map(move |reg| (opcode, reg))) {
            let mut fpu = before.clone();
            if fpu.execute(&insn(opcode, reg << 3), &mut Faulting).is_err() {
                assert_eq!(fpu, before, "{opcode:02x} /{reg}");
            }
        }
    }
}

#[test]
fn environment_layouts_round_trip() {
    let mut random = Random(SEED);
    for (op32, protected) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut fpu = random.fpu();
        (fpu.ip, fpu.cs, fpu.dp, fpu.ds) = (0x4321, 0x2345, 0x8765, 0x3456);
        let mut world = World { memory: [0; 112], flags: 2, ax: 0 };
        let save = Insn { op32, protected, ..insn(0xdd, 0x30) };
        let restore = Insn { modrm: 0x20, ..save };
        let before = fpu.clone();
        fpu.execute(&save, &mut world).expect("FNSAVE");
        assert_eq!((fpu.empty, fpu.control, fpu.status_word()), (0xff, 0x37f, 0));
        fpu.execute(&restore, &mut world).expect("FRSTOR");
        let linear = |x: &Fpu| [(x.cs, x.ip), (x.ds, x.dp)].map(|(s, o)| (u32::from(s) << 4) + o);
        assert_eq!(linear(&fpu), linear(&before));
        // The 16-bit protected layout has no place for the opcode.
        assert_eq!(fpu.opcode, if op32 || !protected { before.opcode } else { 0 });
        (fpu.cs, fpu.ip, fpu.ds, fpu.dp) = (before.cs, before.ip, before.ds, before.dp);
        fpu.opcode = before.opcode;
        assert_eq!(fpu, before);
    }
}

#[test]
fn what_does_not_wait() {
    let silent: Vec<(u8, u8)> = (0xd8..=0xdf)
        .flat_map(|opcode| (0..=0xff).map(move |modrm| (opcode, modrm)))
        .filter(|&(opcode, modrm)| !is_waiting(opcode, modrm) && (modrm & 0xc7 == 0 || modrm >= 0xc0))
        .collect();
    let memory = [(0xd9, 0x30), (0xd9, 0x38), (0xdd, 0x30), (0xdd, 0x38)];
    let register = [(0xdb, 0xe0), (0xdb, 0xe1), (0xdb, 0xe2), (0xdb, 0xe3), (0xdb, 0xe4), (0xdf, 0xe0)];
    let mut expected = [&memory[..], &register[..]].concat();
    expected.sort_unstable();
    assert_eq!(silent.len(), expected.len());
    assert!(silent.iter().all(|form| expected.contains(form)), "{silent:02x?}");
}
