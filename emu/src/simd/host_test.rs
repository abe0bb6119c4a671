//! Every row of the table against the processor that runs the test.
//!
//! The real instruction is written into an executable page between an FXRSTOR and an FXSAVE, which
//! load and store all of MMX, XMM and MXCSR. An unmasked exception arrives as SIGFPE; the handler
//! continues at a second entry in the same page, so it needs no state.
#![allow(unsafe_code)]

use super::tests::{Random, Toy, encode};
use super::*;

const PAGE: usize = 4096;
/// Where the handler of SIGFPE continues, from the start of the code's page.
const RECOVERY: usize = 0x800;

/// What the code loads and stores; RBX points here, RDI at `memory`.
#[repr(C, align(64))]
#[derive(Clone)]
struct Context {
    fxsave: [u8; 512],
    eax: u32,
    ecx: u32,
    flags: u32,
    faulted: u32,
    padding: [u8; 48],
    memory: [u8; 32],
}

const MXCSR_AT: usize = 24;
const ST_AT: usize = 32;
const XMM_AT: usize = 160;
const TAGS_AT: usize = 4;
const TOP_AT: usize = 3;

impl Context {
    fn new(toy: &Toy) -> Self {
        let mut fxsave = [0; 512];
        fxsave[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        // TOP 3, all registers empty: neither MMX mode nor what EMMS leaves alone.
        fxsave[TOP_AT] = 3 << 3;
        fxsave[TAGS_AT] = 0x0f;
        fxsave[MXCSR_AT..][..4].copy_from_slice(&toy.mxcsr.to_le_bytes());
        for i in 0..8 {
            // The image has the x87 registers in stack order.
            let st = (i + 8 - 3) % 8;
            fxsave[ST_AT + st * 16..][..8].copy_from_slice(&toy.mmx[i].to_le_bytes());
            fxsave[XMM_AT + i * 16..][..16].copy_from_slice(&toy.xmm[i].to_le_bytes());
        }
        let (eax, ecx) = (toy.gpr[0], toy.gpr[1]);
        Self { fxsave, eax, ecx, flags: 0, faulted: 0, padding: [0; 48], memory: toy.memory }
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.fxsave[at..at + N].try_into().unwrap()
    }

    /// The state afterwards, in the shape of the state before.
    fn to_toy(&self, before: &Toy) -> Toy {
        let top = usize::from(self.fxsave[TOP_AT] >> 3 & 7);
        let mut toy = before.clone();
        for i in 0..8 {
            toy.mmx[i] = u64::from_le_bytes(self.bytes(ST_AT + (i + 8 - top) % 8 * 16));
            toy.xmm[i] = u128::from_le_bytes(self.bytes(XMM_AT + i * 16));
        }
        (toy.gpr[0], toy.gpr[1]) = (self.eax, self.ecx);
        toy.memory = self.memory;
        toy.mxcsr = u32::from_le_bytes(self.bytes(MXCSR_AT));
        toy.flags = self.flags & 0x8d5;
        toy.mmx_mode = match (top, self.fxsave[TAGS_AT]) {
            (3, 0x0f) => None,
            (_, 0) => Some(false),
            (0, 0xff) => Some(true),
            other => panic!("x87 state {other:?}"),
        };
        toy
    }
}

extern "C" fn on_sigfpe(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext_t to SA_SIGINFO handlers.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = &mut registers[libc::REG_RIP as usize];
    *rip = *rip & !(PAGE as i64 - 1) | RECOVERY as i64;
}

/// A page that holds one instruction and its surroundings.
struct Code(*mut u8);

impl Code {
    fn new() -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping; the handler touches only its own ucontext.
        unsafe {
            let page = libc::mmap(core::ptr::null_mut(), PAGE, protection, flags, -1, 0);
            assert_ne!(page, libc::MAP_FAILED);
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_sigfpe as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGFPE, &action, core::ptr::null_mut()), 0);
            Self(page.cast())
        }
    }

    fn write(&mut self, instruction: &[u8]) {
        let mut code = vec![
            0x53, // push rbx
            0x48, 0x89, 0xfb, // mov rbx, rdi
            0x48, 0x0f, 0xae, 0x0b, // fxrstor64 [rbx]
            0x8b, 0x83, 0, 2, 0, 0, // mov eax, [rbx+0x200]
            0x8b, 0x8b, 4, 2, 0, 0, // mov ecx, [rbx+0x204]
            0x48, 0x8d, 0xbb, 0x40, 2, 0, 0, // lea rdi, [rbx+0x240]
        ];
        code.extend_from_slice(instruction);
        let tail = [
            0x89, 0x83, 0, 2, 0, 0, // mov [rbx+0x200], eax
            0x89, 0x8b, 4, 2, 0, 0, // mov [rbx+0x204], ecx
            0x9c, 0x58, // pushfq; pop rax
            0x89, 0x83, 8, 2, 0, 0, // mov [rbx+0x208], eax
            0x48, 0x0f, 0xae, 0x03, // fxsave64 [rbx]
            0xdb, 0xe3, // fninit
            0xc7, 0x83, 12, 3, 0, 0, 0x80, 0x1f, 0, 0, // mov dword [rbx+0x30c], 0x1f80
            0x0f, 0xae, 0x93, 12, 3, 0, 0, // ldmxcsr [rbx+0x30c]
            0x5b, 0xc3, // pop rbx; ret
        ];
        code.extend_from_slice(&tail);
        let recovery = [0xc7, 0x83, 12, 2, 0, 0, 1, 0, 0, 0]; // mov dword [rbx+0x20c], 1
        // SAFETY: both pieces lie within the page, which nothing else refers to.
        unsafe {
            core::ptr::copy_nonoverlapping(code.as_ptr(), self.0, code.len());
            core::ptr::copy_nonoverlapping(recovery.as_ptr(), self.0.add(RECOVERY), recovery.len());
            let tail_at = self.0.add(RECOVERY + recovery.len());
            core::ptr::copy_nonoverlapping(tail.as_ptr(), tail_at, tail.len());
        }
    }

    fn run(&self, context: &mut Scratch) {
        // SAFETY: `write` put a function of this signature here. It keeps RBX, its stack is
        // balanced on both ways out, and it writes nowhere but to its argument.
        let function: extern "C" fn(*mut Scratch) = unsafe { core::mem::transmute(self.0) };
        function(context);
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.0.cast(), PAGE) };
    }
}

/// A context and, behind it, the doubleword that the code resets MXCSR from.
#[repr(C, align(64))]
struct Scratch {
    context: Context,
    reset: [u32; 64],
}

fn state(random: &mut Random, row: &Row) -> Toy {
    let mut toy = Toy::default();
    for i in 0..2 {
        toy.xmm[i] = random.register();
        toy.mmx[i] = random.register() as u64;
        toy.gpr[i] = random.next() as u32 >> random.below(32);
    }
    if random.below(8) == 0 {
        // Equal operands, and counts of shifts that are in range.
        toy.xmm[1] = if random.below(2) == 0 { toy.xmm[0] } else { random.below(70).into() };
        toy.mmx[1] = if random.below(2) == 0 { toy.mmx[0] } else { random.below(70) };
    }
    toy.memory[..16].copy_from_slice(&toy.xmm[1].to_le_bytes());
    toy.memory[16..].copy_from_slice(&random.register().to_le_bytes());
    let modes = random.next() as u32 & (mxcsr::FTZ | mxcsr::DAZ | 3 << mxcsr::RC_SHIFT);
    toy.mxcsr = match random.below(4) {
        // As a process starts.
        0 => mxcsr::DEFAULT,
        1 => mxcsr::DEFAULT | modes,
        2 => mxcsr::DEFAULT | modes | random.next() as u32 & 0x3f,
        // Some exceptions unmasked.
        _ => modes | random.next() as u32 & 0x1fbf,
    };
    if matches!(row.op, Op::LoadMxcsr) {
        toy.memory[2..4].fill(0);
    }
    toy
}

/// The approximations differ between processors: ours must be as near as the manual demands, and
/// the host's too. Results next to the denormals may be flushed.
fn approximations_agree(ours: u128, host: u128) -> bool {
    (0..4).all(|i| {
        let [ours, host] = [ours, host].map(|register| f32::from_bits((register >> (i * 32)) as u32));
        ours.to_bits() == host.to_bits()
            || ((ours - host) / host).abs() <= 3.0 / 4096.0
            || ours.abs().max(host.abs()) <= f32::MIN_POSITIVE * 1.001
    })
}

fn compare_row(row: &Row, code: &mut Code, random: &mut Random, cases: u32) -> Vec<String> {
    let mut failures = Vec::new();
    let memory_kinds: &[bool] = match row.form.rm_kind {
        RmKind::Any => &[false, true],
        RmKind::Register | RmKind::None => &[false],
        RmKind::Memory => &[true],
    };
    let approximate = matches!(row.opcode, 0x52 | 0x53);
    for &memory in memory_kinds {
        for case in 0..cases {
            // Few encodings, many operands: rewriting code is slow.
            let insn = Insn {
                reg: (case % 7 == 3).into(),
                rm: (case % 5 != 4).into(),
                imm: if case % 4 == 0 { random.next() as u8 } else { random.below(32) as u8 },
                memory,
            };
            code.write(&encode(row, &insn));
            for _ in 0..8 {
                let before = state(random, row);
                let mut scratch = Scratch { context: Context::new(&before), reset: [0; 64] };
                code.run(&mut scratch);
                let host = scratch.context.to_toy(&before);
                let mut ours = before.clone();
                let result = execute(row, &insn, &mut ours);
                if !matches!(row.op, Op::Compare(_)) || result.is_err() {
                    ours.flags = host.flags;
                }
                let dst = usize::from(insn.reg);
                if approximate && approximations_agree(ours.xmm[dst], host.xmm[dst]) {
                    ours.xmm[dst] = host.xmm[dst];
                }
                if row.name == "cvtpi2ps" && memory {
                    // AMD leaves the x87 unit alone, Intel does not.
                    ours.mmx_mode = host.mmx_mode;
                }
                let faulted = scratch.context.faulted != 0;
                if ours != host || faulted != result.is_err() {
                    failures.push(format!(
                        "{:?} {} {insn:?}\nbefore {before:x?}\nours   {ours:x?} {result:?}\nhost   {host:x?} fault {faulted}\n",
                        row.prefix, row.name
                    ));
                }
            }
        }
    }
    failures
}

#[test]
fn every_row_agrees_with_the_host() {
    let cases = std::env::var("SIMD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(50);
    let seed = std::env::var("SIMD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(86);
    let (mut code, mut random) = (Code::new(), Random(seed));
    let mut report = String::new();
    for row in TABLE {
        let failures = compare_row(row, &mut code, &mut random, cases);
        if let Some(first) = failures.first() {
            report += &format!("{} failures, first: {first}\n", failures.len());
        }
    }
    assert!(report.is_empty(), "{report}");
}
