//! devices
pub mod pic;
pub mod pit;
pub mod system_control;
pub mod uart;
