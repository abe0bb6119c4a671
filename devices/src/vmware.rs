//! VMware's backdoor: calls to the hypervisor through an IN of a doubleword from port 5658h, as far as
//! v86 answers them: its version, the time of day, and an absolute pointer.
//!
//! The pointer has no interrupt of its own. A driver (Linux's `vmmouse`) reads its packets when the
//! PS/2 mouse interrupts, so whoever moves the pointer moves that mouse, too.
//!
//! Sources: VMware's open-vm-tools (`backdoor_def.h`), the vmmouse driver of X.Org (`vmmouse_defs.h`).

use env86_emu::HypervisorCall;
use std::collections::VecDeque;

/// EAX of a call, and EBX of the answer to [`command::GET_VERSION`].
pub const MAGIC: u32 = 0x564d_5868;
/// EAX where nobody knows the call.
const UNKNOWN: u32 = u32::MAX;
/// The version of the interface.
const VERSION: u32 = 6;
/// GET_TIME: the microseconds that a guest's clock may lag behind.
const MAX_TIME_LAG: u32 = 1_000_000;

/// Commands, in CX.
mod command {
    pub const GET_VERSION: u16 = 10;
    pub const GET_TIME: u16 = 23;
    pub const ABSPOINTER_DATA: u16 = 39;
    pub const ABSPOINTER_STATUS: u16 = 40;
    pub const ABSPOINTER_COMMAND: u16 = 41;
}

/// What EBX says with ABSPOINTER_COMMAND.
mod pointer {
    /// "REAE": send packets, and first of all [`super::POINTER_ID`].
    pub const ENABLE: u32 = 0x4541_4552;
    pub const DISABLE: u32 = 0x0000_00f5;
    /// "RREL"
    pub const RELATIVE: u32 = 0x4c45_5252;
    /// "RABS"
    pub const ABSOLUTE: u32 = 0x5342_4152;
}

/// The first word that an enabled pointer sends.
const POINTER_ID: u32 = 0x3442_554a;
/// The status of a pointer that is not enabled, or has lost packets.
const STATUS_ERROR: u32 = 0xffff_0000;
/// Bits of a packet's first word.
const PACKET_RELATIVE: u32 = 1 << 16;
/// Left button.
pub const BUTTON_LEFT: u32 = 0x20;
/// Right button.
pub const BUTTON_RIGHT: u32 = 0x10;
/// Middle button.
pub const BUTTON_MIDDLE: u32 = 0x08;
/// Words of a packet: buttons and kind, horizontal, vertical, wheel.
const PACKET: usize = 4;
/// Words that wait at most. A guest that lets more come has gone away.
const MAX_WORDS: usize = 1024;

/// Where the pointer is, or how far it has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// Right and down, from 0 to FFFFh over the whole screen.
    To(u16, u16),
    /// Counts to the right and up.
    By(i32, i32),
}

/// The backdoor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backdoor {
    /// The pointer sends packets.
    pub enabled: bool,
    /// The guest wants positions; else it wants movements.
    pub absolute: bool,
    /// Words of packets that wait for the guest.
    pub words: VecDeque<u32>,
    /// The last packet that waits says nothing but where the pointer is.
    pub ends_in_motion: bool,
    /// `BUTTON_*` that are down.
    pub buttons: u32,
}

impl Backdoor {
    /// A call, at `unix_millis` of wall time.
    pub fn call(&mut self, call: &mut HypervisorCall, unix_millis: i64) {
        if call.eax != MAGIC {
            call.eax = UNKNOWN;
            return;
        }
        match call.ecx as u16 {
            command::GET_VERSION => (call.eax, call.ebx) = (VERSION, MAGIC),
            command::GET_TIME => {
                let millis = u64::try_from(unix_millis).unwrap_or(0);
                *call = HypervisorCall {
                    eax: (millis / 1000) as u32,
                    ebx: (millis % 1000 * 1000) as u32,
                    ecx: MAX_TIME_LAG,
                    // Minutes east of Greenwich: the board's clock keeps UTC.
                    edx: 0,
                };
            }
            command::ABSPOINTER_STATUS => {
                call.eax = if self.enabled { self.words.len() as u32 } else { STATUS_ERROR };
            }
            command::ABSPOINTER_DATA => {
                let wanted = usize::try_from(call.ebx).unwrap_or(PACKET).min(PACKET).min(self.words.len());
                let mut words = self.words.drain(..wanted);
                let mut next = || words.next().unwrap_or(0);
                *call = HypervisorCall { eax: next(), ebx: next(), ecx: next(), edx: next() };
            }
            command::ABSPOINTER_COMMAND => {
                self.command(call.ebx);
                call.eax = 0;
            }
            _ => call.eax = UNKNOWN,
        }
    }

    fn command(&mut self, command: u32) {
        match command {
            pointer::ENABLE => {
                self.enabled = true;
                self.ends_in_motion = false;
                self.words = [POINTER_ID].into();
            }
            pointer::DISABLE => *self = Self::default(),
            pointer::RELATIVE => self.absolute = false,
            pointer::ABSOLUTE => self.absolute = true,
            _ => {}
        }
    }

    /// The pointer is, or has been moved, somewhere; `wheel` steps towards the user; `BUTTON_*` that
    /// are down. A position is for a guest that wants positions. Where packets wait, motion alone
    /// changes the last of them, so that the guest is never far behind.
    pub fn pointer(&mut self, motion: Motion, wheel: i32, buttons: u32) {
        if !self.enabled || matches!(motion, Motion::To(..)) && !self.absolute {
            return;
        }
        let only_motion = wheel == 0 && buttons == self.buttons;
        self.buttons = buttons;
        let (kind, x, y) = match motion {
            Motion::To(x, y) => (0, x.into(), y.into()),
            Motion::By(dx, dy) => (PACKET_RELATIVE, dx as u32, dy as u32),
        };
        if only_motion && self.ends_in_motion && self.change_last(kind, x, y) {
            return;
        }
        if self.words.len() + PACKET > MAX_WORDS {
            self.enabled = false;
            self.words.clear();
            return;
        }
        self.words.extend([buttons | kind, x, y, wheel as u32]);
        self.ends_in_motion = only_motion;
    }

    /// Takes a motion into the last packet that waits, if that is whole and of the same kind.
    fn change_last(&mut self, kind: u32, x: u32, y: u32) -> bool {
        let Some(at) = self.words.len().checked_sub(PACKET) else { return false };
        if self.words[at] & PACKET_RELATIVE != kind {
            return false;
        }
        let before = if kind == PACKET_RELATIVE { (self.words[at + 1], self.words[at + 2]) } else { (0, 0) };
        self.words[at + 1] = before.0.wrapping_add(x);
        self.words[at + 2] = before.1.wrapping_add(y);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(backdoor: &mut Backdoor, command: u16, ebx: u32) -> HypervisorCall {
        let mut call = HypervisorCall { eax: MAGIC, ebx, ecx: command.into(), edx: 0x5658 };
        backdoor.call(&mut call, 1_700_000_000_123);
        call
    }

    fn enabled() -> Backdoor {
        let mut backdoor = Backdoor::default();
        assert_eq!(call(&mut backdoor, command::ABSPOINTER_STATUS, 0).eax, STATUS_ERROR);
        call(&mut backdoor, command::ABSPOINTER_COMMAND, pointer::ENABLE);
        assert_eq!(call(&mut backdoor, command::ABSPOINTER_STATUS, 0).eax, 1);
        assert_eq!(call(&mut backdoor, command::ABSPOINTER_DATA, 1).eax, POINTER_ID);
        call(&mut backdoor, command::ABSPOINTER_COMMAND, pointer::ABSOLUTE);
        backdoor
    }

    fn packet(backdoor: &mut Backdoor) -> [u32; 4] {
        let HypervisorCall { eax, ebx, ecx, edx } = call(backdoor, command::ABSPOINTER_DATA, 4);
        [eax, ebx, ecx, edx]
    }

    #[test]
    fn tells_its_version_and_the_time_to_who_knows_the_word() {
        let mut backdoor = Backdoor::default();
        let answer = call(&mut backdoor, command::GET_VERSION, 0);
        assert_eq!((answer.eax, answer.ebx), (6, MAGIC));
        let time = HypervisorCall { eax: 1_700_000_000, ebx: 123_000, ecx: 1_000_000, edx: 0 };
        assert_eq!(call(&mut backdoor, command::GET_TIME, 0), time);
        assert_eq!(call(&mut backdoor, 1, 2), HypervisorCall { eax: UNKNOWN, ebx: 2, ecx: 1, edx: 0x5658 });
        let mut wrong = HypervisorCall { eax: 1, ecx: command::GET_VERSION.into(), ..Default::default() };
        backdoor.call(&mut wrong, 0);
        assert_eq!((wrong.eax, wrong.ebx), (UNKNOWN, 0));
    }

    #[test]
    fn positions_replace_and_movements_add_up() {
        let mut backdoor = enabled();
        backdoor.pointer(Motion::To(1, 2), 0, 0);
        backdoor.pointer(Motion::To(0xffff, 3), 0, 0);
        backdoor.pointer(Motion::By(5, -1), 0, 0);
        backdoor.pointer(Motion::By(1, -1), 0, 0);
        backdoor.pointer(Motion::To(7, 8), 0, BUTTON_LEFT);
        backdoor.pointer(Motion::To(7, 8), -1, BUTTON_LEFT);
        assert_eq!(packet(&mut backdoor), [0, 0xffff, 3, 0]);
        assert_eq!(packet(&mut backdoor), [PACKET_RELATIVE, 6, -2i32 as u32, 0]);
        assert_eq!(packet(&mut backdoor), [BUTTON_LEFT, 7, 8, 0]);
        assert_eq!(packet(&mut backdoor), [BUTTON_LEFT, 7, 8, u32::MAX]);
        assert_eq!(packet(&mut backdoor), [0; 4]);
    }

    #[test]
    fn a_guest_that_wants_movements_gets_no_positions() {
        let mut backdoor = enabled();
        call(&mut backdoor, command::ABSPOINTER_COMMAND, pointer::RELATIVE);
        backdoor.pointer(Motion::To(1, 2), 0, BUTTON_LEFT);
        assert_eq!(call(&mut backdoor, command::ABSPOINTER_STATUS, 0).eax, 0);
        call(&mut backdoor, command::ABSPOINTER_COMMAND, pointer::DISABLE);
        assert_eq!(backdoor, Backdoor::default());
    }

    #[test]
    fn packets_that_nobody_reads_end_it() {
        let mut backdoor = enabled();
        for _ in 0..=MAX_WORDS / PACKET {
            backdoor.pointer(Motion::By(0, 0), 1, 0);
        }
        assert!(!backdoor.enabled);
        assert_eq!(call(&mut backdoor, command::ABSPOINTER_STATUS, 0).eax, STATUS_ERROR);
    }
}
