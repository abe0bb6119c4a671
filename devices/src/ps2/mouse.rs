//! The mouse at the far end of the second PS/2 port: a PS/2 mouse that turns into an IntelliMouse
//! with a wheel, and with five buttons, for a driver that knocks.
//!
//! Sources: IBM PS/2 hardware interface technical reference, mouse; Microsoft IntelliMouse notes.

use std::collections::VecDeque;

const SCALING_1_1: u8 = 0xe6;
const SCALING_2_1: u8 = 0xe7;
const SET_RESOLUTION: u8 = 0xe8;
const STATUS: u8 = 0xe9;
const SET_STREAM: u8 = 0xea;
const READ_DATA: u8 = 0xeb;
const RESET_WRAP: u8 = 0xec;
const SET_WRAP: u8 = 0xee;
const SET_REMOTE: u8 = 0xf0;
const IDENTIFY: u8 = 0xf2;
const SET_SAMPLE_RATE: u8 = 0xf3;
const ENABLE: u8 = 0xf4;
const DISABLE: u8 = 0xf5;
const DEFAULTS: u8 = 0xf6;
const RESEND: u8 = 0xfe;
const RESET: u8 = 0xff;

const ACK: u8 = 0xfa;
const SELF_TEST_PASSED: u8 = 0xaa;
const PLEASE_RESEND: u8 = 0xfe;
const ERROR: u8 = 0xfc;

const ID_STANDARD: u8 = 0;
const ID_WHEEL: u8 = 3;
const ID_FIVE_BUTTONS: u8 = 4;

const STATUS_REMOTE: u8 = 0x40;
const STATUS_ENABLED: u8 = 0x20;
const STATUS_SCALING_2_1: u8 = 0x10;

const PACKET_ALWAYS: u8 = 0x08;
const PACKET_X_NEGATIVE: u8 = 0x10;
const PACKET_Y_NEGATIVE: u8 = 0x20;
/// The side buttons, two bits lower in `Mouse::buttons` than in the fourth byte of a packet.
const SIDE_BUTTONS: u8 = 0x18;

/// Left button.
pub const BUTTON_LEFT: u8 = 0x01;
/// Right button.
pub const BUTTON_RIGHT: u8 = 0x02;
/// Middle button.
pub const BUTTON_MIDDLE: u8 = 0x04;
/// Fourth button ("back").
pub const BUTTON_4: u8 = 0x08;
/// Fifth button ("forward").
pub const BUTTON_5: u8 = 0x10;
const MAIN_BUTTONS: u8 = BUTTON_LEFT | BUTTON_RIGHT | BUTTON_MIDDLE;

const DEFAULT_SAMPLE_RATE: u8 = 100;
const DEFAULT_RESOLUTION: u8 = 4;
/// The most one packet can carry.
const MAX_DELTA: i32 = 255;
const MAX_WHEEL: i32 = 7;
/// Movement that waits at most, so that a guest that was away is not led astray for long.
const MAX_PENDING: i32 = 1023;
/// Button states that wait at most, so that no click is too short to be seen.
const MAX_PENDING_BUTTONS: usize = 16;

/// What the next byte from the host means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// A command.
    #[default]
    Command,
    /// Reports per second (after F3h).
    SampleRate,
    /// log2 of counts per millimetre (after E8h).
    Resolution,
}

/// How far the sequence of sample rates has come that asks for more than a standard mouse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knock {
    /// Nothing.
    #[default]
    None,
    /// 200.
    Rate200,
    /// 200, 100: with 80 next, a wheel.
    Rate200Then100,
    /// 200, 200: with 80 next, five buttons.
    Rate200Then200,
    /// A whole sequence has passed.
    Complete,
}

/// The mouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mouse {
    /// Movement is reported by itself.
    pub reporting: bool,
    /// A guest has reset or enabled the mouse: it has a driver.
    pub used: bool,
    /// Remote mode: reports come when asked for.
    pub remote: bool,
    /// Wrap mode: bytes are echoed.
    pub wrap: bool,
    /// Counts to the right not yet reported.
    pub dx: i32,
    /// Counts away from the user not yet reported.
    pub dy: i32,
    /// Wheel steps towards the user not yet reported.
    pub dz: i32,
    /// Buttons as last reported: `BUTTON_*`.
    pub buttons: u8,
    /// Button states not yet reported.
    pub pending_buttons: VecDeque<u8>,
    /// Reports per second.
    pub sample_rate: u8,
    /// Counts per millimetre: 1, 2, 4 or 8. The host's movement is in counts and not scaled by it.
    pub resolution: u8,
    /// Movement is reported double.
    pub scaling2: bool,
    /// Device ID: 0, 3 (wheel) or 4 (five buttons).
    pub id: u8,
    /// How far the sequence of sample rates has come.
    pub knock: Knock,
    /// Resets leave the ID: Windows NT resets the mouse after it has found the wheel, and gives
    /// itself away by setting a rate of 60 between.
    pub keep_id: bool,
    /// What the next byte from the host means.
    pub expect: Expect,
    /// Bytes to send. A report goes in only when it is empty.
    pub queue: VecDeque<u8>,
    /// The last answer or report, for the host to ask for again.
    pub last_packet: Vec<u8>,
    /// The last byte from the host made no sense.
    pub refused: bool,
    /// The time in nanoseconds of the next report at the earliest.
    pub next_sample: u64,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            reporting: false,
            used: false,
            remote: false,
            wrap: false,
            dx: 0,
            dy: 0,
            dz: 0,
            buttons: 0,
            pending_buttons: VecDeque::new(),
            sample_rate: DEFAULT_SAMPLE_RATE,
            resolution: DEFAULT_RESOLUTION,
            scaling2: false,
            id: ID_STANDARD,
            knock: Knock::None,
            keep_id: false,
            expect: Expect::Command,
            queue: VecDeque::new(),
            last_packet: Vec::new(),
            refused: false,
            next_sample: 0,
        }
    }
}

impl Mouse {
    /// A command, or its argument, from the host.
    pub fn write(&mut self, value: u8) {
        self.queue.clear();
        let refused = std::mem::take(&mut self.refused);
        if self.wrap && value != RESET_WRAP && value != RESET {
            return self.reply(&[value]);
        }
        match std::mem::take(&mut self.expect) {
            Expect::Command => self.command(value, refused),
            Expect::SampleRate => {
                self.listen(value);
                self.sample_rate = if value == 0 { DEFAULT_SAMPLE_RATE } else { value };
                self.reply(&[ACK]);
            }
            Expect::Resolution => {
                self.resolution = if value <= 3 { 1 << value } else { DEFAULT_RESOLUTION };
                self.reply(&[ACK]);
            }
        }
    }

    fn command(&mut self, command: u8, refused: bool) {
        match command {
            SCALING_1_1 => self.scaling2 = false,
            SCALING_2_1 => self.scaling2 = true,
            SET_RESOLUTION => self.expect = Expect::Resolution,
            STATUS => {
                let resolution = self.resolution.max(1).ilog2() as u8;
                return self.reply(&[ACK, self.status(), resolution, self.sample_rate]);
            }
            SET_STREAM => {
                self.remote = false;
                self.forget_movement();
            }
            READ_DATA => {
                let mut reply = vec![ACK];
                reply.extend(self.report(false));
                return self.reply(&reply);
            }
            RESET_WRAP => self.wrap = false,
            SET_WRAP => self.wrap = true,
            SET_REMOTE => {
                self.remote = true;
                self.forget_movement();
            }
            IDENTIFY => return self.reply(&[ACK, self.id]),
            SET_SAMPLE_RATE => self.expect = Expect::SampleRate,
            ENABLE => {
                self.reporting = true;
                self.used = true;
                self.forget_movement();
            }
            DISABLE => self.reporting = false,
            DEFAULTS => self.set_defaults(),
            RESEND => {
                self.queue.extend(&self.last_packet);
                return;
            }
            RESET => {
                self.set_defaults();
                self.used = true;
                if !self.keep_id {
                    self.id = ID_STANDARD;
                }
                return self.reply(&[ACK, SELF_TEST_PASSED, self.id]);
            }
            _ => {
                self.refused = true;
                return self.reply(&[if refused { ERROR } else { PLEASE_RESEND }]);
            }
        }
        self.reply(&[ACK]);
    }

    fn set_defaults(&mut self) {
        self.reporting = false;
        self.remote = false;
        self.wrap = false;
        self.scaling2 = false;
        self.sample_rate = DEFAULT_SAMPLE_RATE;
        self.resolution = DEFAULT_RESOLUTION;
        self.forget_movement();
    }

    fn forget_movement(&mut self) {
        (self.dx, self.dy, self.dz) = (0, 0, 0);
    }

    /// Follows the sample rates that a driver sets one after the other.
    fn listen(&mut self, rate: u8) {
        self.knock = match (self.knock, rate) {
            (Knock::Complete, 60) => {
                self.keep_id = true;
                Knock::None
            }
            (Knock::None | Knock::Complete, 200) => Knock::Rate200,
            (Knock::Rate200, 100) => Knock::Rate200Then100,
            (Knock::Rate200, 200) => Knock::Rate200Then200,
            (Knock::Rate200Then100, 80) => {
                self.id = ID_WHEEL;
                Knock::Complete
            }
            (Knock::Rate200Then200, 80) => {
                self.id = ID_FIVE_BUTTONS;
                Knock::Complete
            }
            (_, 200) => Knock::Rate200,
            _ => Knock::None,
        };
    }

    fn status(&self) -> u8 {
        let flag = |on, bit| if on { bit } else { 0 };
        // Here the middle button stands between the others.
        let buttons = flag(self.buttons & BUTTON_LEFT != 0, 4)
            | flag(self.buttons & BUTTON_MIDDLE != 0, 2)
            | flag(self.buttons & BUTTON_RIGHT != 0, 1);
        buttons
            | flag(self.remote, STATUS_REMOTE)
            | flag(self.reporting, STATUS_ENABLED)
            | flag(self.scaling2, STATUS_SCALING_2_1)
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
        self.last_packet = bytes.to_vec();
    }

    /// The next byte for the host.
    pub fn read(&mut self) -> Option<u8> {
        self.queue.pop_front()
    }

    /// Whether [`Mouse::read`] has a byte.
    pub fn has_data(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Movement in counts to the right, away from the user, and in wheel steps towards the user.
    pub fn move_by(&mut self, dx: i32, dy: i32, dz: i32) {
        let add = |sum: &mut i32, delta: i32| {
            *sum = sum.saturating_add(delta).clamp(-MAX_PENDING, MAX_PENDING);
        };
        add(&mut self.dx, dx);
        add(&mut self.dy, dy);
        add(&mut self.dz, dz);
    }

    /// Sets those of the buttons that `mask` names.
    pub fn set_buttons(&mut self, buttons: u8, mask: u8) {
        let before = self.pending_buttons.back().copied().unwrap_or(self.buttons);
        let after = (before & !mask) | (buttons & mask);
        if after == before {
            return;
        }
        if self.pending_buttons.len() == MAX_PENDING_BUTTONS {
            self.pending_buttons.pop_back();
        }
        self.pending_buttons.push_back(after);
    }

    /// Has a report made even if there is nothing to tell, as its interrupt is what somebody waits for.
    pub fn ring(&mut self) {
        let silent = self.queue.is_empty() && self.next_event().is_none();
        if silent && self.reporting && !self.remote && !self.wrap {
            self.pending_buttons.push_back(self.buttons);
        }
    }

    /// Makes a report if there is something to tell and its time has come.
    pub fn poll(&mut self, now: u64) {
        if self.next_event().is_some_and(|due| due <= now) {
            let report = self.report(true);
            self.queue.extend(&report);
            self.last_packet = report;
            let interval = 1_000_000_000 / u64::from(self.sample_rate.max(1));
            self.next_sample = now.saturating_add(interval);
        }
    }

    /// When [`Mouse::poll`] has something to do next, in nanoseconds.
    pub fn next_event(&self) -> Option<u64> {
        let moved = (self.dx, self.dy) != (0, 0) || (self.dz != 0 && self.id != ID_STANDARD);
        let streams = self.reporting && !self.remote && !self.wrap && self.queue.is_empty();
        (streams && (moved || !self.pending_buttons.is_empty())).then_some(self.next_sample)
    }

    /// Takes what has gathered as a packet of three or four bytes.
    fn report(&mut self, scaled: bool) -> Vec<u8> {
        if let Some(buttons) = self.pending_buttons.pop_front() {
            self.buttons = buttons;
        }
        let take = |sum: &mut i32, max: i32| {
            let part = (*sum).clamp(-max, max);
            *sum -= part;
            part
        };
        let double = scaled && self.scaling2;
        let max = if double { MAX_DELTA / 2 } else { MAX_DELTA };
        let scale = |delta| if double { scale_2_1(delta) } else { delta };
        let dx = scale(take(&mut self.dx, max));
        let dy = scale(take(&mut self.dy, max));
        let mut flags = PACKET_ALWAYS | (self.buttons & MAIN_BUTTONS);
        if dx < 0 {
            flags |= PACKET_X_NEGATIVE;
        }
        if dy < 0 {
            flags |= PACKET_Y_NEGATIVE;
        }
        let mut packet = vec![flags, dx as u8, dy as u8];
        match self.id {
            ID_WHEEL => packet.push(take(&mut self.dz, MAX_WHEEL) as u8),
            ID_FIVE_BUTTONS => {
                let dz = take(&mut self.dz, MAX_WHEEL) as u8 & 0x0f;
                packet.push(dz | (self.buttons & SIDE_BUTTONS) << 1);
            }
            _ => self.dz = 0,
        }
        packet
    }
}

/// 2:1 scaling as the mouse does it: small movements stay small.
fn scale_2_1(delta: i32) -> i32 {
    let size = match delta.abs() {
        2 => 1,
        4 => 6,
        5 => 9,
        small @ (0 | 1 | 3) => small,
        large => large * 2,
    };
    size * delta.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn drain(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.read()).collect()
    }

    fn send(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|&byte| {
                mouse.write(byte);
                drain(mouse)
            })
            .collect()
    }

    fn streaming(id: u8) -> Mouse {
        let mut mouse = Mouse::default();
        match id {
            ID_WHEEL => drop(send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80])),
            ID_FIVE_BUTTONS => drop(send(&mut mouse, &[0xf3, 200, 0xf3, 200, 0xf3, 80])),
            _ => {}
        }
        assert_eq!(send(&mut mouse, &[ENABLE]), [ACK]);
        mouse
    }

    fn packet(mouse: &mut Mouse, now: u64) -> Vec<u8> {
        mouse.poll(now);
        drain(mouse)
    }

    #[test]
    fn reset_answers_with_self_test_and_id() {
        let mut mouse = Mouse::default();
        assert!(!mouse.used);
        assert_eq!(send(&mut mouse, &[RESET]), [ACK, 0xaa, 0]);
        assert!(mouse.used);
    }

    #[test]
    fn nothing_is_reported_before_it_is_enabled() {
        let mut mouse = Mouse::default();
        mouse.move_by(5, 5, 0);
        assert!(packet(&mut mouse, 0).is_empty());
    }

    #[test]
    fn movement_and_buttons() {
        let mut mouse = streaming(0);
        mouse.move_by(3, -2, 0);
        mouse.set_buttons(BUTTON_LEFT | BUTTON_MIDDLE, MAIN_BUTTONS);
        assert_eq!(packet(&mut mouse, 0), [0x08 | 0x20 | 5, 3, 0xfe]);
    }

    #[test]
    fn reports_keep_to_the_sample_rate() {
        let mut mouse = streaming(0);
        mouse.move_by(1, 0, 0);
        assert_eq!(packet(&mut mouse, 0), [0x08, 1, 0]);
        mouse.move_by(1, 0, 0);
        mouse.move_by(1, 0, 0);
        assert_eq!(mouse.next_event(), Some(10 * MS));
        assert!(packet(&mut mouse, 9 * MS).is_empty());
        assert_eq!(packet(&mut mouse, 10 * MS), [0x08, 2, 0]);
    }

    #[test]
    fn large_movements_take_several_packets() {
        let mut mouse = streaming(0);
        mouse.move_by(-300, 0, 0);
        assert_eq!(packet(&mut mouse, 0), [0x18, 0x01, 0]);
        assert_eq!(packet(&mut mouse, 10 * MS), [0x18, (-45i8) as u8, 0]);
        assert_eq!(mouse.next_event(), None);
    }

    #[test]
    fn a_click_between_samples_is_seen() {
        let mut mouse = streaming(0);
        mouse.set_buttons(BUTTON_RIGHT, MAIN_BUTTONS);
        mouse.set_buttons(0, MAIN_BUTTONS);
        assert_eq!(packet(&mut mouse, 0), [0x0a, 0, 0]);
        assert_eq!(packet(&mut mouse, 10 * MS), [0x08, 0, 0]);
    }

    #[test]
    fn the_wheel_after_its_knock() {
        let mut mouse = streaming(ID_WHEEL);
        assert_eq!(send(&mut mouse, &[IDENTIFY]), [ACK, 3]);
        mouse.move_by(0, 0, -1);
        assert_eq!(packet(&mut mouse, 0), [0x08, 0, 0, 0xff]);
    }

    #[test]
    fn five_buttons_after_theirs() {
        let mut mouse = streaming(ID_FIVE_BUTTONS);
        assert_eq!(send(&mut mouse, &[IDENTIFY]), [ACK, 4]);
        mouse.set_buttons(BUTTON_5, BUTTON_4 | BUTTON_5);
        mouse.move_by(0, 0, -1);
        assert_eq!(packet(&mut mouse, 0), [0x08, 0, 0, 0x2f]);
    }

    #[test]
    fn linux_knocks_for_the_wheel_first_and_gets_both() {
        let mut mouse = Mouse::default();
        send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(mouse.id, 3);
        send(&mut mouse, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(mouse.id, 4);
    }

    #[test]
    fn reset_forgets_the_knock_but_for_windows_nt() {
        let mut mouse = Mouse::default();
        send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80, RESET]);
        assert_eq!(mouse.id, 0);
        send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf3, 60, RESET]);
        assert_eq!(mouse.id, 3);
    }

    #[test]
    fn a_standard_mouse_has_no_wheel() {
        let mut mouse = streaming(0);
        mouse.move_by(0, 0, 3);
        assert_eq!(mouse.next_event(), None);
    }

    #[test]
    fn remote_mode_reports_when_asked() {
        let mut mouse = streaming(0);
        send(&mut mouse, &[SET_REMOTE]);
        mouse.move_by(7, 0, 0);
        assert!(packet(&mut mouse, 0).is_empty());
        assert_eq!(send(&mut mouse, &[READ_DATA]), [ACK, 0x08, 7, 0]);
        assert_eq!(send(&mut mouse, &[READ_DATA]), [ACK, 0x08, 0, 0]);
    }

    #[test]
    fn wrap_mode_echoes() {
        let mut mouse = Mouse::default();
        assert_eq!(send(&mut mouse, &[SET_WRAP, ENABLE, 0x55, RESET_WRAP]), [ACK, ENABLE, 0x55, ACK]);
        assert!(!mouse.reporting);
    }

    #[test]
    fn the_status_request() {
        let mut mouse = streaming(0);
        send(&mut mouse, &[SET_RESOLUTION, 3, SET_SAMPLE_RATE, 40, SCALING_2_1]);
        mouse.buttons = BUTTON_LEFT;
        assert_eq!(send(&mut mouse, &[STATUS]), [ACK, 0x34, 3, 40]);
        send(&mut mouse, &[DEFAULTS]);
        assert_eq!(send(&mut mouse, &[STATUS]), [ACK, 0x04, 2, 100]);
    }

    #[test]
    fn two_to_one_scaling() {
        let scaled: Vec<i32> = (-6..=7).map(scale_2_1).collect();
        assert_eq!(scaled, [-12, -9, -6, -3, -1, -1, 0, 1, 1, 3, 6, 9, 12, 14]);
    }

    #[test]
    fn each_command_is_answered_as_a_real_mouse_does() {
        let answers: [(u8, &[u8]); 16] = [
            (SCALING_1_1, &[ACK]),
            (SCALING_2_1, &[ACK]),
            (SET_RESOLUTION, &[ACK]),
            (STATUS, &[ACK, 0, 2, 100]),
            (SET_STREAM, &[ACK]),
            (READ_DATA, &[ACK, 0x08, 0, 0]),
            (RESET_WRAP, &[ACK]),
            (SET_WRAP, &[ACK]),
            (SET_REMOTE, &[ACK]),
            (IDENTIFY, &[ACK, 0]),
            (SET_SAMPLE_RATE, &[ACK]),
            (ENABLE, &[ACK]),
            (DISABLE, &[ACK]),
            (DEFAULTS, &[ACK]),
            (RESEND, &[]),
            (RESET, &[ACK, 0xaa, 0]),
        ];
        for (command, answer) in answers {
            assert_eq!(send(&mut Mouse::default(), &[command]), answer, "{command:x}");
        }
        for other in (0..SCALING_1_1).chain([0xed, 0xef, 0xf1]).chain(0xf7..RESEND) {
            assert_eq!(send(&mut Mouse::default(), &[other]), [PLEASE_RESEND], "{other:x}");
        }
    }

    #[test]
    fn stream_mode_goes_on_after_remote_mode_and_stops_when_disabled() {
        let mut mouse = streaming(0);
        send(&mut mouse, &[SET_REMOTE, SET_STREAM]);
        mouse.move_by(1, 0, 0);
        assert_eq!(packet(&mut mouse, 0), [0x08, 1, 0]);
        send(&mut mouse, &[DISABLE]);
        mouse.move_by(1, 0, 0);
        assert!(packet(&mut mouse, 10 * MS).is_empty());
        assert_eq!(send(&mut mouse, &[ENABLE, READ_DATA]), [ACK, ACK, 0x08, 0, 0], "not what went before");
    }

    #[test]
    fn a_knock_with_another_rate_between_is_none() {
        let mut mouse = Mouse::default();
        send(&mut mouse, &[0xf3, 200, 0xf3, 60, 0xf3, 100, 0xf3, 80]);
        assert_eq!(send(&mut mouse, &[IDENTIFY]), [ACK, 0]);
        // Commands between the rates do no harm.
        send(&mut mouse, &[0xf3, 200, SCALING_1_1, 0xf3, 100, IDENTIFY, 0xf3, 80]);
        assert_eq!(send(&mut mouse, &[IDENTIFY]), [ACK, 3]);
    }

    #[test]
    fn reset_ends_wrap_mode_and_what_was_set() {
        let mut mouse = streaming(0);
        send(&mut mouse, &[SET_RESOLUTION, 0, SET_SAMPLE_RATE, 20, SET_WRAP, 0xe9]);
        assert_eq!(send(&mut mouse, &[RESET, STATUS]), [ACK, 0xaa, 0, ACK, 0, 2, 100]);
    }

    #[test]
    fn nonsense_is_refused_then_an_error() {
        let mut mouse = Mouse::default();
        assert_eq!(send(&mut mouse, &[0x01, 0x02, IDENTIFY]), [PLEASE_RESEND, ERROR, ACK, 0]);
    }

    #[test]
    fn who_rings_gets_one_report_of_nothing() {
        let mut mouse = streaming(0);
        mouse.set_buttons(1, 1);
        mouse.ring();
        assert_eq!(packet(&mut mouse, 0), [0x09, 0, 0], "there was something to tell");
        assert!(packet(&mut mouse, 10 * MS).is_empty());
        mouse.ring();
        mouse.ring();
        assert_eq!(mouse.next_event(), Some(10 * MS));
        assert_eq!(packet(&mut mouse, 20 * MS), [0x09, 0, 0]);
        assert!(packet(&mut mouse, 30 * MS).is_empty());
        send(&mut mouse, &[DISABLE]);
        mouse.ring();
        send(&mut mouse, &[ENABLE]);
        assert!(packet(&mut mouse, 40 * MS).is_empty(), "the driver did not want any");
    }

    #[test]
    fn resend_repeats_the_packet() {
        let mut mouse = streaming(0);
        mouse.move_by(1, 2, 0);
        packet(&mut mouse, 0);
        assert_eq!(send(&mut mouse, &[RESEND]), [0x08, 1, 2]);
    }

    #[test]
    fn movement_that_nobody_reads_is_bounded() {
        let mut mouse = streaming(0);
        for i in 0..1000 {
            mouse.move_by(i32::MAX, i32::MIN, 1);
            mouse.set_buttons(i as u8, 0xff);
            mouse.poll(i * 100 * MS);
        }
        assert!(mouse.queue.len() <= 4 && mouse.pending_buttons.len() <= MAX_PENDING_BUTTONS);
        assert_eq!((mouse.dx, mouse.dy), (MAX_PENDING, -MAX_PENDING));
    }
}
