//! Saves a machine at its shell's prompt, and goes on in another that is resumed from there.
//!
//!     cargo run --release --example save_and_resume -- target/images/debian/image

use std::io::Write;
use std::time::Duration;

use env86::{Com, Image, Machine};

const PROMPT: &str = "# ";
const LIMIT: Duration = Duration::from_secs(240);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::open(std::env::args_os().nth(1).ok_or("which image?")?)?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");

    let machine = Machine::builder().image(&image).cold().start()?;
    let mut com1 = machine.serial(Com::One);
    com1.expect(PROMPT, LIMIT)?;
    com1.write_all(b"word=remembered\n")?;
    com1.expect(PROMPT, LIMIT)?;
    let size = machine.save(&state)?;
    machine.stop()?;
    println!("Saved {} MiB", size >> 20);

    // The state says which image it is of.
    let machine = Machine::builder().state(&state).start()?;
    let mut com1 = machine.serial(Com::One);
    com1.write_all(b"echo it has $word\n")?;
    com1.expect("it has remembered\r\n", LIMIT)?;
    println!("The variable is still there");
    machine.stop()?;
    Ok(())
}
