//! A state that has been understood, and a machine put into it.

use super::chip::{Chip, Moment, State};
use super::container::Container;
use super::{ImageSource, Pages, Slot, Source, StateError, cpu, for_each_chip};
use crate::board::BoardConfig;
use crate::fs::Filesystem;
use crate::ide::{Medium, Units};
use crate::pc::Pc;

/// Guest time in nanoseconds that a state may begin with: some years, and far from overflow.
const MAX_TIME: u64 = 1 << 58;

/// A state that can be resumed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Guest time in nanoseconds at which the machine was saved, as far as the state tells. A clock
    /// that goes on from there is right for every timer.
    pub time: u64,
    /// We have not written the state: its times are those of v86's clock.
    foreign: bool,
    chips: Chips,
}

macro_rules! chips {
    ($($chip:ident),*) => {
        /// What the state says of each chip.
        #[derive(Clone, Debug)]
        struct Chips { $( $chip: super::$chip::Saved, )* }

        impl Chips {
            fn read(state: &State) -> Result<Self, StateError> {
                Ok(Self { $( $chip: Chip::read(state)?, )* })
            }

            fn configure(&self, mut config: BoardConfig) -> BoardConfig {
                $( config = self.$chip.configure(config); )*
                config
            }

            fn fits(&self, machine: &Pc) -> Result<(), StateError> {
                $( self.$chip.fits(machine)?; )*
                Ok(())
            }

            fn apply(self, machine: &mut Pc, moment: &Moment) {
                $( self.$chip.apply(machine, moment); )*
            }
        }
    };
}
for_each_chip!(chips);

impl Plan {
    /// Understands a state, or says why it cannot be resumed.
    pub fn read(container: &Container) -> Result<Self, StateError> {
        let state = State::new(container)?;
        let time = state.guest_time().map_or_else(|| cpu::tsc(&state.top), Ok)?;
        Ok(Self {
            time: if time < MAX_TIME { time } else { 0 },
            foreign: state.guest_time().is_none(),
            chips: Chips::read(&state)?,
        })
    }

    /// The memory.
    pub fn pages(&self) -> &Pages {
        &self.chips.ram
    }

    /// Bytes of the linear framebuffer.
    pub fn vga_memory_size(&self) -> u32 {
        self.chips.vga.memory_size
    }

    /// Wall time at the save, in milliseconds since 1970.
    pub fn unix_millis(&self) -> i64 {
        self.chips.rtc.updated_ms
    }

    /// APICs and ACPI are fitted.
    pub fn acpi(&self) -> bool {
        self.chips.acpi.is_some()
    }

    /// The files of virtio-9p, if it is fitted.
    pub fn files(&self) -> Option<&Filesystem> {
        self.chips.p9.as_ref().map(|files| &files.fs)
    }

    /// The image that the file system comes from, if the state tells. It has the contents of the files
    /// that the guest has not changed.
    pub fn image(&self) -> Option<&ImageSource> {
        self.chips.image.as_ref()
    }

    /// Whether the contents of some files are not in the state, but in the image.
    pub fn needs_image(&self) -> bool {
        self.chips.p9.as_ref().is_some_and(|files| files.needs_image())
    }

    /// The drives to build a machine with. `image` gives each its medium, from where the state says.
    pub fn units<E>(&self, image: impl FnMut(Slot, Source) -> Result<Medium, E>) -> Result<Units, E> {
        self.chips.ide.units(image)
    }

    /// Sectors of 512 bytes of the virtio disk, if there is one. The state has what was written to it; its image
    /// has to be the one that the machine was saved with.
    pub fn virtio_disk(&self) -> Option<u64> {
        self.chips.virtio_block.as_ref().map(|disk| disk.sectors)
    }

    /// Makes a board's configuration that of the state; the store of the files' contents stays, and so
    /// do the drives, which have to be [`Plan::units`] and [`Plan::virtio_disk`].
    pub fn configure(&self, config: BoardConfig) -> BoardConfig {
        self.chips.configure(config)
    }

    /// Puts a machine into the state. Its memory has to hold the state's already ([`Pages`]); `file`
    /// is the state's file. A machine that the state does not fit is refused untouched.
    pub fn apply(self, machine: &mut Pc, file: &[u8]) -> Result<(), StateError> {
        self.chips.fits(machine)?;
        let now = machine.board.time();
        let clock_ms = if self.foreign { self.chips.cpu.tsc as f64 / 1e6 } else { 0.0 };
        self.chips.apply(machine, &Moment { now, clock_ms, file });
        let board = &mut machine.board;
        _ = board.take_request();
        board.synchronize(machine.cpu.mem_mut());
        // What drives and readers of files were waiting for at the save may be there.
        board.media_arrived(machine.cpu.mem_mut());
        board.files_arrived(machine.cpu.mem_mut());
        // Whoever was asked for files of the host was asked by another machine.
        board.shares_lost(machine.cpu.mem_mut());
        Ok(())
    }
}
