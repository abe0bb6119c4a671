//! The library as a program uses it, with guests of a few instructions.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use env86::machine::{NoEvent, StateFileError};
use env86::{Com, Ending, Event, ExpectError, Image, Machine, MachineBuilder, MachineError};
use env86_tests::roms::{self, ECHO};
use tempfile::TempDir;

/// Far more than anything here needs, on any machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The same for the end of a machine.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Sends without end: mov dx, 3F8h; out dx, al; inc ax; jmp back.
const CHATTER: [u8; 7] = [0xba, 0xf8, 0x03, 0xee, 0x40, 0xeb, 0xfc];

/// An image whose BIOS is a ROM with this code.
fn image(code: &[u8]) -> (TempDir, Image) {
    image_of(&roms::rom(code))
}

fn image_of(rom: &[u8]) -> (TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    roms::make_image(dir.path(), rom).unwrap();
    let image = Image::open(dir.path()).unwrap();
    (dir, image)
}

#[test]
fn a_machine_is_asked_saved_and_resumed() -> Result<(), Box<dyn std::error::Error>> {
    let (_dir, image) = image(&ECHO);
    let machine = Machine::builder().image(&image).start()?;
    let mut com1 = machine.serial(Com::One);
    com1.write_all(b"a")?;
    assert_eq!(com1.expect("1", LIMIT)?, "a1");
    machine.save_to(&image)?;
    assert_eq!(machine.stop()?.ending, Ending::Stopped);
    assert_eq!(com1.read(&mut [0; 8])?, 0, "the end of the machine is the end of what it sends");
    assert_eq!(com1.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);

    // It goes on where it was, unless told otherwise.
    for (builder, answer) in [(Machine::builder(), "b2"), (Machine::builder().cold(), "b1")] {
        let machine = builder.image(&image).start()?;
        let mut com1 = machine.serial(Com::One);
        com1.write_all(b"b")?;
        com1.expect(answer, LIMIT)?;
        machine.stop()?;
    }
    Ok(())
}

#[test]
fn the_files_of_an_archive_are_there_as_long_as_its_machine() {
    let (dir, image) = image(&ECHO);
    let path = dir.path().join("image.tgz");
    env86::image::export_to(&image, &path, &env86::image::Watch::default()).unwrap();
    let image = Image::open(&path).unwrap();
    let unpacked = image.dir().to_owned();
    let machine = Machine::builder().image(&image).start().unwrap();
    drop(image);
    assert!(unpacked.join("image.json").is_file());
    machine.stop().unwrap();
    assert!(!unpacked.exists());
}

#[test]
fn what_does_not_come_is_told_with_what_came() {
    let (_dir, image) = image(&ECHO);
    let machine = Machine::builder().image(&image).start().unwrap();
    let mut com1 = machine.serial(Com::One);
    com1.write_all(b"x").unwrap();
    com1.expect("x", LIMIT).unwrap();
    // Nothing is lost by waiting in vain.
    match com1.expect("never", Duration::from_millis(50)) {
        Err(ExpectError::Timeout { text, .. }) => assert_eq!(text, "never"),
        other => panic!("{other:?}"),
    }
    assert_eq!(com1.expect("1", LIMIT).unwrap(), "1");
    machine.stop().unwrap();
    assert!(matches!(com1.expect("never", LIMIT), Err(ExpectError::Ended { .. })));
}

#[test]
fn a_port_that_is_not_there_gives_and_takes_nothing() {
    let (_dir, image) = image(&ECHO);
    let machine = Machine::builder().image(&image).start().unwrap();
    for mut port in [machine.serial(Com::Four), machine.console(0).unwrap()] {
        assert_eq!(port.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(port.write(b"x").unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
    assert!(machine.console(4).is_none());
}

#[test]
fn output_that_no_one_takes_holds_nothing_up() {
    let (_dir, image) = image(&CHATTER);
    let machine = Machine::builder().image(&image).start().unwrap();
    // Without a reader the guest runs on, and with one that does not read it waits; it can be saved and
    // stopped in both cases.
    machine.save_to(&image).unwrap();
    let com1 = machine.serial(Com::One);
    machine.save_to(&image).unwrap();
    machine.stop().unwrap();
    drop(com1);
    let machine = Machine::builder().image(&image).start().unwrap();
    let _unread = machine.serial(Com::One);
    drop(machine);
}

#[test]
fn a_reader_gets_every_byte() {
    let (_dir, image) = image(&CHATTER);
    let machine = Machine::builder().image(&image).start().unwrap();
    let mut com1 = machine.serial(Com::One);
    let mut bytes = vec![0; 1 << 20];
    com1.read_exact(&mut bytes).unwrap();
    assert!(bytes.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
}

#[test]
fn events_tell_of_pauses_and_of_the_end() {
    let (_dir, image) = image(&ECHO);
    let machine = Machine::builder().image(&image).start().unwrap();
    let mut events = machine.events();
    machine.pause();
    assert!(matches!(events.next_timeout(LIMIT), Ok(Event::Paused)));
    let before = machine.with(|computer| computer.stats().instructions).unwrap();
    assert_eq!(events.next_timeout(Duration::from_millis(20)).unwrap_err(), NoEvent::Timeout);
    assert_eq!(machine.with(|computer| computer.stats().instructions).unwrap(), before);
    machine.resume();
    assert!(matches!(events.next(), Some(Event::Resumed)));
    machine.stop().unwrap();
    assert_eq!(events.next_timeout(LIMIT).unwrap_err(), NoEvent::Ended);
}

#[test]
fn a_machine_whose_thread_panics_ends_alone() {
    let (_dir, image) = image(&ECHO);
    let start = || Machine::builder().image(&image).start().unwrap();
    let (bad, good) = (start(), start());
    let lost = bad.with(|_| panic!("an injected defect")).unwrap_err();
    assert!(matches!(lost, MachineError::Gone));
    match bad.wait() {
        Err(MachineError::Panicked(message)) => assert_eq!(message, "an injected defect"),
        other => panic!("{other:?}"),
    }
    let mut com1 = good.serial(Com::One);
    com1.write_all(b"?").unwrap();
    com1.expect("?1", LIMIT).unwrap();
}

/// Beside each other for a second, and then one after the other.
#[test]
fn a_guest_that_only_faults_can_be_stopped() {
    let started: Vec<_> = roms::fault_loops()
        .into_iter()
        .map(|(name, rom)| {
            let (dir, image) = image_of(&rom);
            (name, Machine::builder().image(&image).start().unwrap(), dir)
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    for (name, machine, _dir) in started {
        let (done, stopped) = mpsc::channel();
        thread::spawn(move || {
            let start = Instant::now();
            let report = machine.stop().unwrap();
            // The test may have given up waiting.
            _ = done.send((report, start.elapsed()));
        });
        let (report, took) = stopped.recv_timeout(STOP_LIMIT).unwrap_or_else(|_| panic!("{name}"));
        println!("{name}: stopped in {took:?}, {} instructions", report.cpu.instructions);
        assert_eq!(report.ending, Ending::Stopped, "{name}");
        assert_eq!(report.resets > 0, name == "triple faults", "{name}");
        assert!(report.cpu.interrupts > 0, "{name}");
    }
}

/// An image with a file system of one file.
fn image_with_file(content: &str) -> (TempDir, Image) {
    let (dir, image) = image(&ECHO);
    let index =
        format!(r#"{{"fsroot":[["file",{},0,33188,0,0,"abcd.bin"]],"size":4,"version":3}}"#, content.len());
    fs::write(dir.path().join("fs.json"), index).unwrap();
    fs::write(dir.path().join("fs/abcd.bin"), content).unwrap();
    (dir, image)
}

#[test]
fn a_state_knows_its_image() -> Result<(), Box<dyn std::error::Error>> {
    let (dir, image) = image_with_file("some");
    let place = tempfile::tempdir()?;
    let state = place.path().join("state");
    let machine = Machine::builder().image(&image).start()?;
    machine.save(&state)?;
    machine.stop()?;
    let resumes = |builder: MachineBuilder| -> Result<(), Box<dyn std::error::Error>> {
        let machine = builder.state(&state).start()?;
        let mut com1 = machine.serial(Com::One);
        com1.write_all(b"x")?;
        com1.expect("x1", LIMIT)?;
        Ok(())
    };
    // It is found where it was, and may have moved.
    resumes(Machine::builder())?;
    resumes(Machine::builder().image(&image))?;
    let moved = place.path().join("moved");
    fs::create_dir_all(moved.join("fs"))?;
    for name in ["image.json", "fs.json", "rom", "fs/abcd.bin"] {
        fs::copy(dir.path().join(name), moved.join(name))?;
    }
    let moved = Image::open(moved)?;
    resumes(Machine::builder().image(&moved))?;
    // Another one is refused.
    let (_other_dir, other) = image_with_file("something");
    let error = Machine::builder().image(&other).state(&state).start().unwrap_err();
    assert!(matches!(error, MachineError::OtherImage { .. }), "{error}");
    // It is said which one is missing.
    let was = dir.path().display().to_string();
    dir.close()?;
    let error = Machine::builder().state(&state).start().unwrap_err();
    assert!(matches!(&error, MachineError::ImageGone { wanted, .. } if *wanted == was), "{error}");
    Ok(())
}

/// Writes to each page of memory, and says `.`, without end.
const SWEEP: [u8; 27] = [
    0x31, 0xdb, //                   00 xor bx, bx
    0x8e, 0xdb, //                   02 mov ds, bx
    0xc6, 0x06, 0x00, 0x00, 0x01, // 04 mov byte [0], 1
    0x81, 0xc3, 0x00, 0x01, //       09 add bx, 100h
    0x81, 0xfb, 0x00, 0x90, //       0D cmp bx, 9000h
    0x75, 0xef, //                   11 jnz 02h
    0xba, 0xf8, 0x03, //             13 mov dx, 3F8h
    0xb0, b'.', //                   16 mov al, '.'
    0xee, //                         18 out dx, al
    0xeb, 0xe5, //                   19 jmp 00h
];

#[test]
fn a_machine_whose_state_is_cut_off_ends_alone() {
    let (dir, image) = image(&SWEEP);
    let path = |name: &str| dir.path().join(name);
    let cut_off = |name| fs::File::options().write(true).open(path(name)).unwrap().set_len(5000).unwrap();
    let wait = |machine: &Machine| machine.serial(Com::One).expect(".", LIMIT).unwrap();
    let original = Machine::builder().image(&image).start().unwrap();
    wait(&original);
    original.save(path("first")).unwrap();
    for name in ["second", "third"] {
        fs::copy(path("first"), path(name)).unwrap();
    }
    let start = |name| Machine::builder().state(path(name)).start().unwrap();
    let (first, second, third) = (start("first"), start("second"), start("third"));
    wait(&first);

    cut_off("first");
    match first.wait() {
        Err(MachineError::State(StateFileError::CutOff(lost))) => assert_eq!(lost, path("first")),
        other => panic!("{other:?}"),
    }

    // One that stands still finds it out when it is saved, and writes nothing.
    let mut events = second.events();
    second.pause();
    assert!(matches!(events.next(), Some(Event::Paused)));
    cut_off("second");
    for name in ["saved", "saved.zst"] {
        let saved = second.save(path(name));
        assert!(matches!(saved, Err(MachineError::State(StateFileError::CutOff(_)))), "{saved:?}");
        assert!(!path(name).exists());
    }
    drop(second);

    wait(&third);
    third.stop().unwrap();
    // What is too short from the start is refused.
    assert!(Machine::builder().state(path("first")).start().is_err());
}
