//! The env86 command.
fn main() {}
