//! Split virtqueues (virtio 1.1, 2.6), as the device sees them.
//!
//! Everything in the rings is the guest's: indices, addresses, lengths and links are checked, and a
//! chain of descriptors that cannot be right is an error and never a read or write elsewhere.

use env86_emu::Memory;
use thiserror::Error;

/// Descriptor: another one follows.
const DESC_F_NEXT: u16 = 1;
/// Descriptor: the device writes, else it reads.
const DESC_F_WRITE: u16 = 2;
/// Descriptor: it points at a table of descriptors.
const DESC_F_INDIRECT: u16 = 4;
/// Bytes in a descriptor: address 8, length 4, flags 2, next 2.
const DESC_SIZE: u32 = 16;
/// Available ring: the driver wants no interrupts.
const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Offset of the index in both rings.
const RING_IDX: u32 = 2;
/// Offset of the elements in both rings.
const RING_ELEMENTS: u32 = 4;
/// The most descriptors in an indirect table; Linux uses up to 128 for 9p.
const MAX_INDIRECT: u32 = 1024;

/// What the driver did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// More requests than the ring has room for.
    #[error("Available index {index} is more than the ring's size ahead of {last}")]
    AvailableIndex {
        /// The driver's index.
        index: u16,
        /// The device's.
        last: u16,
    },
    /// A descriptor that is not in its table.
    #[error("Descriptor {0} does not exist")]
    NoSuchDescriptor(u32),
    /// A chain that is longer than its table, so it goes round.
    #[error("Descriptors form a loop")]
    Loop,
    /// Bytes that are not in RAM.
    #[error("Buffer at {addr:#x}, {len:#x} bytes, is not in RAM")]
    NotRam {
        /// The physical address.
        addr: u64,
        /// Bytes.
        len: u32,
    },
    /// An indirect table in an indirect table, of an impossible size, or not negotiated.
    #[error("Indirect descriptor where none can be")]
    Indirect,
    /// A buffer to read behind one to write.
    #[error("Readable buffer behind a writable one")]
    Order,
}

/// The features of a queue that were negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub event_idx: bool,
}

/// Bytes in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Physical address.
    pub addr: u32,
    /// Bytes.
    pub len: u32,
}

/// One request: the buffers of a chain of descriptors, all in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The first descriptor, by which the request is given back.
    pub head: u16,
    /// What the device reads.
    pub readable: Vec<Buffer>,
    /// What the device writes.
    pub writable: Vec<Buffer>,
}

impl Chain {
    /// Bytes that can be read.
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(|b| u64::from(b.len)).sum()
    }

    /// Bytes that can be written.
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(|b| u64::from(b.len)).sum()
    }

    /// Replaces `bytes` by what can be read, up to `max` bytes.
    pub fn read(&self, mem: &Memory, bytes: &mut Vec<u8>, max: usize) {
        bytes.clear();
        for buffer in &self.readable {
            let start = bytes.len();
            let n = (max - start).min(buffer.len as usize);
            bytes.resize(start + n, 0);
            mem.read(buffer.addr, &mut bytes[start..]);
        }
    }

    /// Writes as much as there is room for; returns how much.
    pub fn write(&self, mem: &mut Memory, bytes: &[u8]) -> u32 {
        let mut rest = bytes;
        for buffer in &self.writable {
            let (now, later) = rest.split_at(rest.len().min(buffer.len as usize));
            mem.write(buffer.addr, now);
            rest = later;
        }
        (bytes.len() - rest.len()) as u32
    }
}

/// A queue: where its rings are, and how far the device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Descriptors, a power of two.
    pub size: u16,
    /// The most descriptors that the device allows.
    pub size_supported: u16,
    /// Whether the driver has set it up.
    pub enabled: bool,
    /// Where the driver notifies, in units of the notify multiplier.
    pub notify_offset: u16,
    /// Physical address of the descriptor table.
    pub desc_addr: u32,
    /// Physical address of the available ring.
    pub avail_addr: u32,
    /// Physical address of the used ring.
    pub used_addr: u32,
    /// The free-running index of the next request.
    pub avail_last_idx: u16,
    /// Requests given back that the used index does not show yet.
    pub num_staged_replies: u16,
    /// `avail_last_idx` comes from an old v86 state, which kept it modulo the size: it is completed
    /// when it is next used.
    pub masked_idx: bool,
}

impl Queue {
    /// A queue as it is before the driver sets it up.
    pub fn new(size: u16, notify_offset: u16) -> Self {
        Self {
            size,
            size_supported: size,
            enabled: false,
            notify_offset,
            desc_addr: 0,
            avail_addr: 0,
            used_addr: 0,
            avail_last_idx: 0,
            num_staged_replies: 0,
            masked_idx: false,
        }
    }

    /// Forgets what the driver set up.
    pub fn reset(&mut self) {
        *self = Self::new(self.size_supported, self.notify_offset);
    }

    /// Sets the size as the driver wishes, within what is possible.
    pub fn set_size(&mut self, size: u16) {
        let rounded = size.checked_next_power_of_two().unwrap_or(self.size_supported);
        self.size = rounded.min(self.size_supported);
    }

    fn slot(&self, index: u16) -> u32 {
        (index & self.size.wrapping_sub(1)).into()
    }

    fn avail_idx(&self, mem: &Memory) -> u16 {
        mem.read_u16(self.avail_addr.wrapping_add(RING_IDX))
    }

    /// Requests that the driver has made and that have not been taken.
    pub fn waiting(&self, mem: &Memory) -> u16 {
        match self.masked_idx {
            // They cannot be counted before the next one is taken.
            true => self.size,
            false => self.avail_idx(mem).wrapping_sub(self.avail_last_idx),
        }
    }

    /// Takes the next request. When there is none, the driver is asked to notify of the next.
    pub fn pop(&mut self, mem: &mut Memory, features: Features) -> Result<Option<Chain>, QueueError> {
        let index = self.avail_idx(mem);
        if self.masked_idx {
            self.masked_idx = false;
            let mask = self.size.wrapping_sub(1);
            self.avail_last_idx = index & !mask | self.avail_last_idx & mask;
        }
        let last = self.avail_last_idx;
        if index == last {
            if features.event_idx {
                let avail_event = RING_ELEMENTS + 8 * u32::from(self.size);
                mem.write_u16(self.used_addr.wrapping_add(avail_event), last);
            }
            return Ok(None);
        }
        if index.wrapping_sub(last) > self.size {
            return Err(QueueError::AvailableIndex { index, last });
        }
        let element = self.avail_addr.wrapping_add(RING_ELEMENTS + 2 * self.slot(last));
        let chain = self.chain(mem, mem.read_u16(element), features)?;
        self.avail_last_idx = last.wrapping_add(1);
        Ok(Some(chain))
    }

    /// The buffers of the chain that begins with a descriptor.
    pub fn chain(&self, mem: &Memory, head: u16, features: Features) -> Result<Chain, QueueError> {
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let (mut table, mut entries) = (self.desc_addr, u32::from(self.size));
        let mut index = u32::from(head);
        let mut in_indirect = false;
        let mut left = entries;
        loop {
            if index >= entries {
                return Err(QueueError::NoSuchDescriptor(index));
            }
            left = left.checked_sub(1).ok_or(QueueError::Loop)?;
            let at = table.wrapping_add(DESC_SIZE * index);
            let (addr, len) = (mem.read_u64(at), mem.read_u32(at.wrapping_add(8)));
            let flags = mem.read_u16(at.wrapping_add(12));
            let buffer = ram(mem, addr, len)?;

            if flags & DESC_F_INDIRECT != 0 {
                let misplaced = in_indirect || !features.indirect || flags & DESC_F_NEXT != 0;
                let count = len / DESC_SIZE;
                if misplaced || !len.is_multiple_of(DESC_SIZE) || !(1..=MAX_INDIRECT).contains(&count) {
                    return Err(QueueError::Indirect);
                }
                (table, entries, left, index) = (buffer.addr, count, count, 0);
                in_indirect = true;
                continue;
            }
            if flags & DESC_F_WRITE != 0 {
                chain.writable.push(buffer);
            } else if chain.writable.is_empty() {
                chain.readable.push(buffer);
            } else {
                return Err(QueueError::Order);
            }
            if flags & DESC_F_NEXT == 0 {
                return Ok(chain);
            }
            index = mem.read_u16(at.wrapping_add(14)).into();
        }
    }

    /// Gives a request back with the number of bytes written. [`Self::flush`] shows it to the driver.
    pub fn push(&mut self, mem: &mut Memory, head: u16, written: u32) {
        let used = mem.read_u16(self.used_addr.wrapping_add(RING_IDX));
        let slot = self.slot(used.wrapping_add(self.num_staged_replies));
        let element = self.used_addr.wrapping_add(RING_ELEMENTS + 8 * slot);
        mem.write_u32(element, head.into());
        mem.write_u32(element.wrapping_add(4), written);
        self.num_staged_replies = self.num_staged_replies.wrapping_add(1);
    }

    /// Shows the driver what was given back. Returns whether it wants an interrupt.
    pub fn flush(&mut self, mem: &mut Memory, features: Features) -> bool {
        let staged = std::mem::take(&mut self.num_staged_replies);
        if staged == 0 {
            return false;
        }
        let idx_addr = self.used_addr.wrapping_add(RING_IDX);
        let old = mem.read_u16(idx_addr);
        let new = old.wrapping_add(staged);
        mem.write_u16(idx_addr, new);
        if features.event_idx {
            let used_event = self.avail_addr.wrapping_add(RING_ELEMENTS + 2 * u32::from(self.size));
            let event = mem.read_u16(used_event);
            new.wrapping_sub(event).wrapping_sub(1) < staged
        } else {
            mem.read_u16(self.avail_addr) & AVAIL_F_NO_INTERRUPT == 0
        }
    }
}

/// A buffer, if it is in RAM from end to end. One of no bytes is anywhere.
fn ram(mem: &Memory, addr: u64, len: u32) -> Result<Buffer, QueueError> {
    let start = u32::try_from(addr).ok().filter(|&start| len == 0 || mem.slice(start, len).is_some());
    Ok(Buffer { addr: start.ok_or(QueueError::NotRam { addr, len })?, len })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Driver;
    use super::*;

    const PLAIN: Features = Features { indirect: false, event_idx: false };
    const ALL: Features = Features { indirect: true, event_idx: true };

    fn setup() -> (Box<Memory>, Driver, Queue) {
        let driver = Driver::new(0x1000, 8);
        let mut queue = Queue::new(8, 0);
        driver.place(&mut queue);
        (Memory::new(1 << 20).unwrap(), driver, queue)
    }

    #[test]
    fn a_chain_comes_and_goes() {
        let (mut mem, mut driver, mut queue) = setup();
        mem.write(0x8000, b"hello ");
        mem.write(0x9000, b"world");
        driver.descriptor(&mut mem, 3, 0x8000, 6, DESC_F_NEXT, 5);
        driver.descriptor(&mut mem, 5, 0x9000, 5, DESC_F_NEXT, 0);
        driver.descriptor(&mut mem, 0, 0xa000, 4, DESC_F_WRITE | DESC_F_NEXT, 1);
        driver.descriptor(&mut mem, 1, 0xb000, 4, DESC_F_WRITE, 7);
        driver.offer(&mut mem, 3);
        let chain = queue.pop(&mut mem, PLAIN).unwrap().unwrap();
        assert_eq!((chain.head, chain.readable_len(), chain.writable_len()), (3, 11, 8));
        let mut bytes = vec![1; 3];
        chain.read(&mem, &mut bytes, 100);
        assert_eq!(bytes, b"hello world");
        chain.read(&mem, &mut bytes, 7);
        assert_eq!(bytes, b"hello w");
        assert_eq!(chain.write(&mut mem, b"abcdef"), 6);
        assert_eq!((mem.read_u32(0xa000).to_le_bytes(), mem.read_u16(0xb000)), (*b"abcd", 0x6665));
        assert_eq!(chain.write(&mut mem, &[0; 20]), 8);
        assert_eq!(queue.pop(&mut mem, PLAIN), Ok(None));
        queue.push(&mut mem, 3, 6);
        assert_eq!(driver.taken(&mem), None, "staged");
        assert!(queue.flush(&mut mem, PLAIN));
        assert_eq!(driver.taken(&mem), Some((3, 6)));
        assert!(!queue.flush(&mut mem, PLAIN));
    }

    #[test]
    fn indices_run_round() {
        let (mut mem, mut driver, mut queue) = setup();
        driver.descriptor(&mut mem, 0, 0x8000, 4, 0, 0);
        for i in 0..70_000u32 {
            driver.offer(&mut mem, 0);
            assert!(queue.pop(&mut mem, PLAIN).unwrap().is_some(), "{i}");
            queue.push(&mut mem, 0, i);
            queue.flush(&mut mem, PLAIN);
            assert_eq!(driver.taken(&mem), Some((0, i)));
        }
    }

    #[test]
    fn indirect_tables() {
        let (mut mem, mut driver, mut queue) = setup();
        let inner = Driver::new(0x4000, 8);
        for i in 0..100 {
            let flags = if i < 99 { DESC_F_NEXT } else { 0 };
            inner.descriptor(&mut mem, i, 0x8000 + u64::from(i) * 16, 16, flags, i + 1);
        }
        driver.descriptor(&mut mem, 2, 0x4000, 1600, DESC_F_INDIRECT, 0);
        driver.offer(&mut mem, 2);
        assert_eq!(queue.clone().pop(&mut mem, PLAIN), Err(QueueError::Indirect), "not negotiated");
        assert_eq!(queue.pop(&mut mem, ALL).unwrap().unwrap().readable.len(), 100);

        let errors = [
            (0x4000, 8, DESC_F_INDIRECT, QueueError::Indirect),
            (0x4000, 0, DESC_F_INDIRECT, QueueError::Indirect),
            (0x4000, 16 * 1025, DESC_F_INDIRECT, QueueError::Indirect),
            (0x4000, 16, DESC_F_INDIRECT | DESC_F_NEXT, QueueError::Indirect),
            (0x4000, 16, DESC_F_INDIRECT, QueueError::NoSuchDescriptor(1)),
        ];
        for (addr, len, flags, error) in errors {
            driver.descriptor(&mut mem, 2, addr, len, flags, 0);
            assert_eq!(queue.chain(&mem, 2, ALL), Err(error));
        }
        inner.descriptor(&mut mem, 0, 0x4000, 16, DESC_F_INDIRECT, 0);
        assert_eq!(queue.chain(&mem, 2, ALL), Err(QueueError::Indirect), "inside another");
    }

    #[test]
    fn hostile_chains() {
        let (mut mem, driver, mut queue) = setup();
        driver.descriptor(&mut mem, 0, 0x8000, 4, DESC_F_NEXT, 1);
        driver.descriptor(&mut mem, 1, 0x8000, 4, DESC_F_NEXT, 0);
        assert_eq!(queue.chain(&mem, 0, ALL), Err(QueueError::Loop));
        driver.descriptor(&mut mem, 1, 0x8000, 4, DESC_F_NEXT, 8);
        assert_eq!(queue.chain(&mem, 0, ALL), Err(QueueError::NoSuchDescriptor(8)));
        assert_eq!(queue.chain(&mem, 0xffff, ALL), Err(QueueError::NoSuchDescriptor(0xffff)));
        driver.descriptor(&mut mem, 1, 0x8000, 4, DESC_F_WRITE | DESC_F_NEXT, 2);
        driver.descriptor(&mut mem, 2, 0x8000, 4, 0, 0);
        assert_eq!(queue.chain(&mem, 0, ALL), Err(QueueError::Order));
        for (addr, len) in [
            (0x10_0000, 1),
            (0xf_fff0, 0x11),
            (0x9_fff0, 0x20),
            (0x1_0000_0000, 4),
            (16, u32::MAX),
            (u64::MAX, 2),
        ] {
            driver.descriptor(&mut mem, 0, addr, len, 0, 0);
            assert_eq!(queue.chain(&mem, 0, ALL), Err(QueueError::NotRam { addr, len }));
        }
        mem.write_u16(driver.avail + 2, 9);
        assert_eq!(queue.pop(&mut mem, ALL), Err(QueueError::AvailableIndex { index: 9, last: 0 }));
    }

    #[test]
    fn interrupts_and_notifications_when_asked_for() {
        let (mut mem, mut driver, mut queue) = setup();
        mem.write_u16(driver.avail, AVAIL_F_NO_INTERRUPT);
        queue.push(&mut mem, 0, 0);
        assert!(!queue.flush(&mut mem, PLAIN));
        queue.push(&mut mem, 0, 0);
        assert!(!queue.flush(&mut mem, ALL), "used_event 0 has passed");
        mem.write_u16(driver.avail + 4 + 16, 2);
        queue.push(&mut mem, 0, 0);
        assert!(queue.flush(&mut mem, ALL));
        driver.descriptor(&mut mem, 0, 0x8000, 4, 0, 0);
        driver.offer(&mut mem, 0);
        queue.pop(&mut mem, ALL).unwrap();
        assert_eq!(queue.pop(&mut mem, ALL), Ok(None));
        assert_eq!(mem.read_u16(driver.used + 4 + 64), 1, "avail_event");
    }

    #[test]
    fn an_old_states_index_is_completed() {
        let (mut mem, driver, mut queue) = setup();
        driver.descriptor(&mut mem, 0, 0x8000, 4, 0, 0);
        mem.write_u16(driver.avail + 2, 0x1235);
        (queue.avail_last_idx, queue.masked_idx) = (4, true);
        assert!(queue.pop(&mut mem, PLAIN).unwrap().is_some());
        assert_eq!((queue.avail_last_idx, queue.masked_idx), (0x1235, false));
    }

    #[test]
    fn sizes_are_powers_of_two_within_the_limit() {
        let mut queue = Queue::new(32, 0);
        for (wanted, size) in [(16, 16), (5, 8), (64, 32), (0xffff, 32), (0, 1), (1, 1)] {
            queue.set_size(wanted);
            assert_eq!(queue.size, size);
        }
        queue.reset();
        assert_eq!(queue, Queue::new(32, 0));
    }
}
