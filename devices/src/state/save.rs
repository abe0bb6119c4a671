//! From a machine to a state.

use super::chip::{Chip, Writer};
use super::container::Saved;
use super::{StateError, for_each_chip};
use crate::pc::Pc;
use xxhash_rust::xxh3::Xxh3;

/// Saves a machine, which may run on afterwards. The memory is not copied: the machine stays
/// borrowed until the state has been written.
///
/// What the guest has sent and nobody has taken is not part of the state; take it before.
///
/// `touched` says of a page of memory, by number, whether it can hold anything but zeros: a host that
/// knows which pages were never used saves the time to look at them.
pub fn save<'m>(machine: &'m mut Pc, touched: &dyn Fn(usize) -> bool) -> Result<Saved<'m>, StateError> {
    let now = machine.board.time();
    let unix_ms = machine.board.clock().unix_millis();
    let mut writer = Writer::new(now, unix_ms, touched);
    macro_rules! prepare {
        ($($chip:ident),*) => { $( <super::$chip::Saved as Chip>::prepare(machine, &mut writer)?; )* };
    }
    for_each_chip!(prepare);
    let machine = &*machine;
    macro_rules! write {
        ($($chip:ident),*) => { $( <super::$chip::Saved as Chip>::write(machine, &mut writer)?; )* };
    }
    for_each_chip!(write);
    writer.finish()
}

/// A number that two machines share only if all of their states are alike. Which image the machine
/// comes from is no part of it.
pub fn digest(machine: &mut Pc) -> Result<u64, StateError> {
    let image = machine.passengers.image.take();
    let mut hasher = Xxh3::new();
    let saved = save(machine, &|_| true).map(|saved| saved.pieces().for_each(|piece| hasher.update(piece)));
    machine.passengers.image = image;
    saved?;
    Ok(hasher.digest())
}
