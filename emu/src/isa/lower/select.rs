//! Which instance of a handler an instruction's operands need.

use super::Builder;
use crate::cpu::{SegName, mode};
use crate::isa::decode::Insn;

/// How a memory operand's address is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddrKind {
    Flat,
    Indexed,
    Segmented,
}

/// Picks the instance of a handler for the memory operand's addressing:
/// `by_addr!(kind, A => expression using A)`.
macro_rules! by_addr {
    ($kind:expr, $A:ident => $e:expr) => {
        match $kind {
            $crate::isa::lower::AddrKind::Flat => {
                type $A = $crate::isa::operand::Flat;
                $e
            }
            $crate::isa::lower::AddrKind::Indexed => {
                type $A = $crate::isa::operand::FlatIndexed;
                $e
            }
            $crate::isa::lower::AddrKind::Segmented => {
                type $A = $crate::isa::operand::Segmented;
                $e
            }
        }
    };
}
pub(crate) use by_addr;

/// Picks the instance of a handler for a number of three bits: `by_octal!(number, N => expression
/// using N)`.
macro_rules! by_octal {
    ($n:expr, $N:ident => $e:expr) => {
        $crate::isa::lower::by_octal!(@ $n, $N => $e, 0 1 2 3 4 5 6)
    };
    (@ $n:expr, $N:ident => $e:expr, $($k:literal)*) => {
        match $n & 7 {
            $($k => { const $N: u8 = $k; $e })*
            _ => { const $N: u8 = 7; $e }
        }
    };
}
pub(crate) use by_octal;

/// Picks the instance of a handler for a general register of 32 bits:
/// `by_reg!(number, R => expression using R)`.
#[cfg(not(target_family = "wasm"))]
macro_rules! by_reg {
    ($n:expr, $R:ident => $e:expr) => {
        $crate::isa::lower::by_octal!($n, NUMBER => { type $R = $crate::isa::operand::R<NUMBER>; $e })
    };
}
/// On WebAssembly one for all of them: see [`crate::isa::hot`].
#[cfg(target_family = "wasm")]
macro_rules! by_reg {
    ($n:expr, $R:ident => $e:expr) => {{
        type $R = $crate::isa::operand::R<{ $crate::isa::operand::ANY }>;
        let _ = $n;
        $e
    }};
}
pub(crate) use by_reg;

/// As [`by_reg`], for what is seldom done with ESP: nothing for that one.
#[cfg(not(target_family = "wasm"))]
macro_rules! by_data_reg {
    ($n:expr, $R:ident => $e:expr) => {
        $crate::isa::lower::by_data_reg!(@ $n, $R => $e, 0 1 2 3 5 6 7)
    };
    (@ $n:expr, $R:ident => $e:expr, $($k:literal)*) => {
        match $n & 7 {
            $($k => { type $R = $crate::isa::operand::R<$k>; $e })*
            _ => None,
        }
    };
}
#[cfg(target_family = "wasm")]
macro_rules! by_data_reg {
    ($n:expr, $R:ident => $e:expr) => { $crate::isa::lower::by_reg!($n, $R => $e) };
}
pub(crate) use by_data_reg;

/// As [`by_addr`], with an instance for each base register:
/// `by_base!(kind, base, A => expression using A)`.
#[cfg(not(target_family = "wasm"))]
macro_rules! by_base {
    ($kind:expr, $base:expr, $A:ident => $e:expr) => {
        $crate::isa::lower::by_base!(@ $kind, $base, $A => $e, 0 1 2 3 4 5 6 7)
    };
    (@ $kind:expr, $base:expr, $A:ident => $e:expr, $($k:literal)*) => {
        match ($kind, $base) {
            $(($crate::isa::lower::AddrKind::Flat, Some($k)) => {
                type $A = $crate::isa::operand::Based<$k>;
                $e
            })*
            $(($crate::isa::lower::AddrKind::Indexed, Some($k)) => {
                type $A = $crate::isa::operand::BasedIndexed<$k>;
                $e
            })*
            (kind, _) => $crate::isa::lower::by_addr!(kind, $A => $e),
        }
    };
}
/// On WebAssembly one for all of them.
#[cfg(target_family = "wasm")]
macro_rules! by_base {
    ($kind:expr, $base:expr, $A:ident => $e:expr) => {{
        let _: Option<u8> = $base;
        $crate::isa::lower::by_addr!($kind, $A => $e)
    }};
}
pub(crate) use by_base;

/// Picks the instance of a handler for the low byte or word of a general register, if it is of the first four, as
/// those with a low byte are: `by_low!(number, Any, L => expression using L)`, with `Any` for others.
#[cfg(not(target_family = "wasm"))]
macro_rules! by_low {
    ($n:expr, $Any:ty, $L:ident => $e:expr) => {
        $crate::isa::lower::by_low!(@ $n, $Any, $L => $e, 0 1 2 3)
    };
    (@ $n:expr, $Any:ty, $L:ident => $e:expr, $($k:literal)*) => {
        match $n {
            $($k => { type $L = $crate::isa::operand::Low<$k>; $e })*
            _ => { type $L = $Any; $e }
        }
    };
}
/// On WebAssembly one for all of them.
#[cfg(target_family = "wasm")]
macro_rules! by_low {
    ($n:expr, $Any:ty, $L:ident => $e:expr) => {{
        type $L = $Any;
        let _: u8 = $n;
        $e
    }};
}
pub(crate) use by_low;

/// Picks the instance of a handler for the first operand and its width, with an instance for each register of 32 bits
/// and one for each kind of address that such an operand has: `by_operand!(builder, insn, (T, D) => expression using both)`.
macro_rules! by_operand {
    ($b:expr, $i:expr, ($T:ident, $D:ident) => $e:expr) => {{
        use $crate::isa::lower::{Place, by_addr, by_reg};
        use $crate::isa::operand::{DstMem, DstReg, Segmented};
        match ($i.width(0), $i.place(0)) {
            (4, Place::Reg(n)) => {
                type $T = u32;
                by_reg!(n, $D => $e)
            }
            (4, _) => {
                type $T = u32;
                by_addr!($b.addr_kind($i), A => { type $D = DstMem<A>; $e })
            }
            (2, Place::Reg(_)) => {
                type $T = u16;
                type $D = DstReg;
                $e
            }
            (2, _) => {
                type $T = u16;
                type $D = DstMem<Segmented>;
                $e
            }
            (_, Place::Reg(_)) => {
                type $T = u8;
                type $D = DstReg;
                $e
            }
            _ => {
                type $T = u8;
                type $D = DstMem<Segmented>;
                $e
            }
        }
    }};
}
pub(crate) use by_operand;

impl Builder<'_> {
    /// How the address of an instruction's memory operand is made.
    pub fn addr_kind(&self, i: &Insn) -> AddrKind {
        match i.mem {
            Some(m)
                if self.mode & mode::FLAT_DATA != 0
                    && !i.addr16
                    && matches!(m.segment, SegName::DS | SegName::ES | SegName::SS) =>
            {
                if m.index.is_none() {
                    AddrKind::Flat
                } else {
                    AddrKind::Indexed
                }
            }
            _ => AddrKind::Segmented,
        }
    }
}
