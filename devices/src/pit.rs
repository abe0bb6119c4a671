//! The 8254 interval timer.
//!
//! Nothing counts while nobody looks: a counter holds the clock tick at which it was loaded, and
//! its count and output follow from the time that is passed in.
//!
//! Source: Intel 8254 datasheet (231164).

use crate::speaker::Speaker;

/// Data port of counter 0 (IRQ 0); 1 and 2 follow.
pub const PORT_COUNTER0: u16 = 0x40;
/// Data port of counter 1 (once the memory refresh).
pub const PORT_COUNTER1: u16 = 0x41;
/// Data port of counter 2 (the speaker).
pub const PORT_COUNTER2: u16 = 0x42;
/// Control word port, write only.
pub const PORT_CONTROL: u16 = 0x43;

/// The input clock is 14.31818 MHz / 12 = 3 579 545 / 3 Hz: these many ticks ...
const CLOCK_TICKS: u128 = 3_579_545;
/// ... in these many nanoseconds.
const CLOCK_NS: u128 = 3_000_000_000;

const CONTROL_COUNTER_SHIFT: u8 = 6;
const CONTROL_READ_BACK: u8 = 3;
const CONTROL_ACCESS_SHIFT: u8 = 4;
const CONTROL_MODE_SHIFT: u8 = 1;
const CONTROL_BCD: u8 = 0x01;
/// Read-back: a clear bit latches.
const READ_BACK_NO_COUNT: u8 = 0x20;
const READ_BACK_NO_STATUS: u8 = 0x10;
const STATUS_OUT: u8 = 0x80;
const STATUS_NULL_COUNT: u8 = 0x40;

/// Clock ticks that have passed at a time in nanoseconds.
pub fn ticks(now: u64) -> u64 {
    (u128::from(now) * CLOCK_TICKS / CLOCK_NS) as u64
}

/// The first nanosecond at which a clock tick has passed.
pub fn time_of_tick(tick: u64) -> u64 {
    u64::try_from((u128::from(tick) * CLOCK_NS).div_ceil(CLOCK_TICKS)).unwrap_or(u64::MAX)
}

/// Which bytes of a count pass through the data port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// The low byte; the high one is zero.
    Low,
    /// The high byte; the low one is zero.
    High,
    /// The low byte, then the high one.
    #[default]
    LowHigh,
}

impl Access {
    /// The RW field of the control word: 1 to 3. 0 is the latch command.
    pub fn bits(self) -> u8 {
        match self {
            Access::Low => 1,
            Access::High => 2,
            Access::LowHigh => 3,
        }
    }

    /// From the RW field of the control word.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Access::Low),
            2 => Some(Access::High),
            3 => Some(Access::LowHigh),
            _ => None,
        }
    }
}

/// A latched count on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latch {
    /// Nothing latched; reads see the count as it runs.
    #[default]
    None,
    /// The low byte is read next.
    Low,
    /// The high byte is read next.
    High,
}

/// One counter. All ticks are of the input clock since power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Mode, 0 to 5.
    pub mode: u8,
    /// Which bytes the data port carries.
    pub access: Access,
    /// Counts in four decimal digits.
    pub bcd: bool,
    /// The GATE input.
    pub gate: bool,
    /// The count register as written; 0 counts as 65536 (or 10000 in BCD).
    pub reload: u16,
    /// A count was written that the counting element has not taken over yet.
    pub null_count: bool,
    /// The counting element has been loaded and OUT follows it.
    pub enabled: bool,
    /// Tick at which the present period began (mode 3: the present half).
    pub start: u64,
    /// The count that was loaded at `start`: 1 to 65536.
    pub start_value: u32,
    /// Mode 3: the present half is the low one. Mode 1: OUT was low already when it was triggered.
    pub low_half: bool,
    /// OUT of a one-shot mode has risen since the last load.
    pub fired: bool,
    /// Tick at which the gate stopped the counting element, if it is stopped.
    pub stopped: Option<u64>,
    /// With [`Access::LowHigh`], the next write is the high byte.
    pub write_high_next: bool,
    /// The low byte that waits for its high one.
    pub write_low: u8,
    /// With [`Access::LowHigh`], the next read of a running count is the high byte.
    pub read_high_next: bool,
    /// What is left of a latched count.
    pub latch: Latch,
    /// The latched count.
    pub latch_value: u16,
    /// A status byte that the next read gives.
    pub latched_status: Option<u8>,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            mode: 0,
            access: Access::default(),
            bcd: false,
            gate: true,
            reload: 0,
            null_count: true,
            enabled: false,
            start: 0,
            start_value: 0x1_0000,
            low_half: false,
            fired: false,
            stopped: None,
            write_high_next: false,
            write_low: 0,
            read_high_next: false,
            latch: Latch::None,
            latch_value: 0,
            latched_status: None,
        }
    }
}

impl Counter {
    /// How many counts there are before the element wraps.
    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// The count register as a number of ticks.
    fn reload_ticks(&self) -> u32 {
        let value = if self.bcd { from_bcd(self.reload) } else { u32::from(self.reload) };
        if value == 0 { self.modulus() as u32 } else { value }
    }

    /// After the counter was put into a state of its own: its period began `elapsed` ticks before
    /// `tick`. If it is stopped, it was there.
    pub(crate) fn resume(&mut self, tick: u64, elapsed: u64) {
        self.start = tick.saturating_sub(elapsed);
        self.stopped = self.stopped.map(|_| tick);
    }

    /// Ticks that have passed since the period began, in mode 3 since its high half began.
    pub(crate) fn elapsed_of_period(&self, tick: u64) -> u64 {
        let high_half =
            if self.low_half && self.mode == 3 { u64::from(self.start_value.div_ceil(2)) } else { 0 };
        self.elapsed(tick) + high_half
    }

    /// Ticks that the element has counted since `start`.
    fn elapsed(&self, tick: u64) -> u64 {
        self.stopped.unwrap_or(tick).saturating_sub(self.start)
    }

    /// Modes 2 and 3, which begin anew by themselves.
    fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    /// Modes 1 and 5, which a rising GATE starts.
    fn triggered(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Ticks from `start` to the next reload of a periodic mode.
    fn segment(&self) -> u64 {
        let count = u64::from(self.start_value.max(1));
        match (self.mode, self.low_half) {
            (3, false) => count.div_ceil(2),
            // A count of 1 is not allowed; it has no low half to speak of.
            (3, true) => (count / 2).max(1),
            _ => count,
        }
    }

    /// Carries the counter to a tick. Gives whether OUT rose on the way.
    fn advance(&mut self, tick: u64) -> bool {
        if !self.enabled {
            return false;
        }
        if !self.periodic() {
            return self.advance_one_shot(tick);
        }
        let mut rose = false;
        while self.elapsed(tick) >= self.segment() {
            self.start += self.segment();
            self.low_half = self.mode == 3 && !self.low_half;
            let oscillates = self.start_value >= 2;
            rose |= oscillates && !self.low_half;
            self.start_value = self.reload_ticks();
            self.null_count = false;
            // The rest are whole periods of the same length.
            let period = u64::from(self.start_value);
            let periods = self.elapsed(tick) / period;
            self.start += periods * period;
            rose |= periods > 0 && self.start_value >= 2;
        }
        if self.null_count && self.start_value == self.reload_ticks() && tick >= self.start {
            self.null_count = false;
        }
        rose
    }

    fn advance_one_shot(&mut self, tick: u64) -> bool {
        if !self.triggered() && tick >= self.start {
            self.null_count = false;
        }
        let rises = !self.fired && self.elapsed(tick) >= self.rise_of_one_shot();
        self.fired |= rises;
        rises
    }

    /// Ticks from the load to the rising edge of OUT.
    fn rise_of_one_shot(&self) -> u64 {
        // Modes 4 and 5 have it low for the tick after the count is spent.
        u64::from(self.start_value) + u64::from(self.mode >= 4)
    }

    /// The OUT pin at a tick that the counter has been carried to.
    fn out(&self, tick: u64) -> bool {
        if !self.enabled {
            return self.mode != 0;
        }
        let (elapsed, count) = (self.elapsed(tick), u64::from(self.start_value));
        match self.mode {
            0 => elapsed >= count,
            1 => elapsed >= count || tick < self.start && !self.low_half,
            2 => !self.gate || count < 2 || elapsed != count - 1,
            3 => !self.gate || count < 2 || !self.low_half,
            _ => elapsed != count,
        }
    }

    /// The count at a tick that the counter has been carried to.
    fn count(&self, tick: u64) -> u16 {
        let (elapsed, count) = (self.elapsed(tick), u64::from(self.start_value));
        let modulus = self.modulus();
        let value = match self.mode {
            _ if !self.enabled => count,
            2 => count.saturating_sub(elapsed),
            // Counts down by two from an even number in each half.
            3 => (count & !1).saturating_sub(elapsed * 2),
            _ => (count % modulus + modulus - elapsed % modulus) % modulus,
        } % modulus;
        if self.bcd { to_bcd(value as u16) } else { value as u16 }
    }

    /// The tick after `tick` at which OUT rises next, if it will without a further event.
    fn next_rise(&self, tick: u64) -> Option<u64> {
        if !self.enabled || self.stopped.is_some() {
            return None;
        }
        let at = match self.mode {
            2 | 3 if self.start_value < 2 => return None,
            2 => self.start + self.segment(),
            3 if self.low_half => self.start + self.segment(),
            3 => self.start + self.segment() + u64::from(self.reload_ticks() / 2).max(1),
            _ if self.fired => return None,
            _ => self.start + self.rise_of_one_shot(),
        };
        (at > tick).then_some(at)
    }

    /// Loads the counting element on the next clock pulse.
    fn load(&mut self, tick: u64) {
        self.start = tick.saturating_add(1);
        self.start_value = self.reload_ticks();
        self.low_half = false;
        self.fired = false;
        self.enabled = true;
        self.stopped = (!self.gate && !self.triggered()).then_some(self.start);
    }

    /// Carries the counter from a tick to another; gives for how many of the ticks OUT was high.
    pub(crate) fn high_ticks(&mut self, from: u64, to: u64) -> u64 {
        let (mut at, mut high) = (from, 0);
        while at < to {
            self.advance(at);
            let change = self.next_change(at).unwrap_or(to).min(to);
            if self.out(at) {
                high += change - at;
            }
            at = change;
        }
        self.advance(to);
        high
    }

    /// The next tick after `tick`, to which the counter has been carried, at which OUT may change.
    fn next_change(&self, tick: u64) -> Option<u64> {
        if !self.enabled || self.stopped.is_some() {
            return None;
        }
        let spent = self.start + u64::from(self.start_value);
        let changes = match self.mode {
            0 => [spent; 3],
            2 => [spent.saturating_sub(1), spent, spent],
            3 => [self.start + self.segment(); 3],
            // Low for a pulse, or up to one, at the count's end.
            _ => [self.start, spent, spent + 1],
        };
        changes.into_iter().filter(|change| *change > tick).min()
    }

    fn write_control(&mut self, control: u8, access: Access) {
        let mode = (control >> CONTROL_MODE_SHIFT) & 7;
        *self = Self {
            // The top bit of modes 2 and 3 is a don't-care.
            mode: if mode > 5 { mode & 3 } else { mode },
            access,
            bcd: control & CONTROL_BCD != 0,
            gate: self.gate,
            reload: self.reload,
            start_value: self.start_value,
            start: self.start,
            ..Self::default()
        };
    }

    fn write_data(&mut self, value: u8, tick: u64) {
        let count = match self.access {
            Access::Low => u16::from(value),
            Access::High => u16::from(value) << 8,
            Access::LowHigh if self.write_high_next => u16::from_le_bytes([self.write_low, value]),
            Access::LowHigh => {
                self.write_low = value;
                self.write_high_next = true;
                if self.mode == 0 {
                    // The first byte stops the count and OUT goes low.
                    self.enabled = false;
                }
                return;
            }
        };
        self.write_high_next = false;
        self.reload = count;
        self.null_count = true;
        match self.mode {
            0 | 4 => self.load(tick),
            // A running period ends with its old count.
            2 | 3 if !self.enabled => self.load(tick),
            // Modes 1 and 5 wait for their trigger.
            _ => {}
        }
    }

    fn set_gate(&mut self, gate: bool, tick: u64) {
        if self.gate == gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (1 | 5, true) if self.enabled || self.null_count => {
                let low = self.mode == 1 && !self.out(tick);
                self.load(tick);
                self.low_half = low;
                self.null_count = false;
            }
            (1 | 5, _) => {}
            _ if !self.enabled => {}
            (2 | 3, true) => {
                self.load(tick);
                self.null_count = false;
            }
            (_, false) => self.stopped = Some(tick.max(self.start)),
            (_, true) => {
                if let Some(stopped) = self.stopped.take() {
                    self.start += tick.saturating_sub(stopped);
                }
            }
        }
    }

    fn latch_count(&mut self, tick: u64) {
        if self.latch == Latch::None {
            self.latch_value = self.count(tick);
            self.latch = if self.access == Access::High { Latch::High } else { Latch::Low };
        }
    }

    fn latch_status(&mut self, tick: u64) {
        let mut status = (self.access.bits() << CONTROL_ACCESS_SHIFT) | (self.mode << CONTROL_MODE_SHIFT);
        status |= u8::from(self.bcd);
        if self.out(tick) {
            status |= STATUS_OUT;
        }
        if self.null_count {
            status |= STATUS_NULL_COUNT;
        }
        self.latched_status.get_or_insert(status);
    }

    fn read_data(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        match self.latch {
            Latch::Low => {
                self.latch = if self.access == Access::LowHigh { Latch::High } else { Latch::None };
                return self.latch_value as u8;
            }
            Latch::High => {
                self.latch = Latch::None;
                return (self.latch_value >> 8) as u8;
            }
            Latch::None => {}
        }
        let [low, high] = self.count(tick).to_le_bytes();
        match self.access {
            Access::Low => low,
            Access::High => high,
            Access::LowHigh => {
                self.read_high_next = !self.read_high_next;
                if self.read_high_next { low } else { high }
            }
        }
    }
}

/// What counter 0 has done to IRQ 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Irq0 {
    /// Nothing: leave the line as it is.
    #[default]
    Unchanged,
    /// OUT rose: drive the line low, then high, and leave it high. However many ticks have passed,
    /// there is one, so that a machine that comes late is not drowned.
    Rose,
    /// The guest reprogrammed the counter and OUT is low: drive the line low.
    Fell,
}

/// The timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pit {
    /// The three counters.
    pub counters: [Counter; 3],
    /// What [`Pit::poll`] will report.
    pub irq0: Irq0,
    /// What counter 2 drives.
    pub speaker: Speaker,
}

impl Default for Pit {
    fn default() -> Self {
        let mut counters: [Counter; 3] = Default::default();
        // Port 61h comes up with the gate closed.
        counters[2].gate = false;
        Self { counters, irq0: Irq0::default(), speaker: Speaker::default() }
    }
}

impl Pit {
    /// Reads a port. The control port gives nothing.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        let tick = self.advance(now);
        match port {
            PORT_COUNTER0..=PORT_COUNTER2 => self.counters[usize::from(port - PORT_COUNTER0)].read_data(tick),
            _ => 0xff,
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        let tick = self.advance(now);
        let before = self.counters[0].out(tick);
        let heard = port == PORT_COUNTER2 || port == PORT_CONTROL && value >> CONTROL_COUNTER_SHIFT == 2;
        if heard {
            self.speaker.before_change(now);
        }
        match port {
            PORT_COUNTER0..=PORT_COUNTER2 => {
                self.counters[usize::from(port - PORT_COUNTER0)].write_data(value, tick);
            }
            PORT_CONTROL => self.write_control(value, tick),
            _ => {}
        }
        if heard {
            self.speaker.after_change(&self.counters[2]);
        }
        match (before, self.counters[0].out(tick)) {
            (false, true) => self.irq0 = Irq0::Rose,
            (true, false) => self.irq0 = Irq0::Fell,
            _ => {}
        }
    }

    /// Drives GATE of counter 2 (port 61h bit 0). The others are tied high.
    pub fn set_gate2(&mut self, gate: bool, now: u64) {
        let tick = self.advance(now);
        if self.counters[2].gate != gate {
            self.speaker.before_change(now);
            self.counters[2].set_gate(gate, tick);
            self.speaker.after_change(&self.counters[2]);
        }
    }

    /// Lets counter 2 through to the speaker, or not (port 61h bit 1).
    pub fn set_speaker(&mut self, enabled: bool, now: u64) {
        self.advance(now);
        if self.speaker.enabled != enabled {
            self.speaker.before_change(now);
            self.speaker.enabled = enabled;
            self.speaker.after_change(&self.counters[2]);
        }
    }

    /// The OUT pin of a counter.
    pub fn output(&self, counter: usize, now: u64) -> bool {
        let tick = ticks(now);
        self.counters.get(counter).is_some_and(|counter| {
            let mut counter = counter.clone();
            counter.advance(tick);
            counter.out(tick)
        })
    }

    /// The nanoseconds from one interrupt to the next, if counter 0 starts anew by itself.
    pub fn period(&self) -> Option<u64> {
        let counter = &self.counters[0];
        (counter.enabled && counter.periodic()).then(|| time_of_tick(counter.reload_ticks().into()))
    }

    /// The time in nanoseconds of the next rising edge of counter 0's output; `now` if one has
    /// passed that [`Pit::poll`] has not reported.
    pub fn next_event(&self, now: u64) -> Option<u64> {
        if self.irq0 != Irq0::Unchanged {
            return Some(now);
        }
        let tick = ticks(now);
        let mut counter = self.counters[0].clone();
        if counter.advance(tick) {
            return Some(now);
        }
        counter.next_rise(tick).map(time_of_tick)
    }

    /// How IRQ 0 must be driven for what has passed since the last call.
    pub fn poll(&mut self, now: u64) -> Irq0 {
        self.advance(now);
        std::mem::take(&mut self.irq0)
    }

    /// Carries the counters to a time and gives its tick.
    fn advance(&mut self, now: u64) -> u64 {
        let tick = ticks(now);
        for counter in &mut self.counters[1..] {
            counter.advance(tick);
        }
        if self.counters[0].advance(tick) {
            self.irq0 = Irq0::Rose;
        }
        tick
    }

    fn write_control(&mut self, value: u8, tick: u64) {
        let select = value >> CONTROL_COUNTER_SHIFT;
        if select == CONTROL_READ_BACK {
            for (i, counter) in self.counters.iter_mut().enumerate() {
                if value & (2 << i) == 0 {
                    continue;
                }
                if value & READ_BACK_NO_COUNT == 0 {
                    counter.latch_count(tick);
                }
                if value & READ_BACK_NO_STATUS == 0 {
                    counter.latch_status(tick);
                }
            }
            return;
        }
        let counter = &mut self.counters[usize::from(select)];
        match Access::from_bits((value >> CONTROL_ACCESS_SHIFT) & 3) {
            Some(access) => counter.write_control(value, access),
            None => counter.latch_count(tick),
        }
    }
}

fn from_bcd(value: u16) -> u32 {
    (0..4).rev().fold(0, |sum, digit| sum * 10 + u32::from((value >> (digit * 4)) & 0xf))
}

fn to_bcd(value: u16) -> u16 {
    (0..4).fold(0, |sum, digit| sum | ((value / 10u16.pow(digit)) % 10) << (digit * 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time at which `tick` has just passed.
    fn at(tick: u64) -> u64 {
        time_of_tick(tick)
    }

    fn program(pit: &mut Pit, counter: u16, mode: u8, count: u16, tick: u64) {
        pit.write(PORT_CONTROL, ((counter as u8) << 6) | 0x30 | (mode << 1), at(tick));
        let [low, high] = count.to_le_bytes();
        pit.write(PORT_COUNTER0 + counter, low, at(tick));
        pit.write(PORT_COUNTER0 + counter, high, at(tick));
    }

    fn latched(pit: &mut Pit, counter: u16, tick: u64) -> u16 {
        pit.write(PORT_CONTROL, (counter as u8) << 6, at(tick));
        let low = pit.read(PORT_COUNTER0 + counter, at(tick));
        u16::from_le_bytes([low, pit.read(PORT_COUNTER0 + counter, at(tick))])
    }

    fn outputs(pit: &Pit, counter: usize, ticks: std::ops::Range<u64>) -> String {
        ticks.map(|t| if pit.output(counter, at(t)) { 'H' } else { 'L' }).collect()
    }

    #[test]
    fn the_clock_is_exactly_a_twelfth_of_14_mhz() {
        assert_eq!(ticks(3_000_000_000), 3_579_545);
        for tick in [0, 1, 2, 65_536, 1 << 40] {
            assert_eq!(ticks(time_of_tick(tick)), tick);
            assert!(tick == 0 || ticks(time_of_tick(tick) - 1) == tick - 1);
        }
    }

    #[test]
    fn mode_0_rises_once_n_plus_one_ticks_after_the_write() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 0, 5, 100);
        assert_eq!(outputs(&pit, 0, 100..108), "LLLLLLHH");
        assert_eq!(pit.next_event(at(100)), Some(at(106)));
        assert_eq!(pit.poll(at(105)), Irq0::Unchanged);
        assert_eq!(pit.poll(at(106)), Irq0::Rose);
        assert_eq!(pit.poll(at(100_000)), Irq0::Unchanged);
        assert_eq!(pit.next_event(at(100_000)), None);
    }

    #[test]
    fn mode_0_counts_on_after_its_end() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 0, 5, 0);
        assert_eq!(latched(&mut pit, 0, 3), 3);
        assert_eq!(latched(&mut pit, 0, 8), 0xfffe);
    }

    #[test]
    fn mode_0_is_stopped_by_the_first_byte_of_a_new_count() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 0, 5, 0);
        pit.write(PORT_COUNTER0, 4, at(3));
        assert_eq!(pit.next_event(at(3)), None);
        pit.write(PORT_COUNTER0, 0, at(50));
        assert_eq!(pit.next_event(at(50)), Some(at(55)));
    }

    #[test]
    fn mode_1_waits_for_the_gate_and_can_be_retriggered() {
        let mut pit = Pit::default();
        program(&mut pit, 2, 1, 4, 0);
        assert_eq!(outputs(&pit, 2, 0..10), "HHHHHHHHHH");
        pit.set_gate2(true, at(10));
        assert_eq!(outputs(&pit, 2, 10..17), "HLLLLHH");
        pit.set_gate2(false, at(12));
        pit.set_gate2(true, at(13));
        assert_eq!(outputs(&pit, 2, 13..20), "LLLLLHH");
        assert_eq!(outputs(&pit, 2, 18..20), "HH");
    }

    #[test]
    fn mode_2_is_low_for_one_tick_in_n() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 2, 4, 0);
        assert_eq!(outputs(&pit, 0, 1..10), "HHHLHHHLH");
        assert_eq!((1..6).map(|t| latched(&mut pit, 0, t)).collect::<Vec<_>>(), [4, 3, 2, 1, 4]);
    }

    #[test]
    fn mode_2_events_come_every_n_ticks() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 2, 1000, 0);
        pit.poll(at(0));
        let mut now = at(0);
        for i in 1..=5 {
            now = pit.next_event(now).unwrap();
            assert_eq!(now, at(1 + 1000 * i));
            assert_eq!(pit.poll(now - 1), Irq0::Unchanged);
            assert_eq!(pit.poll(now), Irq0::Rose);
        }
    }

    #[test]
    fn a_late_machine_gets_one_tick() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 2, 1000, 0);
        pit.poll(0);
        assert_eq!(pit.next_event(at(50_500)), Some(at(50_500)));
        assert_eq!(pit.poll(at(50_500)), Irq0::Rose);
        assert_eq!(pit.poll(at(50_500)), Irq0::Unchanged);
        assert_eq!(pit.next_event(at(50_500)), Some(at(51_001)));
    }

    #[test]
    fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 2, 10, 0);
        pit.write(PORT_COUNTER0, 4, at(3));
        pit.write(PORT_COUNTER0, 0, at(3));
        assert!(pit.counters[0].null_count);
        assert_eq!(latched(&mut pit, 0, 5), 6);
        assert_eq!(latched(&mut pit, 0, 11), 4);
        assert!(!pit.counters[0].null_count);
        pit.poll(at(11));
        assert_eq!(pit.next_event(at(11)), Some(at(15)));
    }

    #[test]
    fn mode_2_begins_anew_when_the_gate_rises() {
        let mut pit = Pit::default();
        pit.set_gate2(true, 0);
        program(&mut pit, 2, 2, 10, 0);
        pit.set_gate2(false, at(10));
        assert!(pit.output(2, at(10)));
        pit.set_gate2(true, at(20));
        assert_eq!(latched(&mut pit, 2, 23), 8);
    }

    #[test]
    fn mode_3_is_high_for_half_of_an_even_count() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 3, 6, 0);
        assert_eq!(outputs(&pit, 0, 1..14), "HHHLLLHHHLLLH");
        assert_eq!((1..5).map(|t| latched(&mut pit, 0, t)).collect::<Vec<_>>(), [6, 4, 2, 6]);
    }

    #[test]
    fn mode_3_is_high_one_tick_longer_with_an_odd_count() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 3, 5, 0);
        assert_eq!(outputs(&pit, 0, 1..12), "HHHLLHHHLLH");
    }

    #[test]
    fn mode_3_events_come_once_in_a_period() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 3, 0, 0);
        pit.poll(0);
        let first = pit.next_event(0).unwrap();
        assert_eq!(first, at(1 + 0x1_0000));
        assert_eq!(pit.poll(first), Irq0::Rose);
        assert_eq!(pit.next_event(first), Some(at(1 + 0x2_0000)));
    }

    #[test]
    fn mode_4_strobes_once() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 4, 3, 10);
        pit.poll(at(10));
        assert_eq!(outputs(&pit, 0, 10..18), "HHHHLHHH");
        assert_eq!(pit.next_event(at(10)), Some(at(15)));
        assert_eq!(pit.poll(at(14)), Irq0::Unchanged);
        assert_eq!(pit.poll(at(15)), Irq0::Rose);
        assert_eq!(pit.next_event(at(15)), None);
        assert_eq!(pit.poll(at(200_000)), Irq0::Unchanged);
    }

    #[test]
    fn mode_4_starts_again_with_each_count() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 4, 3, 0);
        pit.poll(at(5));
        pit.write(PORT_COUNTER0, 100, at(20));
        pit.write(PORT_COUNTER0, 0, at(20));
        assert_eq!(pit.next_event(at(20)), Some(at(122)));
    }

    #[test]
    fn mode_5_strobes_after_a_trigger() {
        let mut pit = Pit::default();
        program(&mut pit, 2, 5, 3, 0);
        pit.set_gate2(true, at(10));
        assert_eq!(outputs(&pit, 2, 10..17), "HHHHLHH");
    }

    #[test]
    fn the_gate_pauses_modes_0_and_4() {
        let mut pit = Pit::default();
        pit.set_gate2(true, 0);
        program(&mut pit, 2, 0, 10, 0);
        pit.set_gate2(false, at(5));
        assert_eq!(latched(&mut pit, 2, 100), 6);
        pit.set_gate2(true, at(100));
        assert_eq!(latched(&mut pit, 2, 102), 4);
        assert_eq!(outputs(&pit, 2, 105..108), "LHH");
    }

    #[test]
    fn binary_coded_decimal() {
        let mut pit = Pit::default();
        pit.write(PORT_CONTROL, 0x35, 0);
        pit.write(PORT_COUNTER0, 0x00, 0);
        pit.write(PORT_COUNTER0, 0x10, 0);
        assert_eq!(pit.counters[0].start_value, 1000);
        assert_eq!(latched(&mut pit, 0, 2), 0x0999);
    }

    #[test]
    fn single_byte_access() {
        let mut pit = Pit::default();
        pit.write(PORT_CONTROL, 0x14, 0);
        pit.write(PORT_COUNTER0, 18, 0);
        assert_eq!(pit.counters[0].start_value, 18);
        assert_eq!(pit.read(PORT_COUNTER0, at(3)), 16);
        pit.write(PORT_CONTROL, 0x24, 0);
        pit.write(PORT_COUNTER0, 2, at(3));
        assert_eq!(pit.counters[0].start_value, 0x200);
        assert_eq!(pit.read(PORT_COUNTER0, at(5)), 1);
    }

    #[test]
    fn a_latched_count_stays_until_it_is_read() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 2, 0x1234, 0);
        pit.write(PORT_CONTROL, 0x00, at(1));
        pit.write(PORT_CONTROL, 0x00, at(100));
        assert_eq!(pit.read(PORT_COUNTER0, at(200)), 0x34);
        assert_eq!(pit.read(PORT_COUNTER0, at(300)), 0x12);
        assert_ne!(pit.read(PORT_COUNTER0, at(301)), 0x34);
    }

    #[test]
    fn read_back_gives_status_then_count() {
        let mut pit = Pit::default();
        pit.set_gate2(true, 0);
        program(&mut pit, 2, 3, 0x1000, 0);
        pit.write(PORT_CONTROL, 0xc8, at(1));
        assert_eq!(pit.read(PORT_COUNTER2, at(1)), STATUS_OUT | 0x36);
        assert_eq!(pit.read(PORT_COUNTER2, at(9)), 0x00);
        assert_eq!(pit.read(PORT_COUNTER2, at(9)), 0x10);
    }

    #[test]
    fn status_tells_of_a_count_not_loaded() {
        let mut pit = Pit::default();
        pit.write(PORT_CONTROL, 0x30, 0);
        pit.write(PORT_CONTROL, 0xe2, 0);
        assert_eq!(pit.read(PORT_COUNTER0, 0), STATUS_NULL_COUNT | 0x30);
    }

    #[test]
    fn a_control_word_for_mode_0_lowers_the_output() {
        let mut pit = Pit::default();
        program(&mut pit, 0, 2, 100, 0);
        pit.poll(at(50));
        pit.write(PORT_CONTROL, 0x30, at(60));
        assert_eq!(pit.next_event(at(60)), Some(at(60)));
        assert_eq!(pit.poll(at(60)), Irq0::Fell);
        pit.write(PORT_CONTROL, 0x34, at(70));
        assert_eq!(pit.poll(at(70)), Irq0::Rose);
    }

    #[test]
    fn modes_6_and_7_are_2_and_3() {
        let mut pit = Pit::default();
        pit.write(PORT_CONTROL, 0x3e, 0);
        assert_eq!(pit.counters[0].mode, 3);
    }

    #[test]
    fn a_count_of_one_never_ticks() {
        let mut pit = Pit::default();
        for mode in [2, 3] {
            program(&mut pit, 0, mode, 1, 0);
            pit.poll(0);
            assert_eq!(pit.next_event(at(10)), None);
            assert_eq!(pit.poll(at(1000)), Irq0::Unchanged);
        }
    }

    #[test]
    fn no_sequence_of_writes_panics() {
        let mut pit = Pit::default();
        let (mut x, mut now) = (1u32, 0u64);
        for _ in 0..50_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            now = now.wrapping_add(u64::from(x >> 16));
            let port = 0x40 + ((x >> 8) & 3) as u16;
            match x >> 29 {
                0 => {
                    pit.read(port, now);
                }
                1 => pit.set_gate2(x & 0x80 != 0, now),
                2 => {
                    pit.poll(now);
                }
                3 => assert!(pit.next_event(now).is_none_or(|t| t >= now)),
                _ => pit.write(port, (x >> 16) as u8, now),
            }
        }
        pit.read(PORT_COUNTER0, u64::MAX);
    }
}
