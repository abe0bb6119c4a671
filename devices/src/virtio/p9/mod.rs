//! virtio-9p: the filesystem as a PCI device, one queue of 9P2000.L messages.

pub mod server;
pub mod wire;

use super::{Action, BAR_DEVICE, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Transport, queue::Chain};
use crate::fs::{BlobStore, Errno, Filesystem, Timestamp};
use crate::pci::{ConfigSpace, Function, devfn};
use env86_emu::{Memory, Width};
use server::{MAX_MSIZE, Outcome, Server};
use wire::request;

/// Where the device sits.
pub const DEVFN: u8 = devfn(6, 0);
/// The name that a guest mounts.
pub const MOUNT_TAG: &[u8] = b"host9p";

/// Feature bit 0: the configuration has the mount tag.
const F_MOUNT_TAG: u32 = 1;
const DEVICE_TYPE: u16 = 9;
/// Ports at power-up, by base address.
const PORTS: [u16; 4] = [0xa800, 0xa900, 0xa700, 0xa600];
/// Bytes of the configuration: the tag's length in 2 bytes and room for the tag.
const CONFIG_LENGTH: u16 = 256;
const QUEUE: usize = 0;
pub(crate) const QUEUE_SIZE: u16 = 32;

/// The device.
pub struct Virtio9p {
    /// The registers and the queue.
    pub transport: Transport,
    /// The server behind the queue.
    pub server: Server,
    /// Requests that wait for the image's content: the first descriptors of their chains.
    pub held: Vec<u16>,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Virtio9p {
    /// A device that serves a filesystem, with the contents of its image.
    pub fn new(fs: Filesystem, store: Box<dyn BlobStore>) -> Self {
        let features = [F_MOUNT_TAG | F_INDIRECT_DESC | F_EVENT_IDX, F_VERSION_1, 0, 0];
        Self {
            transport: Transport::new(features, &[(QUEUE_SIZE, 0)]),
            server: Server::new(fs, store),
            held: Vec::new(),
            request: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// The level of the interrupt pin.
    pub fn irq(&self) -> bool {
        self.transport.irq()
    }

    /// The machine's reset: the guest starts anew, the files stay.
    pub fn reset(&mut self) {
        self.transport.reset();
        self.held.clear();
        self.server.reset();
    }

    /// Reads a port of a base address.
    pub fn port_read(&mut self, bar: usize, offset: u16, width: Width) -> u32 {
        let mut config = [0; CONFIG_LENGTH as usize];
        if bar == BAR_DEVICE {
            config[..2].copy_from_slice(&(MOUNT_TAG.len() as u16).to_le_bytes());
            config[2..2 + MOUNT_TAG.len()].copy_from_slice(MOUNT_TAG);
        }
        self.transport.port_read(&config, bar, offset, width)
    }

    /// Writes a port of a base address. `unix_now` is the time of day in nanoseconds since 1970.
    pub fn port_write(
        &mut self,
        mem: &mut Memory,
        bar: usize,
        offset: u16,
        width: Width,
        value: u32,
        unix_now: u64,
    ) {
        match self.transport.port_write(bar, offset, width, value) {
            Action::Reset => self.reset(),
            Action::DriverOk | Action::Notify(QUEUE) => self.serve(mem, unix_now),
            Action::Notify(_) | Action::None => {}
        }
    }

    /// Tries again what waits for the image's content. The host calls it when some has come.
    pub fn poll(&mut self, mem: &mut Memory, unix_now: u64) {
        for head in std::mem::take(&mut self.held) {
            if let Some(chain) = self.transport.chain(mem, QUEUE, head) {
                self.answer(mem, &chain, unix_now);
            }
        }
    }

    /// Answers what is in the queue: at most as much as it can hold, even if answers are written
    /// where the queue is.
    fn serve(&mut self, mem: &mut Memory, unix_now: u64) {
        for _ in 0..=QUEUE_SIZE {
            let Some(chain) = self.transport.pop(mem, QUEUE) else { break };
            self.answer(mem, &chain, unix_now);
        }
    }

    /// Answers one request, or holds it.
    fn answer(&mut self, mem: &mut Memory, chain: &Chain, unix_now: u64) {
        chain.read(mem, &mut self.request, MAX_MSIZE as usize);
        if let Some((request::FLUSH, old_tag)) = flush_of(&self.request) {
            self.flush(mem, old_tag);
            chain.read(mem, &mut self.request, MAX_MSIZE as usize);
        }
        let capacity = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
        let now = Timestamp::from_unix_ns(unix_now);
        match self.server.handle(&self.request, capacity, now, &mut self.reply) {
            Outcome::Done => self.complete(mem, chain),
            Outcome::Pending if self.held.len() < usize::from(QUEUE_SIZE) => self.held.push(chain.head),
            // More than the queue has room for: a driver that offers a descriptor twice.
            Outcome::Pending => {
                wire::fail(&mut self.reply, tag_of(&self.request), Errno::EIO);
                self.complete(mem, chain);
            }
        }
    }

    fn complete(&mut self, mem: &mut Memory, chain: &Chain) {
        let written = chain.write(mem, &self.reply);
        self.transport.complete(mem, QUEUE, chain.head, written);
    }

    /// Gives back the requests of a tag that are being held: they were interrupted.
    fn flush(&mut self, mem: &mut Memory, old_tag: u16) {
        for head in std::mem::take(&mut self.held) {
            let Some(chain) = self.transport.chain(mem, QUEUE, head) else { continue };
            chain.read(mem, &mut self.request, wire::HEADER);
            if tag_of(&self.request) == old_tag {
                wire::fail(&mut self.reply, old_tag, Errno::EINTR);
                self.complete(mem, &chain);
            } else {
                self.held.push(head);
            }
        }
    }
}

impl Function for Virtio9p {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        self.transport.config_space(DEVICE_TYPE, PORTS, CONFIG_LENGTH)
    }
}

/// The tag of a message.
pub(super) fn tag_of(message: &[u8]) -> u16 {
    message.get(5..7).map_or(u16::MAX, |tag| u16::from_le_bytes([tag[0], tag[1]]))
}

/// The type of a message and the tag in its first field.
fn flush_of(message: &[u8]) -> Option<(u8, u16)> {
    Some((*message.get(4)?, u16::from_le_bytes(*message.get(7..)?.first_chunk()?)))
}

#[cfg(test)]
mod tests;
