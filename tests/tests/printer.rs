//! The parallel port as Linux' drivers see it, which look at the port before they use it: byte by byte as they
//! poll it, and by its interrupt.

use std::fs;
use std::path::Path;
use std::time::Duration;

use env86_tests::{Guest, Result, image, image_root};

/// Generous: CI machines are small and shared.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes that each way prints.
const COUNT: usize = 20_000;
/// Loads the drivers, prints, says whether there was an interrupt line, and takes the drivers out again.
const PRINT: &str = "set -e; modprobe parport_pc io=0x378 irq=$irq; modprobe lp
    until [ -c /dev/lp0 ]; do sleep 1; done
    echo by $irq > /dev/lp0; head -c $count /usr/bin/busybox > /dev/lp0
    cat /proc/sys/dev/parport/parport0/irq
    rmmod lp parport_pc";

#[test]
fn a_guest_prints_to_a_file() -> Result<()> {
    let printed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("printed");
    let mut guest = Guest::shell(&image()?, [Path::new("--lpt"), &printed])?;
    let program = fs::read(image_root()?.join("usr/bin/busybox"))?;
    let mut expected = Vec::new();
    for (irq, used) in [("none", "-1"), ("7", "7")] {
        let said = guest.run(&format!("irq={irq} count={COUNT}; {PRINT}"), LIMIT)?;
        assert_eq!(said.lines().last(), Some(used), "{said}");
        expected.extend(format!("by {irq}\n").bytes().chain(program[..COUNT].iter().copied()));
    }
    drop(guest);
    assert!(fs::read(&printed)? == expected, "something else was printed");
    Ok(fs::remove_file(printed)?)
}
