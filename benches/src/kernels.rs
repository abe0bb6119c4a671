//! Small guests, each of which does one thing over and over.
//!
//! They run in 32-bit protected mode with paging on, everything flat, as a Linux process would. Their
//! names are paths and do not change, so that figures of years can be compared.

use env86_devices::board::{ManualClock, Seeded};
use env86_devices::vga::FRAMEBUFFER;
use env86_devices::{BoardConfig, Pc, Stop};
use env86_emu::memory::Generation;
use env86_emu::state::{FpuState, TableRegister};
use env86_emu::{ArchState, Bus, Cpu, CpuConfig, Exit, Memory, Segment};

/// Bytes of RAM, all of it mapped where it is but for the last page. So are 4 MiB of the framebuffer.
const MEMORY: u32 = 32 << 20;
/// Where things are.
const IDT: u32 = 0;
const GDT: u32 = 0x800;
const INTERRUPT_HANDLER: u32 = 0x3000;
const PAGE_FAULT_HANDLER: u32 = 0x3100;
const FUNCTION: u32 = 0x3200;
const PAGE_DIRECTORY: u32 = 0x4000;
const PAGE_TABLES: u32 = 0x5000;
const FRAMEBUFFER_TABLE: u32 = 0xd000;
const CODE: u32 = 0x10_0000;
const DATA: u32 = 0x20_0000;
const STACK: u32 = 0x30_0000;
const ABSENT_PAGE: u32 = MEMORY - 0x1000;

const PAGE_FAULT: u32 = 14;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
/// The vector of the interrupt pin here.
const EXTERNAL: u8 = 0x20;

/// What is beyond the processor's pins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wired {
    /// Ports that answer at once.
    Bare,
    /// The same, and the interrupt pin is always raised.
    Interrupting,
    /// The PC's devices.
    Pc,
}

/// A guest.
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    board: Wired,
    /// What is decoded is dropped before each pass.
    fresh: bool,
    /// A screen takes what has changed after each pass.
    shown: bool,
    setup: &'static [u8],
    body: &'static [u8],
    /// How many copies of the body are in the loop.
    copies: usize,
}

const fn kernel(name: &'static str, setup: &'static [u8], body: &'static [u8]) -> Kernel {
    Kernel { name, board: Wired::Bare, fresh: false, shown: false, setup, body, copies: 8 }
}

impl Kernel {
    const fn on(self, board: Wired) -> Self {
        Self { board, ..self }
    }

    const fn shown(self) -> Self {
        Self { shown: true, ..self }
    }

    const fn fresh(self, copies: usize) -> Self {
        Self { fresh: true, copies, ..self }
    }
}

// At the start EAX to EDX are small numbers, ESI points to data, EDI behind it.
#[rustfmt::skip]
/// All of them.
pub const KERNELS: &[Kernel] = &[
    // add eax, ebx; add edx, eax; add ebx, 7; sub eax, edx
    kernel("alu/add", &[], &[0x01, 0xd8, 0x01, 0xc2, 0x83, 0xc3, 7, 0x29, 0xd0]),
    // and eax, ebx; or ecx, eax; xor edx, ecx; xor eax, 12345678h
    kernel("alu/logic", &[], &[0x21, 0xd8, 0x09, 0xc1, 0x31, 0xca, 0x35, 0x78, 0x56, 0x34, 0x12]),
    // add eax, ebx; adc edx, ecx; sbb ebx, eax
    kernel("alu/carry", &[], &[0x01, 0xd8, 0x11, 0xca, 0x19, 0xc3]),
    // add al, bl; xor ah, dl; cmp cl, 4
    kernel("alu/byte", &[], &[0x00, 0xd8, 0x30, 0xd4, 0x80, 0xf9, 4]),
    // shl eax, 3; shr edx, 5; rol ebx, 7; sar ecx, 1
    kernel("alu/shift", &[], &[0xc1, 0xe0, 3, 0xc1, 0xea, 5, 0xc1, 0xc3, 7, 0xd1, 0xf9]),
    // shl eax, cl; shld eax, edx, 4
    kernel("alu/shift-variable", &[], &[0xd3, 0xe0, 0x0f, 0xa4, 0xd0, 4]),
    // imul eax, ebx; imul edx, eax, 13; mul ebx
    kernel("alu/multiply", &[], &[0x0f, 0xaf, 0xc3, 0x6b, 0xd0, 13, 0xf7, 0xe3]),
    // mov eax, 12345678h; xor edx, edx; div ebx
    kernel("alu/divide", &[], &[0xb8, 0x78, 0x56, 0x34, 0x12, 0x31, 0xd2, 0xf7, 0xf3]),
    // bsf eax, ebx; bt ebx, 5; setc al; movzx eax, al
    kernel("alu/bits", &[], &[0x0f, 0xbc, 0xc3, 0x0f, 0xba, 0xe3, 5, 0x0f, 0x92, 0xc0, 0x0f, 0xb6, 0xc0]),
    // add eax, [esi]; adc edx, [esi+4]; adc ebx, 0; sbb ecx, ebx
    kernel("alu/carry-chain", &[], &[0x03, 0x06, 0x13, 0x56, 4, 0x83, 0xd3, 0, 0x19, 0xd9]),
    // mov eax, [esi]; mul ebx; add ecx, eax; adc ebp, edx
    kernel("alu/multiply-wide", &[], &[0x8b, 0x06, 0xf7, 0xe3, 0x01, 0xc1, 0x11, 0xd5]),
    // mov eax, 12345678h; cdq; idiv ebx
    kernel("alu/divide-signed", &[], &[0xb8, 0x78, 0x56, 0x34, 0x12, 0x99, 0xf7, 0xfb]),
    // shld edx, eax, 7; shrd eax, ebx, cl; rcr ebx, 1
    kernel("alu/shift-double", &[], &[0x0f, 0xa4, 0xc2, 7, 0x0f, 0xad, 0xd8, 0xd1, 0xdb]),
    // not eax; neg eax; neg edx; not ebx
    kernel("alu/negate", &[], &[0xf7, 0xd0, 0xf7, 0xd8, 0xf7, 0xda, 0xf7, 0xd3]),
    // bt eax, ecx; bts eax, 3; btr edx, ecx; bswap eax
    kernel("alu/bit-test", &[], &[0x0f, 0xa3, 0xc8, 0x0f, 0xba, 0xe8, 3, 0x0f, 0xb3, 0xca, 0x0f, 0xc8]),
    // cmp eax, ebx; cmovl eax, ebx; setne dl
    kernel("alu/conditional", &[], &[0x39, 0xd8, 0x0f, 0x4c, 0xc3, 0x0f, 0x95, 0xc2]),

    // dec ecx; jnz to the next instruction
    kernel("branch/conditional", &[], &[0x49, 0x75, 0]),
    // call a function that returns, inline; jmp over it
    kernel("branch/call", &[], &[0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3]),
    // mov eax, FUNCTION / call eax
    kernel("branch/indirect", &[0xb8, 0x00, 0x32, 0, 0], &[0xff, 0xd0]),

    // mov eax, [esi]; mov ebx, [esi+8]; mov edx, [esi+ecx*4]; movzx eax, byte [esi+3]
    kernel("memory/load/aligned", &[], &[0x8b, 0x06, 0x8b, 0x5e, 8, 0x8b, 0x14, 0x8e, 0x0f, 0xb6, 0x46, 3]),
    // mov eax, [esi+1]; mov ebx, [esi+3eh]
    kernel("memory/load/unaligned", &[], &[0x8b, 0x46, 1, 0x8b, 0x5e, 0x3e]),
    // add esi, ffeh / mov eax, [esi]
    kernel("memory/load/page-crossing", &[0x81, 0xc6, 0xfe, 0x0f, 0, 0], &[0x8b, 0x06]),
    // Two pages that want the same TLB entry: mov eax, [esi]; mov ebx, [esi+1000000h]
    kernel("memory/load/tlb-miss", &[], &[0x8b, 0x06, 0x8b, 0x9e, 0, 0, 0, 1]),
    // mov [edi], eax; mov [edi+4], ebx; mov [edi+9], al
    kernel("memory/store/aligned", &[], &[0x89, 0x07, 0x89, 0x5f, 4, 0x88, 0x47, 9]),
    // mov [edi+1], eax; mov [edi+3eh], ebx
    kernel("memory/store/unaligned", &[], &[0x89, 0x47, 1, 0x89, 0x5f, 0x3e]),
    // add edi, ffeh / mov [edi], eax
    kernel("memory/store/page-crossing", &[0x81, 0xc7, 0xfe, 0x0f, 0, 0], &[0x89, 0x07]),
    // mov [edi], eax; mov [edi+1000000h], ebx
    kernel("memory/store/tlb-miss", &[], &[0x89, 0x07, 0x89, 0x9f, 0, 0, 0, 1]),
    // add [edi], eax; inc dword [edi+4]
    kernel("memory/modify", &[], &[0x01, 0x07, 0xff, 0x47, 4]),
    // cmpxchg [edi], ebx; lock xadd [edi+4], ecx; xchg eax, edx
    kernel("memory/exchange", &[], &[0x0f, 0xb1, 0x1f, 0xf0, 0x0f, 0xc1, 0x4f, 4, 0x92]),
    // push eax; push ebx; pop ebx; pop eax
    kernel("memory/stack", &[], &[0x50, 0x53, 0x5b, 0x58]),

    // jmp to the next instruction
    kernel("block/hit", &[], &[0xeb, 0]),
    // add eax, ebx; mov [edi], eax; call the next instruction; pop eax: decoded for each pass
    kernel("block/miss", &[], &[0x01, 0xd8, 0x89, 0x07, 0xe8, 0, 0, 0, 0, 0x58]).fresh(1000),
    // mov eax, FUNCTION / mov byte [FUNCTION], c3h; call eax
    kernel("block/invalidate", &[0xb8, 0x00, 0x32, 0, 0], &[0xc6, 0x05, 0x00, 0x32, 0, 0, 0xc3, 0xff, 0xd0]),

    // int 30h
    kernel("interrupt/software", &[], &[0xcd, 0x30]),
    // sti / nop
    kernel("interrupt/external", &[0xfb], &[0x90]).on(Wired::Interrupting),
    // mov eax, [ABSENT_PAGE]
    kernel("interrupt/page-fault", &[], &[0xa1, 0, 0xf0, 0xff, 1]),
    // mov eax, cr3; mov cr3, eax
    kernel("system/tlb-flush", &[], &[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]),
    // invlpg [esi]; mov eax, [esi]
    kernel("system/invlpg", &[], &[0x0f, 0x01, 0x3e, 0x8b, 0x06]),
    // mov ecx, 174h; mov eax, CODE_SELECTOR; xor edx, edx; wrmsr; inc ecx; mov eax, esp; wrmsr
    // inc ecx; mov eax, CODE + 29; wrmsr; jmp $+4; sysexit
    // / call $+5; pop edx; lea edx, [edx+8]; mov ecx, esp; sysenter
    kernel("system/sysenter",
        &[0xb9, 0x74, 1, 0, 0, 0xb8, 8, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0x41, 0x89, 0xe0, 0x0f, 0x30,
            0x41, 0xb8, 29, 0, 0x10, 0, 0x0f, 0x30, 0xeb, 2, 0x0f, 0x35],
        &[0xe8, 0, 0, 0, 0, 0x5a, 0x8d, 0x52, 8, 0x89, 0xe1, 0x0f, 0x34]),
    // rdtsc
    kernel("system/time-stamp", &[], &[0x0f, 0x31]),
    // cli; sti
    kernel("system/cli-sti", &[], &[0xfa, 0xfb]).on(Wired::Pc),
    // sti / pushf; pop eax; cli; push eax; popf: as a lock that an interrupt's handler takes, too
    kernel("system/pushf-popf", &[0xfb], &[0x9c, 0x58, 0xfa, 0x50, 0x9d]).on(Wired::Pc),

    // in al, 40h
    kernel("port/in", &[], &[0xe4, 0x40]),
    // out 40h, al
    kernel("port/out", &[], &[0xe6, 0x40]),
    // mov edx, 3fdh / in al, dx
    kernel("device/uart-status", &[0xba, 0xfd, 3, 0, 0], &[0xec]).on(Wired::Pc),
    // in al, 40h
    kernel("device/timer-count", &[], &[0xe4, 0x40]).on(Wired::Pc),
    // in al, 21h
    kernel("device/interrupt-mask", &[], &[0xe4, 0x21]).on(Wired::Pc),
    // mov al, [b8000h]
    kernel("device/video-memory", &[], &[0xa0, 0, 0x80, 0x0b, 0]).on(Wired::Pc),

    // mov [edi], eax; mov [edi+4], ebx; mov [edi+9], al: where RAM is, in a framebuffer, and in the
    // window of a mode of 256 colours
    kernel("video/store/ram", &[], &[0x89, 0x07, 0x89, 0x5f, 4, 0x88, 0x47, 9]).on(Wired::Pc),
    kernel("video/store/framebuffer", &[0xbf, 0, 0, 0, 0xe0], &[0x89, 0x07, 0x89, 0x5f, 4, 0x88, 0x47, 9])
        .on(Wired::Pc),
    kernel("video/store/window", &WINDOW_SETUP, &[0x89, 0x07, 0x89, 0x5f, 4, 0x88, 0x47, 9]).on(Wired::Pc),
    // mov edi, FRAMEBUFFER / mov [edi], eax; add edi, 1000h; and edi, e01fffffh: 512 pages, once when
    // nobody looks and once when a screen takes the changes after each pass
    kernel("video/pages/unseen", &[0xbf, 0, 0, 0, 0xe0], &PAGE_AFTER_PAGE).on(Wired::Pc),
    kernel("video/pages/shown", &[0xbf, 0, 0, 0, 0xe0], &PAGE_AFTER_PAGE).on(Wired::Pc).shown(),

    // mov ecx, 1024; mov esi, DATA; mov edi, DATA+4000h; rep movsd
    kernel("string/movs", &[],
        &[0xb9, 0, 4, 0, 0, 0xbe, 0, 0, 0x20, 0, 0xbf, 0, 0x40, 0x20, 0, 0xf3, 0xa5]),
    // mov ecx, 1024; mov edi, DATA+4000h; rep stosd
    kernel("string/stos", &[], &[0xb9, 0, 4, 0, 0, 0xbf, 0, 0x40, 0x20, 0, 0xf3, 0xab]),
    // mov ecx, 4096; mov edi, DATA+4000h; repne scasb: AL is not there
    kernel("string/scas", &[], &[0xb9, 0, 16, 0, 0, 0xbf, 0, 0x40, 0x20, 0, 0xf2, 0xae]),
    // mov ecx, 1024; mov esi, DATA+4000h; mov edi, DATA+8000h; repe cmpsd: all equal
    kernel("string/cmps", &[],
        &[0xb9, 0, 4, 0, 0, 0xbe, 0, 0x40, 0x20, 0, 0xbf, 0, 0x80, 0x20, 0, 0xf3, 0xa7]),

    // fld1; fldpi / fadd st, st(1); fsub st, st(1); fmul st, st(1)
    kernel("x87/arithmetic", &[0xd9, 0xe8, 0xd9, 0xeb], &[0xd8, 0xc1, 0xd8, 0xe1, 0xd8, 0xc9]),
    // fldpi; fld1 / fdiv st, st(1); fmul st, st(1)
    kernel("x87/divide", &[0xd9, 0xeb, 0xd9, 0xe8], &[0xd8, 0xf1, 0xd8, 0xc9]),
    // fild dword [esi] / fld qword [edi]; fadd st, st(1); fstp qword [edi]
    kernel("x87/memory", &[0xdb, 0x06], &[0xdd, 0x07, 0xd8, 0xc1, 0xdd, 0x1f]),
    // fldpi / fld st; fsqrt; fstp st
    kernel("x87/square-root", &[0xd9, 0xeb], &[0xd9, 0xc0, 0xd9, 0xfa, 0xdd, 0xd8]),
    // fld1 / fld st; fsin; fstp st
    kernel("x87/sine", &[0xd9, 0xe8], &[0xd9, 0xc0, 0xd9, 0xfe, 0xdd, 0xd8]),
    // cvtsi2sd xmm1, ebx / addsd xmm0, xmm1; mulsd xmm2, xmm1; cvttsd2si eax, xmm0
    kernel("sse/scalar", &[0xf2, 0x0f, 0x2a, 0xcb],
        &[0xf2, 0x0f, 0x58, 0xc1, 0xf2, 0x0f, 0x59, 0xd1, 0xf2, 0x0f, 0x2c, 0xc0]),
    // addsd xmm0, [edi]; subsd xmm0, xmm1
    kernel("sse/add-sub", &SCALAR_SETUP, &[0xf2, 0x0f, 0x58, 0x07, 0xf2, 0x0f, 0x5c, 0xc1]),
    // mulsd xmm0, [edi]; divsd xmm0, xmm1
    kernel("sse/mul-div", &SCALAR_SETUP, &[0xf2, 0x0f, 0x59, 0x07, 0xf2, 0x0f, 0x5e, 0xc1]),
    // minsd xmm0, xmm1; maxsd xmm0, [edi]; sqrtsd xmm2, xmm1
    kernel("sse/min-max-sqrt", &SCALAR_SETUP,
        &[0xf2, 0x0f, 0x5d, 0xc1, 0xf2, 0x0f, 0x5f, 0x07, 0xf2, 0x0f, 0x51, 0xd1]),
    // ucomisd xmm0, xmm1; comisd xmm0, [edi]
    kernel("sse/compare", &SCALAR_SETUP, &[0x66, 0x0f, 0x2e, 0xc1, 0x66, 0x0f, 0x2f, 0x07]),
    // cvtsi2sd xmm0, ebx; cvtsd2ss xmm2, xmm0; cvtss2sd xmm3, xmm2; cvttsd2si eax, xmm3
    kernel("sse/convert", &[],
        &[0xf2, 0x0f, 0x2a, 0xc3, 0xf2, 0x0f, 0x5a, 0xd0, 0xf3, 0x0f, 0x5a, 0xda, 0xf2, 0x0f, 0x2c, 0xc3]),
    // movsd xmm0, [edi]; movsd [edi+8], xmm0; movss xmm2, [edi+8]; movss [edi], xmm2
    kernel("sse/move-scalar", &[],
        &[0xf2, 0x0f, 0x10, 0x07, 0xf2, 0x0f, 0x11, 0x47, 8, 0xf3, 0x0f, 0x10, 0x57, 8, 0xf3, 0x0f, 0x11, 0x17]),
    // cvtdq2ps xmm1, [esi] / addps xmm0, xmm1; mulps xmm2, xmm1; shufps xmm1, xmm1, 1bh
    kernel("sse/packed", &[0x0f, 0x5b, 0x0e], &[0x0f, 0x58, 0xc1, 0x0f, 0x59, 0xd1, 0x0f, 0xc6, 0xc9, 0x1b]),
    // paddd xmm0, xmm1; pxor xmm2, xmm0; pshufd xmm3, xmm2, 1bh; pcmpeqb xmm2, xmm1
    kernel("sse/integer", &[], &[0x66, 0x0f, 0xfe, 0xc1, 0x66, 0x0f, 0xef, 0xd0, 0x66, 0x0f, 0x70, 0xda, 0x1b,
        0x66, 0x0f, 0x74, 0xd1]),
    // movdqa xmm0, [esi]; movdqa [edi], xmm0; movups xmm1, [esi+1]
    kernel("sse/move", &[], &[0x66, 0x0f, 0x6f, 0x06, 0x66, 0x0f, 0x7f, 0x07, 0x0f, 0x10, 0x4e, 1]),
];

/// XMM1 and the quadword at EDI are 3, XMM0 is 2, and something was inexact, as in most programs: cvtsi2sd xmm1, ebx;
/// cvtsi2sd xmm0, edx; movsd [edi], xmm1; cvtsi2sd xmm3, eax; divsd xmm3, xmm1.
const SCALAR_SETUP: [u8; 20] = [
    0xf2, 0x0f, 0x2a, 0xcb, 0xf2, 0x0f, 0x2a, 0xc2, 0xf2, 0x0f, 0x11, 0x0f, 0xf2, 0x0f, 0x2a, 0xd8, 0xf2,
    0x0f, 0x5e, 0xd9,
];

const PAGE_AFTER_PAGE: [u8; 14] = [0x89, 0x07, 0x81, 0xc7, 0, 0x10, 0, 0, 0x81, 0xe7, 0xff, 0xff, 0x1f, 0xe0];

/// Sets 640x480 in 256 colours by the dispi registers XRES, YRES, BPP and ENABLE; EDI points to the
/// window: for each register, mov edx, 1ceh; mov ax, INDEX; out dx, ax; inc edx; mov ax, VALUE; out dx, ax.
#[rustfmt::skip]
const WINDOW_SETUP: [u8; 77] = [
    0xba, 0xce, 1, 0, 0, 0x66, 0xb8, 1, 0, 0x66, 0xef, 0x42, 0x66, 0xb8, 0x80, 2, 0x66, 0xef,
    0xba, 0xce, 1, 0, 0, 0x66, 0xb8, 2, 0, 0x66, 0xef, 0x42, 0x66, 0xb8, 0xe0, 1, 0x66, 0xef,
    0xba, 0xce, 1, 0, 0, 0x66, 0xb8, 3, 0, 0x66, 0xef, 0x42, 0x66, 0xb8, 8, 0, 0x66, 0xef,
    0xba, 0xce, 1, 0, 0, 0x66, 0xb8, 4, 0, 0x66, 0xef, 0x42, 0x66, 0xb8, 1, 0, 0x66, 0xef,
    0xbf, 0, 0, 0x0a, 0,
];

/// A machine that has been given a kernel.
pub struct Bench {
    kernel: &'static Kernel,
    guest: Guest,
    start: ArchState,
    seen: Generation,
}

enum Guest {
    Bare(Box<Cpu>, Pins),
    Pc(Box<Pc>),
}

impl Guest {
    fn cpu(&mut self) -> &mut Cpu {
        match self {
            Self::Bare(cpu, _) => cpu,
            Self::Pc(machine) => &mut machine.cpu,
        }
    }
}

impl Bench {
    /// A machine about to execute `kernel`.
    pub fn new(kernel: &'static Kernel) -> Self {
        // 32 MiB are within what a PC can have.
        let mut mem = Memory::new(MEMORY.into()).unwrap_or_else(|e| unreachable!("{e}"));
        tables(&mut mem);
        mem.write(CODE, &code(kernel));
        // One in each of the first words of data; the rest is zero.
        (0..16).for_each(|i| mem.write_u32(DATA + 4 * i, 1));
        let mut guest = match kernel.board {
            Wired::Pc => {
                let clock = Box::new(ManualClock::default());
                // Nothing on the default board overlaps.
                let machine = Pc::new(mem, BoardConfig::default(), clock, Box::new(Seeded(1)));
                Guest::Pc(Box::new(machine.unwrap_or_else(|e| unreachable!("{e}"))))
            }
            board => {
                let pins = Pins { interrupt: board == Wired::Interrupting };
                Guest::Bare(Box::new(Cpu::new(mem, CpuConfig::default())), pins)
            }
        };
        let start = start();
        guest.cpu().set_state(&start);
        Self { kernel, guest, start, seen: Generation::default() }
    }

    /// Executes about so many instructions, and gives how many they were.
    ///
    /// # Panics
    /// If the kernel does anything but run on.
    pub fn run(&mut self, instructions: u64) -> u64 {
        if self.kernel.fresh {
            self.guest.cpu().set_state(&self.start);
        }
        let before = self.guest.cpu().stats().instructions;
        let runs_on = match &mut self.guest {
            Guest::Bare(cpu, pins) => cpu.run(pins, instructions) == Exit::Budget,
            Guest::Pc(machine) => {
                let runs_on = machine.run(instructions) == Stop::Budget;
                if self.kernel.shown {
                    machine.board.vga.changes(machine.cpu.mem_mut(), &mut self.seen);
                }
                runs_on
            }
        };
        let cpu = self.guest.cpu();
        assert!(runs_on, "{}: {:x?}", self.kernel.name, cpu.state());
        cpu.stats().instructions - before
    }
}

/// The kernel's code: the setup, and a loop of the body.
fn code(kernel: &Kernel) -> Vec<u8> {
    const JMP: u8 = 0xe9;
    let mut code = [kernel.setup, &kernel.body.repeat(kernel.copies)].concat();
    let back = kernel.body.len() * kernel.copies + 5;
    code.push(JMP);
    code.extend((back as u32).wrapping_neg().to_le_bytes());
    code
}

/// Writes descriptor and page tables and what they lead to.
fn tables(mem: &mut Memory) {
    const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
    const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
    const INTERRUPT_GATE: u64 = 0x8e00 << 32;
    /// Level 3 is where SYSEXIT goes.
    const PRESENT_WRITABLE_USER: u32 = 7;
    mem.write_u64(GDT + u32::from(CODE_SELECTOR), FLAT_CODE);
    mem.write_u64(GDT + u32::from(DATA_SELECTOR), FLAT_DATA);
    for vector in 0..256 {
        let handler = if vector == PAGE_FAULT { PAGE_FAULT_HANDLER } else { INTERRUPT_HANDLER };
        mem.write_u64(IDT + 8 * vector, INTERRUPT_GATE | u64::from(CODE_SELECTOR) << 16 | u64::from(handler));
    }
    // iret; add dword [esp+4], 5; add esp, 4; iret; ret
    mem.write(INTERRUPT_HANDLER, &[0xcf]);
    mem.write(PAGE_FAULT_HANDLER, &[0x83, 0x44, 0x24, 4, 5, 0x83, 0xc4, 4, 0xcf]);
    mem.write(FUNCTION, &[0xc3]);
    for page in (0..ABSENT_PAGE).step_by(0x1000) {
        mem.write_u32(PAGE_TABLES + page / 0x1000 * 4, page | PRESENT_WRITABLE_USER);
    }
    for page in 0..1024 {
        mem.write_u32(FRAMEBUFFER_TABLE + 4 * page, (FRAMEBUFFER + page * 0x1000) | PRESENT_WRITABLE_USER);
    }
    mem.write_u32(PAGE_DIRECTORY + (FRAMEBUFFER >> 20), FRAMEBUFFER_TABLE | PRESENT_WRITABLE_USER);
    for table in 0..MEMORY >> 22 {
        mem.write_u32(PAGE_DIRECTORY + 4 * table, (PAGE_TABLES + 0x1000 * table) | PRESENT_WRITABLE_USER);
    }
}

/// The registers at the first instruction.
fn start() -> ArchState {
    /// Protection, extension type, numeric errors, write protection, paging.
    const CR0: u32 = 0x8001_0031;
    /// FXSAVE and SIMD exceptions.
    const CR4: u32 = 0x600;
    let data = Segment::flat(DATA_SELECTOR, 0x93);
    let mut seg = [data; 6];
    seg[1] = Segment::flat(CODE_SELECTOR, 0x9b);
    ArchState {
        gpr: [1, 5, 2, 3, STACK, DATA, DATA, DATA + 0x4000],
        eip: CODE,
        eflags: 2,
        seg,
        gdtr: TableRegister { base: GDT, limit: 23 },
        idtr: TableRegister { base: IDT, limit: 0x7ff },
        cr0: CR0,
        cr3: PAGE_DIRECTORY,
        cr4: CR4,
        fpu: FpuState::default(),
        ..ArchState::default()
    }
}

/// A board without devices.
struct Pins {
    interrupt: bool,
}

impl Bus for Pins {
    fn interrupt(&self) -> bool {
        self.interrupt
    }
    fn acknowledge(&mut self) -> u8 {
        EXTERNAL
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kernel_runs_on() {
        let mut names = HashSet::new();
        for kernel in KERNELS {
            assert!(names.insert(kernel.name), "{} is there twice", kernel.name);
            let mut bench = Bench::new(kernel);
            assert!(bench.run(2_000) >= 2_000, "{}", kernel.name);
        }
    }

    #[test]
    fn kernels_do_what_they_are_there_for() {
        let stats = |name: &str| {
            let mut bench = Bench::new(KERNELS.iter().find(|k| k.name == name).unwrap());
            bench.run(10_000);
            bench.guest.cpu().stats()
        };
        assert!(stats("memory/load/tlb-miss").tlb_misses > 9_000);
        assert!(stats("memory/load/aligned").tlb_misses < 20);
        assert!(stats("system/invlpg").tlb_misses > 4_500);
        // An exception would go on, too.
        assert_eq!(stats("system/sysenter").interrupts, 0);
        assert!(stats("block/invalidate").blocks_invalidated > 3_000);
        assert!(stats("block/miss").blocks_decoded > 900);
        for name in ["video/store/framebuffer", "video/store/window", "video/pages/unseen"] {
            assert!(stats(name).tlb_misses < 1100, "{name}: {}", stats(name).tlb_misses);
        }
        assert!(stats("interrupt/page-fault").interrupts > 2_000);
        // The delivery of an interrupt counts as an instruction, so it is every second one.
        assert!(stats("interrupt/external").interrupts > 4_500);
        assert!(stats("interrupt/software").interrupts > 4_000);
    }
}
