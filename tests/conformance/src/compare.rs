//! What must be equal, and what the manuals leave undefined.

use crate::generate::Case;
use crate::guest::{SYSTEM, SYSTEM_END};
use crate::layout::{Image, linear};
use crate::segments::CODES;
use crate::state::{End, Fx, GENERAL, Outcome, SEGMENTS, flag};

/// Instructions that may be an ulp off (Intel SDM volume 1, 8.3.10), and then C1, which tells the
/// direction of rounding, as well.
const TRANSCENDENTAL: [&str; 8] = ["f2xm1", "fyl2x", "fyl2xp1", "fptan", "fpatan", "fsin", "fcos", "fsincos"];
/// Instructions with a relative error of up to 1.5 * 2^-12.
const APPROXIMATE: [&str; 4] = ["rcpps", "rcpss", "rsqrtps", "rsqrtss"];
/// C1 of the x87 status word.
const C1: u16 = 1 << 9;
/// The overflow exception in it.
const OE: u16 = 1 << 3;
/// The underflow exception.
const UE: u16 = 1 << 4;
/// The lowest bit of TOP.
const TOP: u16 = 11;
/// Instructions that write an x87 register to memory, rounded.
const X87_STORES: [&str; 6] = ["fst", "fstp", "fist", "fistp", "fisttp", "fbstp"];
/// Instructions that write an MMX register to memory.
const MMX_STORES: [&str; 4] = ["movd", "movq", "movntq", "maskmovq"];
/// The exponent of the largest extended real.
const LARGEST_EXPONENT: u16 = 0x7ffe;
/// That of infinities and NaNs.
const INFINITE_EXPONENT: u16 = 0x7fff;
/// Bit 17 of MXCSR, an AMD control, reserved elsewhere.
const MISALIGNED_SSE: u32 = 1 << 17;

/// The page fault error code's instruction-fetch bit, which only systems with NX set.
const FETCH: u32 = 1 << 4;
/// The page fault error code's protection bit.
const PRESENT: u32 = 1;
const PAGE_FAULT: u8 = 14;
const ALIGNMENT_CHECK: u8 = 17;
const DEBUG: u8 = 1;
/// The prefix.
const LOCK: u8 = 0xf0;
/// The opcode for bytes.
const XCHG: u8 = 0x86;
const BREAKPOINT: u8 = 3;
const OUT_OF_BOUNDS: u8 = 5;
/// The x87 status word's ES.
const ERROR_SUMMARY: u16 = 1 << 7;

/// The differences, ours first, as lines to read.
pub fn differences(
    name: &str,
    case: &Case,
    ours: &Outcome,
    host: &Outcome,
    our_memory: &Image,
    host_memory: &Image,
) -> Vec<String> {
    let mut d = Vec::new();
    if straddles(name, case.regs.eip, ours, host)
        || takes_misaligned_sse(ours, host)
        || one_of_two_faults(name, case.regs.eip, ours, host)
        || may_underflow(name, &case.regs.fx)
        || is_held_up(case, host.end)
    {
        return d;
    }
    let fetch = |end| match end {
        // The guest's own pages are present, the host's are not.
        End::Vector(PAGE_FAULT, error, cr2 @ SYSTEM..SYSTEM_END) => {
            End::Vector(PAGE_FAULT, error & !FETCH & !PRESENT, cr2)
        }
        End::Vector(PAGE_FAULT, error, cr2) => End::Vector(PAGE_FAULT, error & !FETCH, cr2),
        end => end,
    };
    let either = |end| match end {
        // Of two operands that both cannot be read, REPE CMPSB reports the other than its kin do.
        End::Vector(12 | 13 | PAGE_FAULT, ..) if name == "cmpsb" => End::Vector(PAGE_FAULT, 0, 0),
        // AMD's processors read the outer stack before they look at the selector, Intel's after (SDM volume 2, RET).
        End::Vector(12 | 13 | PAGE_FAULT | ALIGNMENT_CHECK, ..) if matches!(name, "retf" | "iret") => {
            End::Vector(PAGE_FAULT, 0, 0)
        }
        // Which of the bytes that cannot be written is reported is not defined (SDM volume 2, MASKMOVDQU).
        End::Vector(PAGE_FAULT, ..) if name.starts_with("maskmov") => End::Vector(PAGE_FAULT, 0, 0),
        end => fetch(end),
    };
    if either(ours.end) != either(host.end) {
        d.push(format!("end: ours {:x?}, host {:x?}", ours.end, host.end));
    }
    let (a, b) = (&ours.regs, &host.regs);
    let mut word = |name: &str, a: u32, b: u32| {
        if a != b {
            d.push(format!("{name}: ours {a:08x}, host {b:08x}"));
        }
    };
    word("eip", a.eip, b.eip);
    // A POPA that faults has loaded some registers on some processors; restarted, it loads all.
    let partial = name == "popa" && matches!(host.end, End::Vector(12 | PAGE_FAULT, ..));
    for (i, name) in GENERAL.iter().enumerate().filter(|_| !partial) {
        word(name, a.gpr[i], b.gpr[i]);
    }
    for (i, name) in SEGMENTS.iter().enumerate() {
        // The host's return from its kernel clears null selectors' privilege.
        let plain = |selector: u16| u32::from(if selector < 4 { 0 } else { selector });
        word(name, plain(a.seg[i]), plain(b.seg[i]));
    }
    let (f, g) = (&a.fx, &b.fx);
    word("x87 control", f.control.into(), g.control.into());
    let inexact = TRANSCENDENTAL.contains(&name);
    // Next to the largest number one of the two may have overflowed, next to the smallest underflowed.
    let beside = |limit: fn(u16) -> bool| inexact && f.st.iter().any(|r| limit(r.1 & 0x7fff));
    let overflow = if beside(|exponent| exponent >= LARGEST_EXPONENT) { OE } else { 0 };
    let underflow = if beside(|exponent| exponent <= 1) { UE } else { 0 };
    let rounded_up = if inexact { C1 | overflow | underflow } else { 0 };
    // An MMX instruction that cannot write its result has the x87's stack begin at register 0 on Intel's processors,
    // and leaves it on AMD's. Registers by their own numbers are the same.
    let mmx_fault = MMX_STORES.contains(&name) && !matches!(ours.end, End::Vector(BREAKPOINT | DEBUG, ..));
    let top = |status: u16| if mmx_fault { usize::from(status >> TOP & 7) } else { 0 };
    let not_compared = rounded_up | if mmx_fault { 7 << TOP } else { 0 };
    word("x87 status", (f.status & !not_compared).into(), (g.status & !not_compared).into());
    word("x87 valid", f.valid.into(), g.valid.into());
    // Without an exception pending AMD's processors do not show the pointers.
    if g.status & ERROR_SUMMARY != 0 {
        word("x87 opcode", f.opcode.into(), g.opcode.into());
        word("x87 ip", f.ip, g.ip);
        word("x87 dp", f.dp, g.dp);
    }
    word("mxcsr", f.mxcsr, g.mxcsr);
    for i in 0..8 {
        let (ours, host) = (f.st[(8 + i - top(f.status)) % 8], g.st[(8 + i - top(g.status)) % 8]);
        if ours != host && !(inexact && are_neighbours(ours, host)) {
            let ((m, e), (n, h)) = (ours, host);
            d.push(format!("st{i}: ours {e:04x}:{m:016x}, host {h:04x}:{n:016x}"));
        }
        if f.xmm[i] != g.xmm[i] && !(APPROXIMATE.contains(&name) && are_close(f.xmm[i], g.xmm[i])) {
            d.push(format!("xmm{i}: ours {:032x}, host {:032x}", f.xmm[i], g.xmm[i]));
        }
    }
    // AMD's processors do not save RF when code is beyond the limit of its segment.
    let fetch_limit = ours.end == End::Vector(13, 0, 0) && CODES.contains(&a.seg[1]);
    // Between two elements of a repeated instruction a single step saves RF on Intel's processors (SDM volume 3,
    // 17.3.1.1), and not on AMD's.
    let repeats = matches!(ours.end, End::Vector(DEBUG, ..)) && a.eflags & flag::RF != 0;
    let resume = if fetch_limit || repeats { flag::RF } else { 0 };
    let undefined = match ours.end {
        End::Vector(BREAKPOINT, ..) => case.undefined,
        _ => case.undefined_on_the_way,
    };
    let flags = (a.eflags ^ b.eflags) & !undefined & !resume;
    if flags != 0 {
        d.push(format!(
            "eflags: ours [{}], host [{}], different [{}] {flags:x}",
            flag::names(a.eflags),
            flag::names(b.eflags),
            flag::names(flags)
        ));
    }
    if our_memory != host_memory && !may_have_stored(name, ours.end) {
        // The mask of MXCSR that FXSAVE stores tells which processor it is.
        let mask = |i: usize| name == "fxsave" && i % 16 == 14;
        let top = ours.regs.gpr[4];
        // Either zero or what was there is right (SDM volume 2, PUSH).
        let unused = |i: usize| case.pushes_selector && matches!(linear(i).wrapping_sub(top), 2 | 3);
        let both = our_memory.iter().zip(host_memory).enumerate();
        let places = both.filter(|&(i, (&a, &b))| {
            let maker = mask(i) && (a, b) == (0, (MISALIGNED_SSE >> 16) as u8);
            !(a == b || unused(i) || maker)
        });
        for (i, (a, b)) in places.clone().take(16) {
            d.push(format!("memory {:08x}: ours {a:02x}, host {b:02x}", linear(i)));
        }
        let count = places.count();
        if count != 0 {
            d.push(format!("memory: {count} bytes differ"));
        }
    }
    d
}

/// An access that straddles 4 GiB in a flat segment is a limit violation on some processors, while
/// others let it wrap (Intel SDM volume 3, 5.3).
fn straddles(name: &str, start: u32, ours: &Outcome, host: &Outcome) -> bool {
    let wraps = |outcome: &Outcome| match outcome.end {
        End::Vector(PAGE_FAULT, _, at) => matches!(at, 0 | 0xffff_fff0..),
        // Misaligned at any rate. Only sequences, and code that a branch lands in, make such addresses.
        End::Vector(ALIGNMENT_CHECK, ..) => name == "sequence" || outcome.regs.eip != start,
        _ => false,
    };
    let violates = |outcome: &Outcome| matches!(outcome.end, End::Vector(12 | 13, 0, 0));
    wraps(ours) && violates(host) || violates(ours) && wraps(host)
}

/// Of an operand that cannot be used and what the instruction itself says of it, either may come first:
/// - an x87 store whose value raises an unmasked exception leaves memory alone, and some processors then do not look
///   at the operand's address (SDM volume 1, 8.5);
/// - BOUND with an index below the lower bound need not read the upper one.
fn one_of_two_faults(name: &str, start: u32, ours: &Outcome, host: &Outcome) -> bool {
    let faults = |outcome: &Outcome| {
        matches!(outcome.end, End::Vector(12 | 13 | PAGE_FAULT | ALIGNMENT_CHECK, ..))
            && outcome.regs.eip == start
    };
    let pends = |outcome: &Outcome| !faults(outcome) && outcome.regs.fx.status & ERROR_SUMMARY != 0;
    let beyond = |end| matches!(end, End::Vector(OUT_OF_BOUNDS, ..));
    let either = |a: &Outcome, b: &Outcome| {
        faults(a) && (X87_STORES.contains(&name) && pends(b) || name == "bound" && beyond(b.end))
    };
    either(ours, host) || either(host, ours)
}

/// Whether a result next to the smallest normal number raises an unmasked underflow, which changes its exponent:
/// a denormal that an instruction leaves as it is does on AMD's processors, and not on Intel's; a result that may be
/// an ulp off may be on either side.
fn may_underflow(name: &str, before: &Fx) -> bool {
    let (number, operand) = (before.st[0].1 & INFINITE_EXPONENT, before.st[1].1 & INFINITE_EXPONENT);
    let unchanged = matches!(name, "fprem" | "fprem1" | "fscale") && matches!(operand, 0 | INFINITE_EXPONENT);
    before.control & UE == 0 && (unchanged && number == 0 || TRANSCENDENTAL.contains(&name) && number == 1)
}

/// An instruction that faults after a part of what it stores, on some processors: ten bytes of the x87 across the end
/// of what can be written, and the return address of a near CALL to beyond its segment's limit.
fn may_have_stored(name: &str, end: End) -> bool {
    match end {
        End::Vector(12 | 13 | PAGE_FAULT, ..) if matches!(name, "fstp" | "fbstp") => true,
        End::Vector(13, ..) => name == "call",
        _ => false,
    }
}

/// Linux lets a process wait that locks the bus for an operand on two cache lines, past the watchdog's patience if
/// others use the processor. XCHG locks without a prefix.
fn is_held_up(case: &Case, host: End) -> bool {
    host == End::Hang && case.bytes.iter().any(|byte| [LOCK, XCHG, XCHG + 1].contains(byte))
}

/// AMD's processors let MXCSR have a control that others, and ours, refuse.
fn takes_misaligned_sse(ours: &Outcome, host: &Outcome) -> bool {
    ours.end == End::Vector(13, 0, 0) && host.regs.fx.mxcsr & MISALIGNED_SSE != 0
}

/// The same extended real, or one next to it.
fn are_neighbours(a: (u64, u16), b: (u64, u16)) -> bool {
    let key = |(significand, exponent): (u64, u16)| {
        u128::from(exponent) << 63 | u128::from(significand & !(1 << 63))
    };
    key(a).abs_diff(key(b)) <= 1
}

/// Four singles that are each as near as two approximations may be.
fn are_close(a: u128, b: u128) -> bool {
    (0..4).all(|i| {
        let (x, y) = ((a >> (32 * i)) as u32, (b >> (32 * i)) as u32);
        let (v, w) = (f64::from(f32::from_bits(x)), f64::from(f32::from_bits(y)));
        let close = v.is_finite() && w.is_finite() && ((v - w) / w).abs() <= 3.0 / 4096.0;
        // Results below the smallest normal number are zero.
        let (least, near_least) = (f64::from(f32::MIN_POSITIVE), v.abs().max(w.abs()));
        x == y || close || v.abs().min(w.abs()) == 0.0 && near_least <= least * (1.0 + 3.0 / 4096.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::BYTES;
    use crate::state::Regs;

    fn found(case: &Case, end: End, ours: u32, host: u32) -> bool {
        let outcome = |flags| Outcome { regs: Regs { eflags: flags, ..Regs::default() }, end };
        let memory: Box<Image> = vec![0; BYTES].try_into().unwrap();
        !differences("shl", case, &outcome(ours), &outcome(host), &memory, &memory).is_empty()
    }

    #[test]
    fn only_what_is_undefined_may_differ() {
        let mut case =
            Case { undefined: flag::OF, undefined_on_the_way: flag::OF | flag::AF, ..Case::default() };
        let (end, step) = (End::Vector(BREAKPOINT, 0, 0), End::Vector(DEBUG, 0, 0));
        assert!(!found(&case, end, flag::OF, 0));
        assert!(found(&case, end, flag::AF, 0) && !found(&case, step, flag::AF, 0));
        assert!(found(&case, end, flag::CF, 0) && found(&case, end, flag::RF, 0));
        assert!(!found(&case, step, flag::RF, 0), "between two elements");
        assert!(found(&case, step, 0, flag::RF), "Intel's processors save it");
        case.undefined = 0;
        assert!(found(&case, end, flag::OF, 0));
    }

    #[test]
    fn a_pushed_selector_leaves_half_a_slot() {
        let ours: Box<Image> = vec![0; BYTES].try_into().unwrap();
        let mut case = Case::default();
        let mut ends = Outcome { regs: Regs::default(), end: End::Vector(BREAKPOINT, 0, 0) };
        ends.regs.gpr[4] = linear(64);
        let differ = |at: usize, case: &Case| {
            let mut host = ours.clone();
            host[at] = 1;
            !differences("push es", case, &ends, &ends, &ours, &host).is_empty()
        };
        assert!(differ(66, &case));
        case.pushes_selector = true;
        assert!(!differ(66, &case) && !differ(67, &case) && differ(65, &case) && differ(68, &case));
    }
}
