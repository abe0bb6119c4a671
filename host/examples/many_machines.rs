//! Starts many machines from one saved state, all at once, and gives each its own work.
//!
//!     cargo run --release --example many_machines -- target/images/debian/image

use std::io::Write;
use std::time::Duration;

use env86::{Com, Image, Machine};

const PROMPT: &str = "# ";
const LIMIT: Duration = Duration::from_secs(240);
const MACHINES: u32 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = Image::open(std::env::args_os().nth(1).ok_or("which image?")?)?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let first = Machine::builder().image(&image).cold().start()?;
    first.serial(Com::One).expect(PROMPT, LIMIT)?;
    first.save(&state)?;
    first.stop()?;

    // Memory that a guest does not change is in the state's file, once for all of them.
    let machines: Result<Vec<_>, _> =
        (0..MACHINES).map(|_| Machine::builder().image(&image).state(&state).start()).collect();
    let machines = machines?;
    for (number, machine) in (0..).zip(&machines) {
        machine.serial(Com::One).write_all(format!("echo $(({number} * {number})).\n").as_bytes())?;
    }
    for (number, machine) in (0u32..).zip(&machines) {
        machine.serial(Com::One).expect(&format!("\n{}.\r\n", number * number), LIMIT)?;
        println!("Machine {number} says {}", number * number);
    }
    machines.into_iter().try_for_each(|machine| machine.stop().map(drop))?;
    Ok(())
}
