//! Boots an image, asks its shell something, and prints the answer.
//!
//!     cargo run --release --example boot_and_ask -- target/images/debian/image

use std::io::Write;
use std::time::Duration;

use env86::{Com, Image, Machine};

/// What the demo image's shell prints when it waits for a command.
const PROMPT: &str = "# ";
const LIMIT: Duration = Duration::from_secs(240);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::open(std::env::args_os().nth(1).ok_or("which image?")?)?;
    let machine = Machine::builder().image(&image).start()?;
    let mut com1 = machine.serial(Com::One);
    com1.expect(PROMPT, LIMIT)?;
    com1.write_all(b"uname -m\n")?;
    // The shell echoes the question.
    com1.expect("uname -m\r\n", LIMIT)?;
    let answer = com1.expect("\r\n", LIMIT)?;
    println!("The guest is an {}", answer.trim());
    machine.stop()?;
    Ok(())
}
