//! What Intel's manual leaves undefined. Processors differ there, also those of one maker, so none of it is
//! compared, whatever the host does.

use crate::state::flag::{AF, ARITH, CF, OF, PF, SF, ZF};

/// What an instruction does with the arithmetic flags (SDM volume 1, table A-2, and the instruction's page
/// in volume 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Flags that the result depends on.
    pub reads: u32,
    /// Flags that it sets or clears for certain.
    pub defines: u32,
    /// Flags that it may leave in any state.
    pub undefines: u32,
}

/// How far a shift or rotate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many bits, already taken modulo 32.
    Known(u32),
    /// Not known before it runs.
    Any,
}

impl Count {
    /// The count that a byte stands for: the processor looks at five bits of it.
    pub fn of(byte: u8) -> Self {
        Self::Known(u32::from(byte) & 0x1f)
    }
}

/// The flags that the condition of Jcc, SETcc or CMOVcc looks at (SDM volume 1, table B-1).
pub fn condition(code: u8) -> u32 {
    match code & 0xe {
        0x0 => OF,
        0x2 => CF,
        0x4 => ZF,
        0x6 => CF | ZF,
        0x8 => SF,
        0xa => PF,
        0xc => SF | OF,
        _ => SF | OF | ZF,
    }
}

/// What the instruction `name` does with the flags; one that is not here touches none. Shifts and rotates have
/// a `count` and an operand of `bits` bits, conditional instructions a condition `code`.
pub fn usage(name: &str, count: Count, bits: u32, code: u8) -> Usage {
    let u = |reads, defines, undefines| Usage { reads, defines, undefines };
    match name {
        "add" | "sub" | "cmp" | "neg" | "xadd" | "cmpxchg" | "popcnt" => u(0, ARITH, 0),
        "cmps" | "scas" => u(0, ARITH, 0),
        "adc" | "sbb" => u(CF, ARITH, 0),
        "and" | "or" | "xor" | "test" => u(0, ARITH & !AF, AF),
        "inc" | "dec" => u(0, ARITH & !CF, 0),
        "mul" | "imul" => u(0, CF | OF, SF | ZF | AF | PF),
        "div" | "idiv" => u(0, 0, ARITH),
        "bsf" | "bsr" => u(0, ZF, CF | OF | SF | AF | PF),
        "bt" | "bts" | "btr" | "btc" => u(0, CF, OF | SF | AF | PF),
        "aaa" | "aas" => u(AF, AF | CF, OF | SF | ZF | PF),
        "aad" | "aam" => u(0, SF | ZF | PF, OF | AF | CF),
        "daa" | "das" => u(AF | CF, ARITH & !OF, OF),
        "clc" | "stc" => u(0, CF, 0),
        "cmc" => u(CF, CF, 0),
        "sahf" => u(0, ARITH & !OF, 0),
        "lahf" => u(ARITH & !OF, 0, 0),
        "pushf" => u(ARITH, 0, 0),
        "salc" => u(CF, 0, 0),
        "cmov" | "set" | "j" => u(condition(code), 0, 0),
        "rol" | "ror" => shifted(count, u(0, CF, 0)),
        "rcl" | "rcr" => shifted(count, u(CF, CF, 0)),
        "sar" => shifted(count, u(0, CF | SF | ZF | PF, AF)),
        "shld" | "shrd" => shifted(count, u(0, CF | SF | ZF | PF, AF)),
        // Of a count beyond the operand nothing is left to be carried.
        "shl" | "shr" if matches!(count, Count::Known(n) if n < bits) => {
            shifted(count, u(0, CF | SF | ZF | PF, AF))
        }
        "shl" | "shr" => shifted(count, u(0, SF | ZF | PF, AF | CF)),
        _ => Usage::default(),
    }
}

/// The same for a count: by none, no flag changes; OF is defined for one bit only.
fn shifted(count: Count, usage: Usage) -> Usage {
    match count {
        Count::Known(0) => Usage { reads: usage.reads, ..Usage::default() },
        Count::Known(1) => Usage { defines: usage.defines | OF, ..usage },
        Count::Known(_) => Usage { undefines: usage.undefines | OF, ..usage },
        Count::Any => Usage { defines: 0, undefines: usage.undefines | OF, ..usage },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_is_defined_for_shifts_by_one_only() {
        for name in ["rol", "ror", "rcl", "rcr", "shl", "shr", "sar", "shld", "shrd"] {
            assert_eq!(usage(name, Count::of(0x20), 32, 0).undefines, 0, "{name} by none");
            assert_eq!(usage(name, Count::of(0x21), 32, 0).undefines & OF, 0, "{name} by one");
            assert_eq!(usage(name, Count::of(2), 32, 0).undefines & OF, OF, "{name} by two");
            assert_eq!(usage(name, Count::Any, 32, 0).defines, 0, "{name} by any");
        }
        assert_eq!(usage("shl", Count::of(8), 8, 0).undefines & CF, CF);
        assert_eq!(usage("sar", Count::of(8), 8, 0).undefines & CF, 0);
    }

    #[test]
    fn no_flag_is_both_defined_and_undefined() {
        for row in env86_emu::isa::table::TABLE {
            for count in [Count::Any, Count::Known(0), Count::Known(1), Count::Known(9)] {
                let usage = usage(row.name, count, 8, 0);
                assert_eq!(usage.defines & usage.undefines, 0, "{}", row.name);
            }
        }
    }
}
