//! The way to folders by the machine's device for them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use env86_devices::virtio::p9::wire::request;

use super::{Folders, Share};
use crate::machine::ports::Desk;
use crate::machine::shares;

/// A machine's device, and what is served there.
#[derive(Clone, Debug)]
pub(in crate::guest) struct Device {
    desk: Arc<Desk>,
    folders: Arc<Mutex<Folders>>,
}

impl Device {
    /// The device of the machine at this desk, with nothing behind it yet.
    pub fn new(desk: &Arc<Desk>) -> Self {
        Self { desk: desk.clone(), folders: Arc::default() }
    }

    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a folder, by the number that this gives.
    pub fn add(&self, share: Share) -> io::Result<usize> {
        let number = self.folders().add(share);
        let own = self.clone();
        let server = move |message: &mut [u8], reply: &mut Vec<u8>| {
            count_data(message);
            own.folders().handle(message, reply);
        };
        shares::serve(&self.desk, Box::new(server))?;
        self.desk.shares.answer_at_once(self.folders().are_local());
        Ok(number)
    }

    /// Serves it no more, because the guest has not mounted it.
    pub fn withdraw(&self, number: usize) {
        self.folders().withdraw(number);
        self.desk.shares.answer_at_once(self.folders().are_local());
    }
}

/// Linux before 4.18 sends the data of a write behind a message that does not count them.
fn count_data(message: &mut [u8]) {
    let len = message.len() as u32;
    if let Some((size, [request::WRITE, ..])) = message.split_first_chunk_mut() {
        let counted = u32::from_le_bytes(*size);
        *size = counted.max(len).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_behind_a_write_belong_to_it() {
        let mended = |size: u32, kind| {
            let mut message = [&size.to_le_bytes()[..], &[kind, 1, 0, 9, 9, 9]].concat();
            count_data(&mut message);
            u32::from_le_bytes(*message.first_chunk().unwrap())
        };
        assert_eq!(mended(7, request::WRITE), 10);
        assert_eq!(mended(11, request::WRITE), 11);
        assert_eq!(mended(7, request::READ), 7);
        count_data(&mut [1, 2]);
    }
}
