//! Whole-machine tests, in one program. `cargo test -p env86-tests disks::` runs those of a file.

mod alpine;
mod assembly;
mod bios;
mod boot;
mod boundaries;
mod build;
mod clock;
mod containers;
mod deterministic;
mod disks;
mod figures;
mod guest_checks;
mod multiboot;
mod net;
mod net_programs;
mod net_soak;
mod printer;
mod relay;
mod run;
mod sound;
mod system_guests;
mod tasks;
mod v86;
mod video;
mod virtio_console;
mod web;
