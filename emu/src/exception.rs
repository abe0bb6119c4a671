//! Processor exceptions (Intel SDM volume 3, chapter 6).

/// An exception on its way to a handler: a vector and, for those that have one, an error code.
///
/// All are faults: the saved EIP is that of the instruction that caused them. Traps (INT3, INTO,
/// single-step) are delivered by their own instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Interrupt vector, 0 to 31.
    pub vector: u8,
    /// The error code pushed on the handler's stack, if the vector has one.
    pub error: Option<u16>,
}

/// The result of anything that can raise an exception.
pub type Result<T, E = Exception> = core::result::Result<T, E>;

impl Exception {
    /// #DE, divide error.
    pub const DIVIDE_ERROR: Self = Self::plain(0);
    /// #DB, debug.
    pub const DEBUG: Self = Self::plain(1);
    /// #BP, breakpoint.
    pub const BREAKPOINT: Self = Self::plain(3);
    /// #OF, overflow.
    pub const OVERFLOW: Self = Self::plain(4);
    /// #BR, BOUND range exceeded.
    pub const BOUND: Self = Self::plain(5);
    /// #UD, invalid opcode.
    pub const INVALID_OPCODE: Self = Self::plain(6);
    /// #NM, device not available.
    pub const DEVICE_NOT_AVAILABLE: Self = Self::plain(7);
    /// #DF, double fault.
    pub const DOUBLE_FAULT: Self = Self::coded(8, 0);
    /// #MF, x87 floating-point error.
    pub const FPU_ERROR: Self = Self::plain(16);
    /// #AC, alignment check.
    pub const ALIGNMENT_CHECK: Self = Self::coded(17, 0);
    /// #XM, SIMD floating-point exception.
    pub const SIMD_ERROR: Self = Self::plain(19);
    /// #GP(0).
    pub const GP0: Self = Self::coded(13, 0);
    /// #SS(0).
    pub const SS0: Self = Self::coded(12, 0);

    const fn plain(vector: u8) -> Self {
        Self { vector, error: None }
    }

    const fn coded(vector: u8, error: u16) -> Self {
        Self { vector, error: Some(error) }
    }

    /// #TS with a selector (its RPL bits are cleared) as error code.
    pub const fn invalid_tss(selector: u16) -> Self {
        Self::coded(10, selector & !3)
    }

    /// #NP with a selector as error code.
    pub const fn not_present(selector: u16) -> Self {
        Self::coded(11, selector & !3)
    }

    /// #SS with a selector as error code.
    pub const fn stack(selector: u16) -> Self {
        Self::coded(12, selector & !3)
    }

    /// #GP with a selector as error code.
    pub const fn protection(selector: u16) -> Self {
        Self::coded(13, selector & !3)
    }

    /// #PF; the faulting address goes to CR2.
    pub const fn page_fault(error: u16) -> Self {
        Self::coded(14, error)
    }
}
