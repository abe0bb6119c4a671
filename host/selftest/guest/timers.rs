//! The interval timer, the clock and the time stamp counter, measured by each other.

use iced_x86::code_asm::*;

use crate::frame::end_of_interrupt;
use crate::guest::{Guest, Result};

/// The 8254 (82C54 datasheet): ports, and the rate that it counts with.
pub const PIT_CONTROL: u16 = 0x43;
const PIT_COUNTER0: u16 = 0x40;
/// The rate that it counts with, in Hz.
pub const PIT_HZ: u64 = 1_193_182;
/// Counter 0, both bytes, mode 2: an interrupt each time.
const RATE_GENERATOR: u8 = 0x34;
/// About a millisecond.
const SHORT: u16 = 1193;
/// The longest: 65,536.
const LONG: u16 = 0;

/// The MC146818: ports, registers, and the rate of its periodic interrupt, 16 Hz.
const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const RATE_16_HZ: u8 = 0x2c;
const PERIODIC: u8 = 0x42;
const QUIET: u8 = 0x02;

/// Periods that are measured, half a second each, and what they take in microseconds. Both are longer than a
/// busy host leaves a machine alone as a rule, so that no interrupt is lost.
const PIT_PERIODS: u32 = 10;
const PIT_MICROSECONDS: u64 = PIT_PERIODS as u64 * 65_536 * 1_000_000 / PIT_HZ;
const RTC_PERIODS: u32 = 8;
const RTC_MICROSECONDS: u64 = RTC_PERIODS as u64 * 1_000_000 / 16;
/// Measurements until both agree.
const ROUNDS: u32 = 8;

/// Counts of interrupts: how many, and the time stamps of the first and of the last that counts. These are
/// offsets in a table; the clock's follows the timer's.
const COUNT: u32 = 0;
const FIRST: u32 = 4;
const LAST: u32 = 8;
const SIZE: u32 = 12;

/// The handlers of the timer's interrupt and of the clock's.
pub fn handlers(g: &mut Guest) -> Result<[CodeLabel; 2]> {
    let counts = g.at.ticks;
    let timer = g.mark()?;
    count(g, counts, PIT_PERIODS)?;
    end_of_interrupt(g, false)?;
    let clock = g.mark()?;
    count(g, counts + SIZE, RTC_PERIODS)?;
    g.mov(al, u32::from(REGISTER_C))?;
    g.out(u32::from(CMOS_INDEX), al)?;
    g.in_(al, u32::from(CMOS_DATA))?;
    end_of_interrupt(g, true)?;
    Ok([timer, clock])
}

/// Counts an interrupt, and takes the time until there have been so many periods.
fn count(g: &mut Guest, counts: u32, periods: u32) -> Result {
    let [enough, later] = [(); 2].map(|()| g.create_label());
    g.push(edx)?;
    g.push(eax)?;
    g.cmp(dword_ptr(counts + COUNT), periods)?;
    g.ja(enough)?;
    g.rdtsc()?;
    g.mov(dword_ptr(counts + LAST), eax)?;
    g.cmp(dword_ptr(counts + COUNT), 0)?;
    g.jne(later)?;
    g.mov(dword_ptr(counts + FIRST), eax)?;
    g.here(later)?;
    g.inc(dword_ptr(counts + COUNT))?;
    g.here(enough)?;
    Ok(())
}

/// Writes a register of the clock.
fn write_clock(g: &mut Guest, register: u8, value: u8) -> Result {
    g.write(CMOS_INDEX, register)?;
    g.write(CMOS_DATA, value)
}

/// Lets counter 0 interrupt with a period.
fn set_timer(g: &mut Guest, divisor: u16) -> Result {
    let [low, high] = divisor.to_le_bytes();
    g.write(PIT_CONTROL, RATE_GENERATOR)?;
    g.write(PIT_COUNTER0, low)?;
    g.write(PIT_COUNTER0, high)
}

/// Interrupts come, and what they say about the time stamp counter agrees.
pub fn test(g: &mut Guest) -> Result {
    let (counts, khz) = (g.at.ticks, g.at.tsc_khz);
    let (by_timer, rounds) = (g.words(&[0]), g.words(&[ROUNDS]));

    // Does the timer interrupt at all? After this the processor may be halted.
    set_timer(g, SHORT)?;
    g.set_deadline(1000)?;
    let ticks = g.create_label();
    let wait = g.mark()?;
    g.cmp(dword_ptr(counts), 0)?;
    g.jne(ticks)?;
    g.before_deadline(wait)?;
    g.fail("the interval timer does not interrupt")?;
    g.here(ticks)?;
    set_timer(g, LONG)?;
    write_clock(g, REGISTER_A, RATE_16_HZ)?;

    let [measured, agree] = [(); 2].map(|()| g.create_label());
    let round = g.mark()?;
    g.cli()?;
    write_clock(g, REGISTER_B, PERIODIC)?;
    g.write(CMOS_INDEX, REGISTER_C)?;
    g.in_(al, u32::from(CMOS_DATA))?;
    // The count of the timer is not 0 for long: nothing waits meanwhile.
    g.mov(dword_ptr(counts + COUNT), 0)?;
    g.mov(dword_ptr(counts + SIZE + COUNT), 0)?;
    g.sti()?;
    g.set_deadline(5000)?;
    let [wait, more] = [(); 2].map(|()| g.create_label());
    g.here(wait)?;
    g.hlt()?;
    g.cmp(dword_ptr(counts + COUNT), PIT_PERIODS)?;
    g.jbe(more)?;
    g.cmp(dword_ptr(counts + SIZE + COUNT), RTC_PERIODS)?;
    g.ja(measured)?;
    g.here(more)?;
    g.before_deadline(wait)?;
    g.fail("the clock does not interrupt")?;
    g.here(measured)?;

    // kHz = counts * 1000 / microseconds
    for (at, microseconds, result) in
        [(counts, PIT_MICROSECONDS, by_timer), (counts + SIZE, RTC_MICROSECONDS, khz)]
    {
        g.mov(eax, dword_ptr(at + LAST))?;
        g.sub(eax, dword_ptr(at + FIRST))?;
        g.mov(ecx, 1000)?;
        g.mul(ecx)?;
        g.mov(ecx, microseconds as u32)?;
        g.div(ecx)?;
        g.mov(dword_ptr(result), eax)?;
    }
    // They agree within a sixteenth: the host may come late for an interrupt.
    let positive = g.create_label();
    g.mov(ecx, eax)?;
    g.shr(ecx, 4)?;
    g.sub(eax, dword_ptr(by_timer))?;
    g.jae(positive)?;
    g.neg(eax)?;
    g.here(positive)?;
    g.cmp(eax, ecx)?;
    g.jbe(agree)?;
    g.dec(dword_ptr(rounds))?;
    g.jne(round)?;
    write_clock(g, REGISTER_B, QUIET)?;
    g.fail("the interval timer and the clock do not agree")?;

    g.here(agree)?;
    write_clock(g, REGISTER_B, QUIET)?;
    g.put(&format!("{PIT_PERIODS} PIT and {RTC_PERIODS} RTC periods agree, TSC "))?;
    g.mov(eax, dword_ptr(khz))?;
    g.add(eax, 500)?;
    g.xor(edx, edx)?;
    g.mov(ecx, 1000)?;
    g.div(ecx)?;
    g.put_decimal()?;
    g.put(" MHz")
}
