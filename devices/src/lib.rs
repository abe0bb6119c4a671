//! devices
pub mod dma;
pub mod pic;
pub mod pit;
pub mod ps2;
pub mod rtc;
pub mod system_control;
pub mod uart;
