//! Rows of instructions by shape.
//!
//! Where [`join`](super::join) has no handler for a row of particular instructions, or only for fewer of them, there may be
//! one for their shapes: it takes what they compute from their uops ([`crate::isa::uniform`]).

use super::join::{After, Before, End, Kind, Nothing, branching, leaving, testing};
use crate::cpu::regs::Reg;
use crate::dispatch::{Alone, Handler, Op, Uop, form, joined};
use crate::isa::uniform;

/// Most instructions in a row.
pub(super) const MOST: usize = 4;

/// What instructions have in common that one code can execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Sum,
    Load,
    Store,
    Push,
    Byte,
}

impl Shape {
    fn of(kind: Kind, u: &Uop) -> Option<Self> {
        use Kind::*;
        Some(match kind {
            Move | MoveImm | Address | AddReg | AddImm | SubImm | IncReg | DecReg => Self::Sum,
            AddressIndexed if u.form & form::SCALE == 0 => Self::Sum,
            // Zero.
            XorReg | SubReg if u.src == u.dst => Self::Sum,
            Load | LoadIndexed => Self::Load,
            Store | StoreImm | StoreIndexed | StoreImmIndexed => Self::Store,
            PushReg | PushImm => Self::Push,
            LoadByte | LoadByteIndexed => Self::Byte,
            _ => return None,
        })
    }
}

/// Puts what the shape's code needs where the instruction's own handler does not look.
pub(super) fn prepare(kind: Kind, u: &mut Uop) {
    use Kind::*;
    match kind {
        Move => (u.base, u.disp) = (u.src, 0),
        MoveImm => u.disp = u.imm,
        XorReg | SubReg => u.disp = 0,
        AddReg => (u.base, u.index, u.disp) = (u.src, u.dst, 0),
        AddImm => (u.base, u.disp) = (u.dst, u.imm),
        SubImm => (u.base, u.disp) = (u.dst, u.imm.wrapping_neg()),
        IncReg => (u.base, u.disp) = (u.dst, 1),
        DecReg => (u.base, u.disp) = (u.dst, u32::MAX),
        Store | StoreIndexed | PushReg => u.imm = 0,
        StoreImm | StoreImmIndexed | PushImm => u.src = Reg::ZERO,
        _ => {}
    }
}

/// `shaped!(shape, T in [Names] => expression with T)`: the expression for the code of the shape, or nothing if it is
/// none of those named.
macro_rules! shaped {
    ($shape:expr, $T:ident in [$($Name:ident)*] => $e:expr) => {
        match $shape {
            $(Shape::$Name => shaped!(@ $Name $T $e),)*
            #[allow(unreachable_patterns)]
            _ => None,
        }
    };
    (@ Sum $T:ident $e:expr) => {{ type $T = uniform::Sum; $e }};
    (@ Load $T:ident $e:expr) => {{ type $T = uniform::Load; $e }};
    (@ Store $T:ident $e:expr) => {{ type $T = uniform::Store; $e }};
    (@ Push $T:ident $e:expr) => {{ type $T = uniform::Pushed; $e }};
    (@ Byte $T:ident $e:expr) => {{ type $T = uniform::Byte; $e }};
}

/// The shapes of a row.
pub(super) struct Shapes {
    shapes: [Shape; MOST],
    length: usize,
}

impl Shapes {
    /// No instruction.
    pub fn new() -> Self {
        Self { shapes: [Shape::Sum; MOST], length: 0 }
    }

    /// With an instruction more, if that has a shape and there is room.
    pub fn push(&mut self, kind: Kind, u: &Uop) -> Option<()> {
        *self.shapes.get_mut(self.length)? = Shape::of(kind, u)?;
        self.length += 1;
        Some(())
    }

    fn shapes(&self) -> &[Shape] {
        &self.shapes[..self.length]
    }

    /// The handler of the row.
    pub fn row(&self) -> Option<Handler> {
        match *self.shapes() {
            [a, b] => shaped!(a, A in [Sum Load Store Push Byte] => {
                shaped!(b, B in [Sum Load Store Push Byte] => after::<After<Nothing, A>, B>())
            }),
            [a, b, c] => shaped!(a, A in [Sum Load Store Push Byte] => {
                shaped!(b, B in [Sum Load Store Push Byte] => {
                    shaped!(c, C in [Sum Load Store Push Byte] => after::<After<After<Nothing, A>, B>, C>())
                })
            }),
            [a, b, c, d] => shaped!(a, A in [Sum Load Store Push] => {
                shaped!(b, B in [Sum Load Store Push] => {
                    shaped!(c, C in [Sum Load Store Push] => {
                        shaped!(d, D in [Sum Load Store Push] => {
                            after::<After<After<After<Nothing, A>, B>, C>, D>()
                        })
                    })
                })
            }),
            _ => None,
        }
    }

    /// The handler of the row and the end of the block behind it.
    pub fn and(&self, end: End) -> Option<Handler> {
        match *self.shapes() {
            [a] => {
                shaped!(a, A in [Sum Load Store Push Byte] => ending::<After<Nothing, A>>(end))
            }
            [a, b] => shaped!(a, A in [Sum Load Store Push] => {
                shaped!(b, B in [Sum Load Store Push Byte] => ending::<After<After<Nothing, A>, B>>(end))
            }),
            [a, b, c] => shaped!(a, A in [Sum Load Store Push] => {
                shaped!(b, B in [Sum Load Store Push] => {
                    shaped!(c, C in [Sum Load Store Push] => {
                        ending_rarely::<After<After<After<Nothing, A>, B>, C>>(end)
                    })
                })
            }),
            _ => None,
        }
    }
}

fn after<B: Before, O: Op>() -> Option<Handler> {
    Some(joined::<B::And<Alone<O, O>>>)
}

fn ending<B: Before>(end: End) -> Option<Handler> {
    match end {
        End::Branch { compared, condition, far: false } => branching::<B, false>(compared, condition),
        _ => leaving::<B>(end),
    }
}

/// As [`ending`], with few comparisons.
fn ending_rarely<B: Before>(end: End) -> Option<Handler> {
    match end {
        End::Branch { compared, condition, far: false } => testing::<B>(compared, condition),
        _ => leaving::<B>(end),
    }
}
