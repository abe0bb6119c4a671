//! Runs a machine twice on the same input: both execute the same instructions and end in the same state.
//!
//!     cargo run --release --example deterministic -- target/images/debian/image

use env86::machine::Event;
use env86::{Image, Machine, Recording, Report};

/// The quotes keep the text out of what the terminal echoes.
const TYPED: &str = "date; od -N 4 -x /dev/urandom; echo over-an''d-out\n";
const TEXT: &str = "over-and-out";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::open(std::env::args_os().nth(1).ok_or("which image?")?)?;
    let run = || -> Result<Report, Box<dyn std::error::Error>> {
        let recording = Recording::typed(TYPED, Some(TEXT.into()));
        let machine =
            Machine::builder().image(&image).cold().memory(128 << 20).recording(recording).start()?;
        let over = machine.events().any(|event| matches!(event, Event::Over));
        assert!(over, "the guest has ended without the text");
        Ok(machine.stop()?)
    };
    let (first, second) = (run()?, run()?);
    for report in [first, second] {
        println!(
            "{} instructions, state {:016x}",
            report.cpu.instructions,
            report.digest.unwrap_or_default()
        );
    }
    assert_eq!((first.cpu.instructions, first.digest), (second.cpu.instructions, second.digest));
    Ok(())
}
