//! devices

pub mod fs;
