//! The registers that a case starts with, and what comes out of it.

/// Flat 32-bit user code, as Linux has it.
pub const USER_CS: u16 = 0x23;
/// Flat user data.
pub const USER_DS: u16 = 0x2b;

/// Segment registers by number: ES, CS, SS, DS, FS, GS.
pub const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
/// General registers by number.
pub const GENERAL: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];

/// EFLAGS bits.
#[allow(missing_docs)]
pub mod flag {
    pub const CF: u32 = 1 << 0;
    pub const PF: u32 = 1 << 2;
    pub const AF: u32 = 1 << 4;
    pub const ZF: u32 = 1 << 6;
    pub const SF: u32 = 1 << 7;
    pub const TF: u32 = 1 << 8;
    pub const IF: u32 = 1 << 9;
    pub const DF: u32 = 1 << 10;
    pub const OF: u32 = 1 << 11;
    pub const NT: u32 = 1 << 14;
    pub const RF: u32 = 1 << 16;
    pub const AC: u32 = 1 << 18;
    pub const ID: u32 = 1 << 21;
    /// The six that arithmetic sets.
    pub const ARITH: u32 = CF | PF | AF | ZF | SF | OF;
    /// Names for printing.
    pub const NAMES: [(u32, &str); 13] = [
        (CF, "CF"),
        (PF, "PF"),
        (AF, "AF"),
        (ZF, "ZF"),
        (SF, "SF"),
        (TF, "TF"),
        (IF, "IF"),
        (DF, "DF"),
        (OF, "OF"),
        (NT, "NT"),
        (RF, "RF"),
        (AC, "AC"),
        (ID, "ID"),
    ];

    /// Flags by name.
    pub fn names(flags: u32) -> String {
        let set: Vec<_> = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|&(_, n)| n).collect();
        set.join(" ")
    }
}

/// x87, MMX and SSE, as FXSAVE sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fx {
    /// Control word.
    pub control: u16,
    /// Status word.
    pub status: u16,
    /// Bit i set: physical register i is not empty.
    pub valid: u8,
    /// Last opcode.
    pub opcode: u16,
    /// Last instruction pointer.
    pub ip: u32,
    /// Last data pointer.
    pub dp: u32,
    /// ST(0) to ST(7): significand, sign and exponent.
    pub st: [(u64, u16); 8],
    /// SSE control and status.
    pub mxcsr: u32,
    /// XMM0 to XMM7.
    pub xmm: [u128; 8],
}

impl Default for Fx {
    fn default() -> Self {
        Self {
            control: 0x37f,
            status: 0,
            valid: 0,
            opcode: 0,
            ip: 0,
            dp: 0,
            st: [(0, 0); 8],
            mxcsr: 0x1f80,
            xmm: [0; 8],
        }
    }
}

impl Fx {
    /// The part of an FXSAVE image that holds state (SDM volume 1, 10.5.1).
    pub const BYTES: usize = 288;

    /// Into an image of the 64-bit format; bytes that hold no state stay.
    pub fn store(&self, image: &mut [u8; Self::BYTES]) {
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.control.to_le_bytes());
        put(2, &self.status.to_le_bytes());
        put(4, &[self.valid, 0]);
        put(6, &self.opcode.to_le_bytes());
        put(8, &u64::from(self.ip).to_le_bytes());
        put(16, &u64::from(self.dp).to_le_bytes());
        put(24, &self.mxcsr.to_le_bytes());
        for (i, (significand, exponent)) in self.st.iter().enumerate() {
            put(32 + 16 * i, &significand.to_le_bytes());
            put(40 + 16 * i, &u64::from(*exponent).to_le_bytes());
        }
        for (i, v) in self.xmm.iter().enumerate() {
            put(160 + 16 * i, &v.to_le_bytes());
        }
    }

    /// From an image of the 64-bit format.
    pub fn load(image: &[u8; Self::BYTES]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let mut fx = Self {
            control: u16_at(0),
            status: u16_at(2),
            valid: image[4],
            opcode: u16_at(6),
            ip: u32_at(8),
            dp: u32_at(16),
            mxcsr: u32_at(24),
            ..Self::default()
        };
        for i in 0..8 {
            fx.st[i] = (u64_at(32 + 16 * i), u16_at(40 + 16 * i));
            fx.xmm[i] = u128::from(u64_at(160 + 16 * i)) | u128::from(u64_at(168 + 16 * i)) << 64;
        }
        fx
    }
}

/// The registers that user code sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regs {
    /// EAX ECX EDX EBX ESP EBP ESI EDI.
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// EFLAGS.
    pub eflags: u32,
    /// ES CS SS DS FS GS.
    pub seg: [u16; 6],
    /// x87, MMX, SSE.
    pub fx: Fx,
}

impl Default for Regs {
    fn default() -> Self {
        let mut seg = [USER_DS; 6];
        seg[1] = USER_CS;
        Self { gpr: [0; 8], eip: 0, eflags: flag::IF | 2, seg, fx: Fx::default() }
    }
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An exception or software interrupt: vector, error code (0 if there is none), and CR2 if it
    /// is a page fault (else 0).
    Vector(u8, u32, u32),
    /// Still running after a long time.
    Hang,
    /// Triple fault.
    Shutdown,
}

/// The registers after a case, and how it ended. EIP and EFLAGS are those on the handler's stack.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Registers.
    pub regs: Regs,
    /// The end.
    pub end: End,
}
