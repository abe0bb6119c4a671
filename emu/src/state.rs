//! The architectural state of the processor as plain data: what firmware sets up, what a snapshot
//! holds, what a test compares.

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Linear base address.
    pub base: u32,
    /// Limit in bytes, granularity already applied: the highest valid offset of an expand-up
    /// segment.
    pub limit: u32,
    /// The descriptor's access byte: P (80h), DPL (60h), S (10h), type (0Fh).
    pub access: u8,
    /// D/B: 32-bit code, or a 32-bit stack and a 4 GiB upper bound for expand-down data.
    pub big: bool,
    /// A null selector was loaded in protected mode; any use faults.
    pub null: bool,
}

impl Segment {
    /// A segment as real mode has it: base = selector * 16, 64 KiB, readable and writable.
    pub const fn real(selector: u16) -> Self {
        Self { selector, base: (selector as u32) << 4, limit: 0xffff, access: 0x93, big: false, null: false }
    }

    /// A flat 4 GiB, 32-bit ring-0 segment with the given access byte.
    pub const fn flat(selector: u16, access: u8) -> Self {
        Self { selector, base: 0, limit: 0xffff_ffff, access, big: true, null: false }
    }
}

/// The base and limit in GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u32,
    /// Limit in bytes (size - 1).
    pub limit: u16,
}

/// The x87 unit's registers; MMX registers are the significands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FpuState {
    /// The eight physical registers (not in stack order): significand, then sign and exponent.
    pub regs: [(u64, u16); 8],
    /// Bit i set: physical register i is empty.
    pub empty: u8,
    /// Control word.
    pub control: u16,
    /// Status word, TOP in bits 11-13.
    pub status: u16,
    /// Last instruction pointer: offset.
    pub ip: u32,
    /// Last instruction pointer: selector.
    pub cs: u16,
    /// Last data pointer: offset.
    pub dp: u32,
    /// Last data pointer: selector.
    pub ds: u16,
    /// Last opcode, 11 bits.
    pub opcode: u16,
}

impl Default for FpuState {
    /// The state after FNINIT.
    fn default() -> Self {
        Self {
            regs: [(0, 0); 8],
            empty: 0xff,
            control: 0x37f,
            status: 0,
            ip: 0,
            cs: 0,
            dp: 0,
            ds: 0,
            opcode: 0,
        }
    }
}

/// Everything an instruction can see of the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchState {
    /// EAX ECX EDX EBX ESP EBP ESI EDI.
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// EFLAGS, arithmetic flags resolved.
    pub eflags: u32,
    /// ES CS SS DS FS GS.
    pub seg: [Segment; 6],
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// Control register 0.
    pub cr0: u32,
    /// Control register 2: the last page fault's address.
    pub cr2: u32,
    /// Control register 3: the page directory.
    pub cr3: u32,
    /// Control register 4.
    pub cr4: u32,
    /// The four PAE page-directory-pointer entries as loaded with CR3.
    pub pdpte: [u64; 4],
    /// DR0 to DR7; 4 and 5 unused.
    pub dr: [u32; 8],
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// Halted by HLT until an interrupt.
    pub halted: bool,
    /// Interrupts are held off for one instruction after STI, MOV SS or POP SS.
    pub interrupt_shadow: bool,
    /// MSR 174h.
    pub sysenter_cs: u32,
    /// MSR 175h.
    pub sysenter_esp: u32,
    /// MSR 176h.
    pub sysenter_eip: u32,
    /// Added to the bus clock to give the TSC.
    pub tsc_offset: u64,
    /// x87 and MMX.
    pub fpu: FpuState,
    /// XMM0 to XMM7.
    pub xmm: [u128; 8],
    /// SSE control and status.
    pub mxcsr: u32,
}

impl Default for ArchState {
    /// The state after RESET: CS:EIP = F000:FFF0 with base FFFF0000h (SDM volume 3, 9.1).
    fn default() -> Self {
        let mut seg = [Segment::real(0); 6];
        seg[1] = Segment { selector: 0xf000, base: 0xffff_0000, access: 0x9b, ..Segment::real(0) };
        let table = TableRegister { base: 0, limit: 0xffff };
        let mut dr = [0; 8];
        (dr[6], dr[7]) = (0xffff_0ff0, 0x400);
        Self {
            gpr: [0, 0, 0x673, 0, 0, 0, 0, 0],
            eip: 0xfff0,
            eflags: 2,
            seg,
            tr: Segment { access: 0x8b, ..Segment::real(0) },
            ldtr: Segment { access: 0x82, ..Segment::real(0) },
            gdtr: table,
            idtr: table,
            cr0: 0x6000_0010,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            pdpte: [0; 4],
            dr,
            cpl: 0,
            halted: false,
            interrupt_shadow: false,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_offset: 0,
            fpu: FpuState { control: 0x40, empty: 0, ..FpuState::default() },
            xmm: [0; 8],
            mxcsr: 0x1f80,
        }
    }
}
