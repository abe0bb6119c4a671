//! A driver's side of a queue, for tests.

use super::queue::Queue;
use env86_emu::Memory;

/// Rings in guest memory.
#[derive(Clone, Debug)]
pub struct Driver {
    pub desc: u32,
    pub avail: u32,
    pub used: u32,
    pub size: u16,
    avail_idx: u16,
    used_idx: std::cell::Cell<u16>,
}

impl Driver {
    /// Rings in 4 KiB from an address on.
    pub fn new(base: u32, size: u16) -> Self {
        Self { desc: base, avail: base + 0x800, used: base + 0xa00, size, avail_idx: 0, used_idx: 0.into() }
    }

    /// Tells the device where the rings are.
    pub fn place(&self, queue: &mut Queue) {
        (queue.desc_addr, queue.avail_addr, queue.used_addr) = (self.desc, self.avail, self.used);
        queue.size = self.size;
        queue.enabled = true;
    }

    pub fn descriptor(&self, mem: &mut Memory, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = self.desc + 16 * u32::from(index);
        mem.write_u64(at, addr);
        mem.write_u32(at + 8, len);
        mem.write_u16(at + 12, flags);
        mem.write_u16(at + 14, next);
    }

    /// Makes a chain available.
    pub fn offer(&mut self, mem: &mut Memory, head: u16) {
        mem.write_u16(self.avail + 4 + 2 * u32::from(self.avail_idx & (self.size - 1)), head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        mem.write_u16(self.avail + 2, self.avail_idx);
    }

    /// The next chain that the device has given back, and the bytes it wrote.
    pub fn taken(&self, mem: &Memory) -> Option<(u32, u32)> {
        let idx = self.used_idx.get();
        if mem.read_u16(self.used + 2) == idx {
            return None;
        }
        let at = self.used + 4 + 8 * u32::from(idx & (self.size - 1));
        self.used_idx.set(idx.wrapping_add(1));
        Some((mem.read_u32(at), mem.read_u32(at + 4)))
    }
}
