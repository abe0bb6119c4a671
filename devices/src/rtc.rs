//! The MC146818 real-time clock with its 128 bytes of CMOS memory.
//!
//! Two clocks come in: `now`, guest time in nanoseconds, feeds the divider chain and with it the
//! periodic interrupt; `unix_ms`, wall time in milliseconds since 1970 (UTC), feeds the calendar,
//! so that a machine that slept or was restored shows the right time. The calendar is computed
//! when somebody looks, and the flags of register C when somebody asks for them.
//!
//! Sources: Motorola MC146818A datasheet; IBM AT technical reference for the CMOS map.

/// Selects a register (bits 0 to 6); bit 7 holds NMI off.
pub const PORT_INDEX: u16 = 0x70;
/// Reads or writes the selected register.
pub const PORT_DATA: u16 = 0x71;

/// Bytes of CMOS memory.
pub const CMOS_SIZE: usize = 128;

const INDEX_MASK: u8 = 0x7f;
const INDEX_NMI_OFF: u8 = 0x80;

// Registers.
const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const DAY_OF_WEEK: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;
const FLOPPY_TYPES: u8 = 0x10;
const DISK_TYPES: u8 = 0x12;
const EQUIPMENT: u8 = 0x14;
const BASE_MEMORY_KIB: u8 = 0x15;
const EXTENDED_MEMORY_KIB: u8 = 0x17;
const DISK_EXTENDED_TYPES: u8 = 0x19;
const DISK_GEOMETRY: u8 = 0x1b;
const DISK_GEOMETRY_SIZE: u8 = 9;
const ACTUAL_EXTENDED_MEMORY_KIB: u8 = 0x30;
const CENTURY: u8 = 0x32;
const MEMORY_ABOVE_16M_64KIB: u8 = 0x34;
const CENTURY_PS2: u8 = 0x37;
const BOOT_ORDER_1: u8 = 0x38;
const DISK_TRANSLATION: u8 = 0x39;
const BOOT_ORDER_2: u8 = 0x3d;
const FAST_BOOT: u8 = 0x3f;

const A_UIP: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
const A_DIVIDER_RESET: u8 = 0x60;
const A_RATE: u8 = 0x0f;
const B_SET: u8 = 0x80;
const B_UIE: u8 = 0x10;
const B_DM_BINARY: u8 = 0x04;
const B_24H: u8 = 0x02;
/// The interrupt enables PIE, AIE and UIE, which stand over the flags of register C.
const B_ENABLES: u8 = 0x70;
const C_IRQF: u8 = 0x80;
const C_PF: u8 = 0x40;
const C_AF: u8 = 0x20;
const C_UF: u8 = 0x10;
const D_VRT: u8 = 0x80;
const HOUR_PM: u8 = 0x80;
/// Alarm bytes from here up match any value.
const ALARM_ANY: u8 = 0xc0;

/// The divider chain's rate in hertz.
const DIVIDER_HZ: u128 = 32_768;
const NS_PER_SECOND: u128 = 1_000_000_000;
/// UIP announces an update 244 us ahead and stays through its 1984 us; to the millisecond, this
/// long.
const UPDATE_MS: i64 = 2;
/// The first update after the divider is let go comes half a second later.
const DIVIDER_RELEASE_MS: i64 = 500;

/// A fixed disk as CMOS describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskGeometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors per track.
    pub sectors: u8,
    /// How the BIOS is to translate its addresses: 0 not, 1 to LBA, 2 by moving bits (LARGE).
    pub translation: u8,
}

/// What the board's setup leaves in CMOS memory for the firmware (v86's contents).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CmosConfig {
    /// Bytes of RAM.
    pub memory_size: u32,
    /// Floppy drive types, A in the high nibble: 4 is 1.44 MB, 0 none.
    pub floppy_types: u8,
    /// Boot devices, the first in the lowest of three nibbles: 1 floppy, 2 disk, 3 CD-ROM, 4 network.
    pub boot_order: u16,
    /// Ask the firmware not to wait for keys.
    pub fast_boot: bool,
    /// Master and slave of the primary IDE channel.
    pub disks: [Option<DiskGeometry>; 2],
}

impl Default for CmosConfig {
    fn default() -> Self {
        Self {
            memory_size: 64 << 20,
            floppy_types: 0x44,
            boot_order: 0x123,
            fast_boot: false,
            disks: [None; 2],
        }
    }
}

/// The clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtc {
    /// The selected register.
    pub index: u8,
    /// Bit 7 of the index port: NMI is held off.
    pub nmi_disabled: bool,
    /// CMOS memory. The calendar's bytes in it are those of `shown_second`; registers A to D are
    /// not kept here.
    pub cmos: [u8; CMOS_SIZE],
    /// Register A without UIP.
    pub control_a: u8,
    /// Register B.
    pub control_b: u8,
    /// The flags of register C without IRQF.
    pub flags_c: u8,
    /// The calendar, in milliseconds since 1970, ...
    pub time_ms: i64,
    /// ... at this wall time. A calendar that is held (SET, or a stopped divider) stays there.
    pub updated_ms: i64,
    /// The calendar second that the bytes in `cmos` show. Until it passes, they are as written,
    /// so that a date may be wrong while a guest sets it byte by byte.
    pub shown_second: Option<i64>,
    /// The calendar second up to which update and alarm flags have been raised.
    pub flagged_second: Option<i64>,
    /// The divider tick up to which the periodic flag has been raised.
    pub flagged_tick: u64,
}

impl Default for Rtc {
    fn default() -> Self {
        Self {
            index: 0,
            nmi_disabled: false,
            cmos: [0; CMOS_SIZE],
            control_a: 0x26, // 32.768 kHz, 1024 Hz
            control_b: B_24H,
            flags_c: 0,
            time_ms: 0,
            updated_ms: 0,
            shown_second: None,
            flagged_second: None,
            flagged_tick: 0,
        }
    }
}

impl Rtc {
    /// A clock that shows wall time, with the board's setup in its memory.
    pub fn new(config: &CmosConfig) -> Self {
        let mut rtc = Self::default();
        rtc.configure(config);
        rtc
    }

    /// Writes the board's setup to memory.
    pub fn configure(&mut self, config: &CmosConfig) {
        let mib = 1 << 20;
        let extended_kib = (config.memory_size.saturating_sub(mib) >> 10).min(0xffff) as u16;
        let above_16m = (config.memory_size.saturating_sub(16 * mib) >> 16) as u16;
        self.put_word(BASE_MEMORY_KIB, 640);
        self.put_word(EXTENDED_MEMORY_KIB, extended_kib);
        self.put_word(ACTUAL_EXTENDED_MEMORY_KIB, extended_kib);
        self.put_word(MEMORY_ABOVE_16M_64KIB, above_16m);
        self.put(FLOPPY_TYPES, config.floppy_types);
        // A floppy drive, FPU, pointing device, and an enabled display of 80 columns.
        self.put(EQUIPMENT, 0x2f);
        self.put(BOOT_ORDER_1, 1 | ((config.boot_order >> 4) as u8 & 0xf0));
        self.put(BOOT_ORDER_2, config.boot_order as u8);
        self.put(FAST_BOOT, u8::from(config.fast_boot));
        for (drive, disk) in (0..).zip(&config.disks) {
            if let Some(disk) = disk {
                self.put_disk(drive, disk);
            }
        }
    }

    fn put(&mut self, register: u8, value: u8) {
        self.cmos[usize::from(register & INDEX_MASK)] = value;
    }

    fn put_word(&mut self, register: u8, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.put(register, low);
        self.put(register + 1, high);
    }

    fn put_disk(&mut self, drive: u8, disk: &DiskGeometry) {
        let types = self.get(DISK_TYPES) | 0xf0 >> (drive * 4);
        self.put(DISK_TYPES, types);
        self.put(DISK_EXTENDED_TYPES + drive, 0x2f); // user-defined type 47
        let base = DISK_GEOMETRY + drive * DISK_GEOMETRY_SIZE;
        self.put_word(base, disk.cylinders);
        self.put(base + 2, disk.heads);
        self.put_word(base + 3, 0xffff); // no write precompensation
        self.put(base + 5, 0xc0 | u8::from(disk.heads > 8) << 3);
        self.put_word(base + 6, disk.cylinders); // landing zone
        self.put(base + 8, disk.sectors);
        let translation = self.get(DISK_TRANSLATION) | disk.translation << (drive * 2);
        self.put(DISK_TRANSLATION, translation);
    }

    fn get(&self, register: u8) -> u8 {
        self.cmos[usize::from(register & INDEX_MASK)]
    }

    /// The RESET pin: interrupts off, memory and calendar as they are.
    pub fn reset(&mut self) {
        self.control_b &= !B_ENABLES;
        self.flags_c = 0;
        self.nmi_disabled = false;
    }

    /// Reads a port. The index cannot be read back.
    pub fn read(&mut self, port: u16, now: u64, unix_ms: i64) -> u8 {
        if port != PORT_DATA {
            return 0xff;
        }
        match self.index {
            REG_A if self.updating(unix_ms) => self.control_a | A_UIP,
            REG_A => self.control_a,
            REG_B => self.control_b,
            REG_C => {
                self.advance(now, unix_ms);
                let irqf = if self.irq() { C_IRQF } else { 0 };
                std::mem::take(&mut self.flags_c) | irqf
            }
            REG_D => D_VRT,
            index => {
                if is_calendar(index) {
                    self.show(unix_ms);
                }
                self.get(index)
            }
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8, now: u64, unix_ms: i64) {
        match port {
            PORT_INDEX => {
                self.index = value & INDEX_MASK;
                self.nmi_disabled = value & INDEX_NMI_OFF != 0;
            }
            PORT_DATA => self.write_register(value, now, unix_ms),
            _ => {}
        }
    }

    fn write_register(&mut self, value: u8, now: u64, unix_ms: i64) {
        match self.index {
            REG_A | REG_B => {
                self.advance(now, unix_ms);
                self.write_control(value, unix_ms);
            }
            REG_C | REG_D => {}
            SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM => {
                self.advance(now, unix_ms);
                self.put(self.index, value);
            }
            index if is_calendar(index) => {
                self.advance(now, unix_ms);
                self.write_calendar(index, value, unix_ms);
            }
            index => self.put(index, value),
        }
    }

    fn write_control(&mut self, value: u8, unix_ms: i64) {
        let was_held = self.held();
        let divider_was_reset = self.divider_reset();
        if !was_held {
            // What the bytes show from here on if they are held now.
            self.show(unix_ms);
            (self.time_ms, self.updated_ms) = (self.calendar_ms(unix_ms), unix_ms);
        }
        if self.index == REG_A {
            self.control_a = value & !A_UIP;
        } else {
            let format = (value ^ self.control_b) & (B_DM_BINARY | B_24H) != 0;
            // SET turns update interrupts off.
            self.control_b = if value & B_SET != 0 { value & !B_UIE } else { value };
            if format && !was_held && !self.held() {
                self.shown_second = None;
            }
        }
        if was_held && !self.held() {
            let phase = if divider_was_reset {
                DIVIDER_RELEASE_MS
            } else {
                // The divider has run on.
                self.time_ms.wrapping_add(unix_ms).wrapping_sub(self.updated_ms).rem_euclid(1000)
            };
            let second = self.parse();
            self.time_ms = second * 1000 + phase;
            self.updated_ms = unix_ms;
            self.shown_second = Some(second);
            self.flagged_second = Some(second);
        }
    }

    fn write_calendar(&mut self, index: u8, value: u8, unix_ms: i64) {
        self.show(unix_ms);
        self.put(index, value);
        match index {
            CENTURY => self.put(CENTURY_PS2, value),
            CENTURY_PS2 => self.put(CENTURY, value),
            _ => {}
        }
        if !self.held() {
            let second = self.parse();
            let phase = self.calendar_ms(unix_ms).rem_euclid(1000);
            self.time_ms = second * 1000 + phase;
            self.updated_ms = unix_ms;
            self.shown_second = Some(second);
            self.flagged_second = Some(second);
        }
    }

    /// The level of IRQ 8: a flag of register C is set and enabled.
    pub fn irq(&self) -> bool {
        self.flags_c & self.control_b & B_ENABLES != 0
    }

    /// Raises the flags of what has passed and gives the level of IRQ 8. However many periods have
    /// passed, the flag is raised once.
    pub fn poll(&mut self, now: u64, unix_ms: i64) -> bool {
        self.advance(now, unix_ms);
        self.irq()
    }

    /// The guest time in nanoseconds at which IRQ 8 may rise next. None while it is high: nothing
    /// happens until register C is read.
    pub fn next_event(&self, now: u64, unix_ms: i64) -> Option<u64> {
        if self.irq() {
            return None;
        }
        let enabled = |flag| self.control_b & flag != 0;
        let calendar = self.calendar_ms(unix_ms);
        let running = !self.held();
        let after = |ms: i64| now.saturating_add(ms.max(0).unsigned_abs().saturating_mul(1_000_000));
        let periodic = self.period().filter(|_| enabled(C_PF)).map(|period| {
            let tick = divider_ticks(now);
            if tick / period > self.flagged_tick / period {
                now
            } else {
                time_of_divider_tick((tick / period + 1) * period).max(now)
            }
        });
        let update = (running && enabled(C_UF)).then(|| {
            let overdue = self.flagged_second.is_some_and(|s| s < calendar.div_euclid(1000));
            if overdue { now } else { after(1000 - calendar.rem_euclid(1000)) }
        });
        let alarm = (running && enabled(C_AF)).then(|| {
            let since = self.flagged_second.unwrap_or(calendar.div_euclid(1000));
            self.next_alarm(since).map(|second| after(second.saturating_mul(1000).saturating_sub(calendar)))
        });
        [periodic, update, alarm.flatten()].into_iter().flatten().min()
    }

    /// The nanoseconds from one periodic interrupt to the next, if they are enabled.
    pub fn interrupt_period(&self) -> Option<u64> {
        self.period().filter(|_| self.control_b & C_PF != 0).map(time_of_divider_tick)
    }

    /// Raises the flags of everything up to now.
    fn advance(&mut self, now: u64, unix_ms: i64) {
        let tick = divider_ticks(now);
        if self.period().is_some_and(|period| tick / period > self.flagged_tick / period) {
            self.flags_c |= C_PF;
        }
        self.flagged_tick = tick;
        if self.held() {
            return;
        }
        let second = self.calendar_ms(unix_ms).div_euclid(1000);
        if let Some(flagged) = self.flagged_second.filter(|&flagged| flagged < second) {
            self.flags_c |= C_UF;
            if self.next_alarm(flagged).is_some_and(|alarm| alarm <= second) {
                self.flags_c |= C_AF;
            }
        }
        self.flagged_second = Some(second);
    }

    /// Wall time in milliseconds since 1970 at which the alarm will go off, if its interrupt is on.
    pub(crate) fn alarm_due(&self, unix_ms: i64) -> Option<i64> {
        let calendar = self.calendar_ms(unix_ms);
        let second = self.next_alarm(calendar.div_euclid(1000)).filter(|_| self.control_b & C_AF != 0)?;
        Some(unix_ms.saturating_add(second.saturating_mul(1000).saturating_sub(calendar)))
    }

    /// After the clock was put into a state of its own at `now`: the divider runs from here.
    pub(crate) fn resume(&mut self, now: u64) {
        self.flagged_tick = divider_ticks(now);
    }

    /// Divider ticks between periodic interrupts.
    fn period(&self) -> Option<u64> {
        if self.divider_reset() {
            return None;
        }
        match self.control_a & A_RATE {
            0 => None,
            // With this time base the two fastest settings are 256 and 128 Hz once more.
            rate @ 1..=2 => Some(64 << rate),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn divider_reset(&self) -> bool {
        self.control_a & A_DIVIDER & A_DIVIDER_RESET == A_DIVIDER_RESET
    }

    /// The calendar stands still.
    fn held(&self) -> bool {
        self.control_b & B_SET != 0 || self.divider_reset()
    }

    /// The calendar in milliseconds since 1970.
    pub(crate) fn calendar_ms(&self, unix_ms: i64) -> i64 {
        if self.held() {
            self.time_ms
        } else {
            // The range keeps arithmetic on it from overflowing: some 30 000 years either way.
            let limit = 1 << 50;
            self.time_ms.saturating_add(unix_ms.saturating_sub(self.updated_ms)).clamp(-limit, limit)
        }
    }

    /// Register A's update-in-progress: the last moments of a second.
    fn updating(&self, unix_ms: i64) -> bool {
        !self.held() && self.calendar_ms(unix_ms).rem_euclid(1000) >= 1000 - UPDATE_MS
    }

    /// Brings the calendar's bytes up to date, unless they are held.
    fn show(&mut self, unix_ms: i64) {
        let second = self.calendar_ms(unix_ms).div_euclid(1000);
        if self.shown_second == Some(second) || self.held() {
            return;
        }
        self.shown_second = Some(second);
        let of_day = second.rem_euclid(86_400);
        let days = second.div_euclid(86_400);
        let (year, month, day) = date_of_days(days);
        let hour = (of_day / 3600) as u8;
        let hour = if self.control_b & B_24H != 0 {
            self.encode(hour)
        } else {
            let pm = if hour >= 12 { HOUR_PM } else { 0 };
            self.encode((hour + 11) % 12 + 1) | pm
        };
        self.put(HOURS, hour);
        self.put(SECONDS, self.encode((of_day % 60) as u8));
        self.put(MINUTES, self.encode((of_day / 60 % 60) as u8));
        // 1 is Sunday; 1970 began on a Thursday.
        self.put(DAY_OF_WEEK, self.encode((days + 4).rem_euclid(7) as u8 + 1));
        self.put(DAY_OF_MONTH, self.encode(day));
        self.put(MONTH, self.encode(month));
        self.put(YEAR, self.encode(year.rem_euclid(100) as u8));
        let century = self.encode(year.div_euclid(100).rem_euclid(100) as u8);
        self.put(CENTURY, century);
        self.put(CENTURY_PS2, century);
    }

    /// The second that the calendar's bytes stand for.
    fn parse(&self) -> i64 {
        let get = |register| i64::from(self.decode(self.get(register)));
        let year = get(CENTURY) * 100 + get(YEAR);
        let days = days_of_date(year, get(MONTH), get(DAY_OF_MONTH));
        let hour = i64::from(self.decode_hour(self.get(HOURS)));
        days * 86_400 + hour * 3600 + get(MINUTES) * 60 + get(SECONDS)
    }

    /// The first second after another that the alarm matches.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let field = |register, decode: &dyn Fn(u8) -> u8| {
            let value = self.get(register);
            (value < ALARM_ANY).then(|| i64::from(decode(value)))
        };
        let decode = |value| self.decode(value);
        let second = field(SECONDS_ALARM, &decode);
        let minute = field(MINUTES_ALARM, &decode);
        let hour = field(HOURS_ALARM, &|value| self.decode_hour(value));
        let matches = |wanted: Option<i64>, value| wanted.is_none_or(|wanted| wanted == value);
        let mut t = after + 1;
        // Steps over hours, then minutes, then seconds that do not match: a day at most.
        while t <= after + 86_400 {
            let of_day = t.rem_euclid(86_400);
            if !matches(hour, of_day / 3600) {
                t += 3600 - of_day % 3600;
            } else if !matches(minute, of_day / 60 % 60) {
                t += 60 - of_day % 60;
            } else if !matches(second, of_day % 60) {
                t += 1;
            } else {
                return Some(t);
            }
        }
        None
    }

    fn encode(&self, value: u8) -> u8 {
        if self.control_b & B_DM_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.control_b & B_DM_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.control_b & B_24H != 0 {
            return self.decode(value);
        }
        let afternoon = if value & HOUR_PM != 0 { 12 } else { 0 };
        self.decode(value & !HOUR_PM) % 12 + afternoon
    }
}

/// A byte of the running calendar: neither an alarm nor plain memory.
fn is_calendar(index: u8) -> bool {
    matches!(
        index,
        SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY_OF_MONTH | MONTH | YEAR | CENTURY | CENTURY_PS2
    )
}

/// Ticks of the 32.768 kHz divider at a time.
fn divider_ticks(now: u64) -> u64 {
    (u128::from(now) * DIVIDER_HZ / NS_PER_SECOND) as u64
}

/// The first nanosecond at which a divider tick has passed.
fn time_of_divider_tick(tick: u64) -> u64 {
    u64::try_from((u128::from(tick) * NS_PER_SECOND).div_ceil(DIVIDER_HZ)).unwrap_or(u64::MAX)
}

/// Days in 400 years of the Gregorian calendar.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH_DAYS: i64 = 719_468;

/// Days since 1970 of a date. Years begin in March here, so that the leap day comes last; month
/// and day may be out of range, as a guest left them.
fn days_of_date(year: i64, month: i64, day: i64) -> i64 {
    let months = (year * 12 + month - 1) - 2;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let year = year.rem_euclid(400);
    era * DAYS_PER_ERA + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH_DAYS
}

/// Year, month and day of the month, of days since 1970.
fn date_of_days(days: i64) -> (i64, u8, u8) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day = days.rem_euclid(DAYS_PER_ERA);
    // Less the leap days before it, every year has 365.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month + 2) / 5 + 1) as u8;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month as u8, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wed 29 July 2026 12:34:56.000 UTC.
    const T: i64 = 1_785_328_496_000;

    fn get(rtc: &mut Rtc, index: u8, ms: i64) -> u8 {
        rtc.write(PORT_INDEX, index, 0, T + ms);
        rtc.read(PORT_DATA, ms as u64 * 1_000_000, T + ms)
    }

    fn set(rtc: &mut Rtc, index: u8, value: u8, ms: i64) {
        rtc.write(PORT_INDEX, index, 0, T + ms);
        rtc.write(PORT_DATA, value, ms as u64 * 1_000_000, T + ms);
    }

    fn calendar(rtc: &mut Rtc, ms: i64) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY_OF_MONTH, HOURS, MINUTES, SECONDS, DAY_OF_WEEK]
            .map(|index| get(rtc, index, ms))
    }

    #[test]
    fn wall_time_in_bcd() {
        let mut rtc = Rtc::default();
        assert_eq!(calendar(&mut rtc, 0), [0x20, 0x26, 0x07, 0x29, 0x12, 0x34, 0x56, 4]);
        assert_eq!(calendar(&mut rtc, 4_000)[4..7], [0x12, 0x35, 0x00]);
        assert_eq!(get(&mut rtc, CENTURY_PS2, 0), 0x20);
    }

    #[test]
    fn binary_and_twelve_hours() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, B_DM_BINARY, 0);
        assert_eq!(calendar(&mut rtc, 0), [20, 26, 7, 29, 0x80 | 12, 34, 56, 4]);
        assert_eq!(get(&mut rtc, HOURS, 3_600_000), 0x80 | 1);
        assert_eq!(get(&mut rtc, HOURS, 12 * 3_600_000), 12);
        assert_eq!(get(&mut rtc, HOURS, 13 * 3_600_000), 1);
    }

    #[test]
    fn dates_go_there_and_back() {
        for days in (-200_000..200_000).step_by(37) {
            let (year, month, day) = date_of_days(days);
            assert_eq!(days_of_date(year, month.into(), day.into()), days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        }
        assert_eq!(date_of_days(0), (1970, 1, 1));
        assert_eq!(date_of_days(11_016), (2000, 2, 29));
        assert_eq!(date_of_days(11_017), (2000, 3, 1));
        assert_eq!(date_of_days(-25_509), (1900, 2, 28));
        assert_eq!(date_of_days(-25_508), (1900, 3, 1));
    }

    #[test]
    fn a_guest_sets_the_date_under_set() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, B_24H | B_SET, 0);
        for (index, value) in [
            (YEAR, 0x99),
            (CENTURY, 0x19),
            (MONTH, 0x12),
            (DAY_OF_MONTH, 0x31),
            (HOURS, 0x23),
            (MINUTES, 0x59),
            (SECONDS, 0x59),
        ] {
            set(&mut rtc, index, value, 300);
        }
        assert_eq!(get(&mut rtc, SECONDS, 5000), 0x59);
        set(&mut rtc, REG_B, B_24H, 5000);
        assert_eq!(calendar(&mut rtc, 5500)[..7], [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
        assert_eq!(calendar(&mut rtc, 6000)[..7], [0x20, 0x00, 0x01, 0x01, 0, 0, 0]);
    }

    #[test]
    fn a_date_may_be_wrong_while_it_is_set() {
        let mut rtc = Rtc::default();
        set(&mut rtc, DAY_OF_MONTH, 0x31, 0);
        set(&mut rtc, MONTH, 0x02, 1);
        assert_eq!(get(&mut rtc, DAY_OF_MONTH, 2), 0x31);
        set(&mut rtc, DAY_OF_MONTH, 0x28, 3);
        assert_eq!(calendar(&mut rtc, 1000)[1..4], [0x26, 0x02, 0x28]);
    }

    #[test]
    fn the_first_update_after_a_divider_reset_comes_in_half_a_second() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_A, 0x76, 700);
        set(&mut rtc, SECONDS, 0x10, 700);
        set(&mut rtc, REG_A, 0x26, 900);
        assert_eq!(get(&mut rtc, SECONDS, 1399), 0x10);
        assert_eq!(get(&mut rtc, SECONDS, 1400), 0x11);
    }

    #[test]
    fn the_calendar_follows_a_jump_of_wall_time() {
        let mut rtc = Rtc::default();
        set(&mut rtc, MINUTES, 0x00, 0);
        assert_eq!(calendar(&mut rtc, 86_400_000 * 3)[3..6], [0x01, 0x12, 0x00]);
    }

    #[test]
    fn uip_in_the_last_moments_of_a_second() {
        let mut rtc = Rtc::default();
        assert_eq!(get(&mut rtc, REG_A, 997), 0x26);
        assert_eq!(get(&mut rtc, REG_A, 998), 0xa6);
        assert_eq!(get(&mut rtc, REG_A, 999), 0xa6);
        assert_eq!(get(&mut rtc, REG_A, 1000), 0x26);
    }

    #[test]
    fn the_periodic_interrupt_at_1024_hz() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, B_24H | C_PF, 0);
        let first = rtc.next_event(0, T).unwrap();
        assert_eq!(first, 976_563);
        assert!(!rtc.poll(first - 1, T));
        assert!(rtc.poll(first, T));
        assert_eq!(rtc.next_event(first, T), None);
        assert_eq!(get(&mut rtc, REG_C, 1), C_IRQF | C_PF);
        assert!(!rtc.irq());
        assert_eq!(rtc.next_event(first, T), Some(1_953_125));
    }

    #[test]
    fn periodic_rates() {
        let mut rtc = Rtc::default();
        for (rate, hz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
            rtc.control_a = 0x20 | rate;
            assert_eq!(rtc.period(), Some(32_768 / hz));
        }
        rtc.control_a = 0x20;
        assert_eq!(rtc.period(), None);
    }

    #[test]
    fn a_late_machine_gets_one_periodic_interrupt() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, B_24H | C_PF, 0);
        assert!(rtc.poll(1_000_000_000, T + 1000));
        get(&mut rtc, REG_C, 1000);
        assert!(!rtc.poll(1_000_000_000, T + 1000));
    }

    #[test]
    fn flags_rise_without_their_enables_but_not_the_line() {
        let mut rtc = Rtc::default();
        rtc.poll(0, T);
        assert!(!rtc.poll(2_000_000_000, T + 2000));
        assert_eq!(get(&mut rtc, REG_C, 2000), C_PF | C_UF);
        assert_eq!(get(&mut rtc, REG_C, 2000), 0);
    }

    #[test]
    fn the_update_interrupt_comes_with_the_second() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, B_24H | B_UIE, 400);
        assert_eq!(rtc.next_event(400_000_000, T + 400), Some(1_000_000_000));
        assert!(!rtc.poll(999_000_000, T + 999));
        assert!(rtc.poll(1_000_000_000, T + 1000));
        assert_eq!(get(&mut rtc, REG_C, 1001) & (C_IRQF | C_UF), C_IRQF | C_UF);
    }

    #[test]
    fn set_turns_update_interrupts_off() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, B_24H | B_UIE | B_SET, 0);
        assert_eq!(get(&mut rtc, REG_B, 0), B_24H | B_SET);
    }

    #[test]
    fn the_alarm_at_a_time_of_day() {
        let mut rtc = Rtc::default();
        for (index, value) in [(HOURS_ALARM, 0x13), (MINUTES_ALARM, 0x00), (SECONDS_ALARM, 0x05)] {
            set(&mut rtc, index, value, 0);
        }
        set(&mut rtc, REG_B, B_24H | C_AF, 0);
        let due = (25 * 60 + 9) * 1000;
        assert_eq!(rtc.next_event(0, T), Some(due * 1_000_000));
        assert!(!rtc.poll(0, T + due as i64 - 1));
        assert!(rtc.poll(0, T + due as i64));
        get(&mut rtc, REG_C, due as i64);
        assert_eq!(rtc.next_event(0, T + due as i64), Some(86_400_000_000_000));
    }

    #[test]
    fn alarm_wildcards() {
        let mut rtc = Rtc::default();
        for (index, value) in [(HOURS_ALARM, 0xff), (MINUTES_ALARM, 0xc0), (SECONDS_ALARM, 0x10)] {
            set(&mut rtc, index, value, 0);
        }
        let second = T / 1000;
        assert_eq!(rtc.next_alarm(second), Some(second + 14));
        set(&mut rtc, SECONDS_ALARM, 0xff, 0);
        assert_eq!(rtc.next_alarm(second), Some(second + 1));
    }

    #[test]
    fn an_alarm_that_cannot_be_never_comes() {
        let mut rtc = Rtc::default();
        set(&mut rtc, HOURS_ALARM, 0x99, 0);
        set(&mut rtc, REG_B, B_24H | C_AF, 0);
        assert_eq!(rtc.next_event(0, T), None);
    }

    #[test]
    fn an_alarm_slept_over_fires_at_once() {
        let mut rtc = Rtc::default();
        set(&mut rtc, HOURS_ALARM, 0x13, 0);
        set(&mut rtc, REG_B, B_24H | C_AF, 0);
        let late = T + 7_200_000;
        assert_eq!(rtc.next_event(5, late), Some(5));
        assert!(rtc.poll(5, late));
    }

    #[test]
    fn a_twelve_hour_alarm() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REG_B, 0, 0);
        set(&mut rtc, HOURS_ALARM, HOUR_PM | 0x01, 0);
        assert_eq!(rtc.next_alarm(T / 1000).map(|s| s % 86_400), Some(13 * 3600));
    }

    #[test]
    fn nmi_bit_and_index() {
        let mut rtc = Rtc::default();
        rtc.write(PORT_INDEX, 0x8d, 0, T);
        assert!(rtc.nmi_disabled);
        assert_eq!(rtc.read(PORT_DATA, 0, T), D_VRT);
        assert_eq!(rtc.read(PORT_INDEX, 0, T), 0xff);
    }

    #[test]
    fn memory_is_kept_over_a_reset() {
        let mut rtc = Rtc::default();
        set(&mut rtc, 0x0f, 0x0a, 0);
        set(&mut rtc, REG_B, 0x72, 0);
        rtc.reset();
        assert_eq!((get(&mut rtc, 0x0f, 0), get(&mut rtc, REG_B, 0)), (0x0a, 0x02));
    }

    #[test]
    fn setup_of_a_512_mib_machine() {
        let mut rtc = Rtc::new(&CmosConfig { memory_size: 512 << 20, ..CmosConfig::default() });
        let expected = [
            (0x10, 0x44),
            (0x14, 0x2f),
            (0x15, 0x80),
            (0x16, 0x02),
            (0x17, 0xff),
            (0x18, 0xff),
            (0x30, 0xff),
            (0x34, 0x00),
            (0x35, 0x1f),
            (0x38, 0x11),
            (0x3d, 0x23),
            (0x12, 0x00),
            (0x3f, 0x00),
        ];
        for (index, value) in expected {
            assert_eq!(get(&mut rtc, index, 0), value, "register {index:02x}");
        }
    }

    #[test]
    fn setup_of_disks() {
        let disk =
            |cylinders, translation| Some(DiskGeometry { cylinders, heads: 16, sectors: 63, translation });
        let config =
            CmosConfig { boot_order: 0x312, disks: [disk(0x0810, 1), disk(100, 2)], ..CmosConfig::default() };
        let rtc = Rtc::new(&config);
        assert_eq!((rtc.cmos[0x38], rtc.cmos[0x3d]), (0x31, 0x12));
        assert_eq!(rtc.cmos[0x12], 0xff);
        assert_eq!(rtc.cmos[0x19..0x1b], [0x2f, 0x2f]);
        assert_eq!(rtc.cmos[0x1b..0x24], [0x10, 0x08, 16, 0xff, 0xff, 0xc8, 0x10, 0x08, 63]);
        assert_eq!(rtc.cmos[0x24], 100);
        assert_eq!(rtc.cmos[0x39], 0x09);
    }

    #[test]
    fn no_sequence_of_writes_panics() {
        let mut rtc = Rtc::default();
        let (mut x, mut now, mut wall) = (1u32, 0u64, T);
        for _ in 0..50_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            now += u64::from(x >> 8);
            wall = wall.wrapping_add(i64::from(x as i32) << 20);
            match x >> 29 {
                0 => {
                    rtc.read(PORT_DATA, now, wall);
                }
                1 => {
                    rtc.poll(now, wall);
                }
                2 => assert!(rtc.next_event(now, wall).is_none_or(|t| t >= now)),
                3 | 4 => rtc.write(PORT_INDEX, ((x >> 16) as u8) & 0x3f, now, wall),
                _ => rtc.write(PORT_DATA, (x >> 16) as u8, now, wall),
            }
        }
        rtc.poll(u64::MAX, i64::MAX);
        rtc.poll(u64::MAX, i64::MIN);
    }
}
