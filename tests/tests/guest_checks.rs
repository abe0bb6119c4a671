//! The checks in `guest/`, in one boot of the demo image.

use std::time::Duration;

use env86_tests::{Guest, Result, image};

#[test]
fn guest_checks() -> Result<()> {
    let mut guest = Guest::shell(&image()?, [""; 0])?;
    let lines = guest.checks(Duration::from_secs(300))?;
    for line in &lines {
        println!("{line}");
    }
    let failed: Vec<_> = lines.iter().filter(|line| !line.starts_with("PASS ")).collect();
    assert!(!lines.is_empty(), "no check ran");
    assert!(failed.is_empty(), "{failed:#?}");
    Ok(())
}
