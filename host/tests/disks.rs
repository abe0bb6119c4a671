//! Disk images that keep what the guest writes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use env86::machine::DiskError;
use env86::{Com, Machine, MachineBuilder, MachineError};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

/// Fills sector 5 with `x`, flushes, says `#`, and waits for ever.
#[rustfmt::skip]
const WRITER: [u8; 71] = [
    0x31, 0xc0, //             00 xor ax, ax
    0x8e, 0xd8, //             02 mov ds, ax
    0x8e, 0xc0, //             04 mov es, ax
    0xfc, //                   06 cld
    0xbf, 0x00, 0x10, //       07 mov di, 1000h
    0xb9, 0x00, 0x01, //       0A mov cx, 256
    0xb8, b'x', b'x', //       0D mov ax, 'xx'
    0xf3, 0xab, //             10 rep stosw
    0xba, 0xf6, 0x01, //       12 mov dx, 1F6h      device: the first, LBA
    0xb0, 0xe0, //             15 mov al, E0h
    0xee, //                   17 out dx, al
    0xba, 0xf2, 0x01, //       18 mov dx, 1F2h      one sector
    0xb0, 1, //                1B mov al, 1
    0xee, //                   1D out dx, al
    0x42, //                   1E inc dx            its number
    0xb0, 5, //                1F mov al, 5
    0xee, //                   21 out dx, al
    0x42, //                   22 inc dx
    0x30, 0xc0, //             23 xor al, al
    0xee, //                   25 out dx, al
    0x42, //                   26 inc dx
    0xee, //                   27 out dx, al
    0xba, 0xf7, 0x01, //       28 mov dx, 1F7h      WRITE SECTORS
    0xb0, 0x30, //             2B mov al, 30h
    0xee, //                   2D out dx, al
    0xba, 0xf0, 0x01, //       2E mov dx, 1F0h
    0xbe, 0x00, 0x10, //       31 mov si, 1000h
    0xb9, 0x00, 0x01, //       34 mov cx, 256
    0xf3, 0x6f, //             37 rep outsw
    0xba, 0xf7, 0x01, //       39 mov dx, 1F7h      FLUSH CACHE
    0xb0, 0xe7, //             3C mov al, E7h
    0xee, //                   3E out dx, al
    0xba, 0xf8, 0x03, //       3F mov dx, 3F8h
    0xb0, b'#', //             42 mov al, '#'
    0xee, //                   44 out dx, al
    0xeb, 0xfe, //             45 jmp 45h
];

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let mut rom = vec![0; 64 << 10];
        rom[..WRITER.len()].copy_from_slice(&WRITER);
        rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]); // jmp F000:0000
        fs::write(desk.path("rom"), rom).unwrap();
        fs::write(desk.path("disk"), vec![0; 100 * 512]).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn builder(&self) -> MachineBuilder {
        Machine::builder().bios(self.path("rom")).memory(2 << 20).hda(self.path("disk"))
    }

    /// A machine that has written.
    fn start(builder: &MachineBuilder) -> Machine {
        let machine = builder.start().unwrap();
        machine.serial(Com::One).expect("#", LIMIT).unwrap();
        machine
    }

    /// How many bytes of the disk are `x`.
    fn written(&self) -> usize {
        fs::read(self.path("disk")).unwrap().iter().filter(|byte| **byte == b'x').count()
    }
}

#[test]
fn a_disk_keeps_what_is_written_if_that_is_asked_for() {
    let desk = Desk::new();
    Desk::start(&desk.builder()).stop().unwrap();
    assert_eq!(desk.written(), 0);
    let machine = Desk::start(&desk.builder().persist());
    assert_eq!(desk.written(), 512, "while the machine runs");
    assert!(fs::read(desk.path("disk")).unwrap()[5 * 512..6 * 512] == [b'x'; 512]);
    machine.stop().unwrap();
    assert_eq!(desk.written(), 512);
}

#[test]
fn a_disk_that_is_written_to_has_one_machine() {
    let desk = Desk::new();
    let in_use = |builder: MachineBuilder| match builder.start() {
        Err(MachineError::Disk(DiskError::InUse(path))) => path == desk.path("disk"),
        _ => false,
    };
    let writer = Desk::start(&desk.builder().persist());
    assert!(in_use(desk.builder().persist()));
    assert!(in_use(desk.builder()));
    writer.stop().unwrap();
    let readers = [(); 2].map(|()| Desk::start(&desk.builder()));
    assert!(in_use(desk.builder().persist()));
    drop(readers);
    Desk::start(&desk.builder().persist()).stop().unwrap();
}

#[test]
fn an_overlay_keeps_what_is_written_beside_the_image() {
    let desk = Desk::new();
    let builder = desk.builder().overlay(desk.path("overlay"));
    Desk::start(&builder).stop().unwrap();
    assert_eq!(desk.written(), 0);
    let overlay = fs::read(desk.path("overlay")).unwrap();
    assert_eq!(overlay.iter().filter(|byte| **byte == b'x').count(), 512);
    // Another image of that size is not noticed; one of another size is.
    fs::write(desk.path("disk"), [0; 512 * 101]).unwrap();
    let refused = builder.start();
    assert!(matches!(refused, Err(MachineError::Disk(DiskError::OtherOverlay { .. }))), "{refused:?}");
}

#[test]
fn what_cannot_be_kept_is_said() {
    let desk = Desk::new();
    let image = desk.path("image");
    fs::create_dir_all(image.join("fs")).unwrap();
    fs::write(image.join("fs.json"), r#"{"fsroot":[],"size":0,"version":3}"#).unwrap();
    let json = r#"{"memory_size":2097152,"bios":{"url":"./rom"},
        "hda":{"url":"./disk.img","size":51200,"use_parts":true,"fixed_chunk_size":51200}}"#;
    fs::write(image.join("image.json"), json).unwrap();
    fs::copy(desk.path("rom"), image.join("rom")).unwrap();
    fs::copy(desk.path("disk"), image.join("disk-0-51200.img")).unwrap();
    let image = env86::Image::open(image).unwrap();
    let builder = Machine::builder().image(&image);
    Desk::start(&builder).stop().unwrap();
    let refused = builder.persist().start();
    assert!(matches!(refused, Err(MachineError::Disk(DiskError::NotKept { .. }))), "{refused:?}");
}
