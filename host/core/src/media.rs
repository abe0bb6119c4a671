//! Media that are put into a drive while the machine runs.

use std::error::Error;

use env86_devices::floppy::FloppyError;
use env86_devices::ide::{DiscError, Medium};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A drive whose medium can be changed while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drive {
    /// The CD-ROM drive.
    Cdrom,
    /// The first floppy drive.
    Fda,
    /// The second floppy drive.
    Fdb,
}

/// Where a desk keeps the media that [`Input::Medium`](crate::Input::Medium) names.
pub trait MediaStore: Send {
    /// Opens the medium of this name for a drive. What names mean is the desk's own affair: a path, or a
    /// number in a list.
    fn open(&mut self, drive: Drive, name: &str) -> Result<Medium, Box<dyn Error + Send + Sync>>;
}

/// A desk without media.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMedia;

impl MediaStore for NoMedia {
    fn open(&mut self, _drive: Drive, _name: &str) -> Result<Medium, Box<dyn Error + Send + Sync>> {
        Err("this machine has been given no media".into())
    }
}

/// Why a medium has not been changed.
#[derive(Debug, Error)]
pub enum MediumError {
    /// The new medium cannot be opened. The old one is still in the drive.
    #[error("The medium `{name}` cannot be opened")]
    Open {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The machine repeats, and takes nothing while it waits for data of its media.
    #[error("The machine stands still until data of its media have come; try again then")]
    Busy,
    /// The drive does not give its disc away, or is not there.
    #[error(transparent)]
    Disc(#[from] DiscError),
    /// It is no floppy disk.
    #[error("This is no floppy disk")]
    Floppy(#[from] FloppyError),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use env86_bios::BootSource;
    use env86_devices::board::{ManualClock, Seeded};
    use env86_devices::ide::{DiskImage, Form, Late, Units};

    use super::*;
    use crate::{Accepted, Computer, Ending, Firmware, Input, Outside, Progress, Recorded, Recording, Setup};

    const EXIT: u16 = 0xf4;
    const SECTORS: u8 = 20;

    /// Reads a sector after the other through the data port, and tells of each the first byte and the low
    /// byte of the time stamp counter.
    #[rustfmt::skip]
    const READER: [u8; 70] = [
        0x31, 0xc0, //             00 xor ax, ax
        0x8e, 0xc0, //             02 mov es, ax
        0xfc, //                   04 cld
        0xb3, 1, //                05 mov bl, 1
        0xba, 0xf6, 0x01, //       07 mov dx, 1F6h      device: the first, LBA
        0xb0, 0xe0, //             0A mov al, E0h
        0xee, //                   0C out dx, al
        0xba, 0xf2, 0x01, //       0D mov dx, 1F2h      one sector
        0xb0, 1, //                10 mov al, 1
        0xee, //                   12 out dx, al
        0x42, //                   13 inc dx            its number
        0x88, 0xd8, //             14 mov al, bl
        0xee, //                   16 out dx, al
        0x42, //                   17 inc dx
        0x30, 0xc0, //             18 xor al, al
        0xee, //                   1A out dx, al
        0x42, //                   1B inc dx
        0xee, //                   1C out dx, al
        0xba, 0xf7, 0x01, //       1D mov dx, 1F7h      READ SECTORS
        0xb0, 0x20, //             20 mov al, 20h
        0xee, //                   22 out dx, al
        0xec, //                   23 in al, dx         until it is not busy
        0xa8, 0x80, //             24 test al, 80h
        0x75, 0xfb, //             26 jnz 23h
        0xba, 0xf0, 0x01, //       28 mov dx, 1F0h
        0xbf, 0x00, 0x10, //       2B mov di, 1000h
        0xb9, 0x00, 0x01, //       2E mov cx, 256
        0xf3, 0x6d, //             31 rep insw
        0x26, 0xa0, 0x00, 0x10, // 33 mov al, es:[1000h]
        0xe6, 0xe9, //             37 out E9h, al
        0x0f, 0x31, //             39 rdtsc
        0xe6, 0xe9, //             3B out E9h, al
        0xfe, 0xc3, //             3D inc bl
        0x80, 0xfb, SECTORS + 1, // 3F cmp bl, 21
        0x75, 0xc3, //             42 jne 07h
        0xe6, 0xf4, //             44 out F4h, al
    ];

    /// Asks the CD-ROM drive whether it is ready, and tells its status and error.
    #[rustfmt::skip]
    const ASKER: [u8; 38] = [
        0xba, 0x76, 0x01, // 00 mov dx, 176h      device: the first
        0x30, 0xc0, //       03 xor al, al
        0xee, //             05 out dx, al
        0xba, 0x77, 0x01, // 06 mov dx, 177h      PACKET
        0xb0, 0xa0, //       09 mov al, A0h
        0xee, //             0B out dx, al
        0xec, //             0C in al, dx
        0xba, 0x70, 0x01, // 0D mov dx, 170h      TEST UNIT READY: six words of zeros
        0x31, 0xc0, //       10 xor ax, ax
        0xb9, 6, 0, //       12 mov cx, 6
        0xef, //             15 out dx, ax
        0xe2, 0xfd, //       16 loop 15h
        0xba, 0x77, 0x01, // 18 mov dx, 177h
        0xec, //             1B in al, dx
        0xe6, 0xe9, //       1C out E9h, al
        0xba, 0x71, 0x01, // 1E mov dx, 171h
        0xec, //             21 in al, dx
        0xe6, 0xe9, //       22 out E9h, al
        0xe6, 0xf4, //       24 out F4h, al
    ];

    fn rom(code: &[u8]) -> Firmware {
        let mut bios = vec![0; 64 << 10];
        bios[..code.len()].copy_from_slice(code);
        bios[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]); // jmp F000:0000
        Firmware::new("rom", BootSource::Rom { bios, vga_bios: None, kernel: None })
    }

    /// A machine with a disk each of whose sectors is full of its number.
    fn with_disk(setup: Setup, seed: Option<u64>) -> Setup {
        let image: Vec<u8> = (0..=SECTORS).flat_map(|number| [number; 512]).collect();
        let disk = match seed {
            Some(seed) => Medium::new(Late::new(image, seed), Form::Written),
            None => Medium::new(image, Form::Written),
        };
        let drives = Units::new(Some(disk), None, None);
        Setup { drives, memory: 2 << 20, debug_console: true, debug_exit: Some(EXIT), ..setup }
    }

    #[derive(Default)]
    struct Debug(Vec<u8>);

    impl Outside for Debug {
        fn debug(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }
    }

    /// Runs a machine to its end, and gives it the data that it waits for as it sleeps.
    fn run(computer: &mut Computer) -> (Vec<u8>, u32) {
        let (mut debug, mut sleeps) = (Debug::default(), 0);
        loop {
            match computer.run(1_000, &mut debug).unwrap() {
                Progress::More => {}
                Progress::Sleep { .. } => {
                    sleeps += 1;
                    assert!(computer.input(&Input::Wheel(1)) == Accepted::Some(0), "it stands still");
                    computer.data_arrived();
                }
                Progress::Ended(ending) => {
                    assert!(matches!(ending, Ending::DebugExit(_)), "{ending:?}");
                    return (debug.0, sleeps);
                }
            }
        }
    }

    #[test]
    fn how_late_media_are_makes_no_difference_to_a_machine_that_repeats() {
        let machine = |seed| {
            let setup = with_disk(Setup::deterministic(Recording::default()), seed);
            let mut computer = Computer::power_on(setup, rom(&READER)).unwrap();
            let (output, sleeps) = run(&mut computer);
            (output, sleeps, computer.stats().instructions, computer.digest().unwrap())
        };
        let (output, sleeps, instructions, digest) = machine(None);
        assert_eq!(sleeps, 0);
        assert!(output.iter().step_by(2).copied().eq(1..=SECTORS), "{output:?}");
        for seed in 1..=8 {
            let late = machine(Some(seed));
            assert!(late.1 > 0);
            assert_eq!((&late.0, late.2, late.3), (&output, instructions, digest));
        }
    }

    /// Notes that it was woken.
    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_guest_runs_on_until_late_media_wake_the_desk() {
        for seed in 1..=8 {
            let (clock, bell) = (ManualClock::default(), Arc::new(Bell::default()));
            let setup = Setup::new(Box::new(clock.clone()), Box::new(Seeded(1)));
            let setup = Setup { waker: bell.clone().into(), ..with_disk(setup, Some(seed)) };
            let mut computer = Computer::power_on(setup, rom(&READER)).unwrap();
            let (mut debug, mut woken) = (Debug::default(), 0);
            while computer.run(1_000, &mut debug).unwrap() == Progress::More {
                clock.advance(1_000);
                if bell.0.swap(false, Ordering::Relaxed) {
                    woken += 1;
                    computer.data_arrived();
                }
            }
            assert!(woken > 0);
            assert!(debug.0.iter().step_by(2).copied().eq(1..=SECTORS), "{:?}", debug.0);
        }
    }

    /// Has one disc, which is called so.
    struct OneDisc;

    impl MediaStore for OneDisc {
        fn open(&mut self, _: Drive, name: &str) -> Result<Medium, Box<dyn Error + Send + Sync>> {
            let disc: Vec<u8> = vec![0; 4 * 2048];
            assert_eq!(disc.size(), 8192);
            if name == "disc" { Ok(Medium::new(disc, Form::Whole)) } else { Err("there is none".into()) }
        }
    }

    #[test]
    fn a_recording_has_the_changes_of_discs() {
        /// Status: ready, with an error; error: the sense key.
        const NO_DISC: [u8; 2] = [0x51, 0x20];
        const DISC_CHANGED: [u8; 2] = [0x51, 0x60];
        let machine = |recording| {
            let setup = Setup { media: Box::new(OneDisc), ..Setup::deterministic(recording) };
            Computer::power_on(with_disk(setup, None), rom(&ASKER)).unwrap()
        };
        let change = |name: &str| Input::Medium { drive: Drive::Cdrom, name: Some(name.into()) };
        assert_eq!(run(&mut machine(Recording::default())).0, NO_DISC);
        let mut live = machine(Recording::default());
        assert!(matches!(live.change_medium(Drive::Cdrom, Some("x")), Err(MediumError::Open { .. })));
        assert_eq!(live.input(&change("x")), Accepted::Refused);
        live.change_medium(Drive::Cdrom, Some("disc")).unwrap();
        assert_eq!(run(&mut live).0, DISC_CHANGED);
        let recording = live.recording().unwrap();
        assert_eq!(recording.inputs, [Recorded { at: 0, input: change("disc") }]);
        let text = serde_json::to_string(&recording).unwrap();
        let mut played = machine(serde_json::from_str(&text).unwrap());
        assert_eq!(run(&mut played).0, DISC_CHANGED);
        assert_eq!(played.digest().unwrap(), live.digest().unwrap());
    }
}
