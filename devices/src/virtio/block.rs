//! virtio-blk (virtio 1.2, 5.2): a disk for guests that have a driver for it. A request moves as much as the
//! driver likes, from and to wherever in memory, where IDE moves 64 KiB of a region at most.
//!
//! Requests are served in their order and at once. One whose medium answers later is made the next one again
//! until its data have come.

use super::queue::{Buffer, Chain};
use super::{Action, BAR_DEVICE, F_INDIRECT_DESC, F_VERSION_1, Transport};
use crate::board::device::{Access, Context, Device, Lines, Plug};
use crate::ide::{DiskImageError, Medium};
use crate::pci::{ConfigSpace, Function, devfn};
use env86_emu::{Memory, Width};
use std::task::{Poll, ready};

/// Where the device sits.
pub const DEVFN: u8 = devfn(13, 0);
/// Feature bit 1: no segment is larger than the configuration says.
const F_SIZE_MAX: u32 = 1 << 1;
/// Feature bit 2: no request has more segments than the configuration says.
const F_SEG_MAX: u32 = 1 << 2;
/// Feature bit 6: the configuration says how large a block is.
const F_BLK_SIZE: u32 = 1 << 6;
/// Feature bit 9: what was written is safe after a flush.
const F_FLUSH: u32 = 1 << 9;
const DEVICE_TYPE: u16 = 2;
/// I/O ports at power-up, by base address.
const IO_PORTS: [u16; 4] = [0xe800, 0xe900, 0xe700, 0xe600];
/// Bytes of the configuration: capacity 8, size_max 4, seg_max 4, geometry 4, blk_size 4.
const CONFIG_LENGTH: usize = 24;
const REQUESTS: usize = 0;
/// Size and notify offset. Linux moves up to 1280 KiB by a request; a queue of this size has room for the pages of it.
const QUEUE: (u16, u16) = (512, 0);
/// Bytes of a segment.
const SIZE_MAX: u32 = 64 << 10;
/// Segments of a request: its header and its status have descriptors, too.
const SEG_MAX: u32 = QUEUE.0 as u32 - 2;
/// Bytes that a request moves at most: no less than the segments of a driver that keeps to the limits.
const MAX_DATA: u64 = SIZE_MAX as u64 * SEG_MAX as u64;
/// The medium is asked for so many bytes at once.
const PIECE: u64 = 64 << 10;

/// Bytes of a sector, in which requests and capacity count.
pub const SECTOR: u64 = 512;
/// Bytes of a request's header: type 4, reserved 4, sector 8.
const HEADER: usize = 16;
/// What [`request::GET_ID`] gives.
const ID: &[u8; 20] = b"env86-virtio-disk\0\0\0";

/// Types of requests (5.2.6).
mod request {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
}

/// What became of a request.
mod status {
    pub const OK: u8 = 0;
    pub const IOERR: u8 = 1;
    pub const UNSUPP: u8 = 2;
}

/// The device.
#[derive(Clone, Debug)]
pub struct VirtioBlock {
    /// The registers and the queue.
    pub transport: Transport,
    /// What is in it.
    pub medium: Medium,
    /// Bytes that the request that waits for its medium has got already.
    done: u64,
    /// It waits.
    waits: bool,
    /// The medium has been asked for data, which may have been there at once.
    asked: bool,
}

impl VirtioBlock {
    /// A disk.
    pub fn new(medium: Medium) -> Self {
        let features = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_INDIRECT_DESC;
        let transport = Transport::new([features, F_VERSION_1, 0, 0], &[QUEUE]);
        Self { transport, medium, done: 0, waits: false, asked: false }
    }

    /// Sectors of the disk; a last one that is not whole counts.
    pub fn sectors(&self) -> u64 {
        self.medium.sectors(SECTOR)
    }

    /// A request waits for data from the medium.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Forgets what the driver has set up, and what it has asked for.
    fn restart(&mut self) {
        self.transport.reset();
        (self.done, self.waits) = (0, false);
    }

    fn config(&self) -> [u8; CONFIG_LENGTH] {
        let mut config = [0; CONFIG_LENGTH];
        config[..8].copy_from_slice(&self.sectors().to_le_bytes());
        config[8..12].copy_from_slice(&SIZE_MAX.to_le_bytes());
        config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
        config[20..].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        config
    }

    /// Reads a port of a base address.
    pub fn port_read(&mut self, bar: usize, offset: u16, width: Width) -> u32 {
        let config = self.config();
        self.transport.port_read(if bar == BAR_DEVICE { &config } else { &[] }, bar, offset, width)
    }

    /// Writes a port of a base address.
    pub fn port_write(&mut self, mem: &mut Memory, bar: usize, offset: u16, width: Width, value: u32) {
        match self.transport.port_write(bar, offset, width, value) {
            Action::None => {}
            Action::Reset => self.restart(),
            Action::DriverOk | Action::Notify(_) => self.serve(mem),
        }
    }

    /// Data that a request waits for may have come.
    pub fn media_arrived(&mut self, mem: &mut Memory) {
        self.serve(mem);
        // It was no instruction that has asked again.
        self.asked = false;
    }

    /// Serves the requests: at most as many as the queue can hold.
    fn serve(&mut self, mem: &mut Memory) {
        self.waits = false;
        for _ in 0..QUEUE.0 {
            let Some(chain) = self.transport.pop(mem, REQUESTS) else { break };
            match self.execute(mem, &chain) {
                Poll::Ready(written) => self.transport.complete(mem, REQUESTS, chain.head, written),
                Poll::Pending => {
                    self.transport.put_back(REQUESTS, 1);
                    self.waits = true;
                    return;
                }
            }
            self.done = 0;
        }
        // A driver that takes back the request that waits has none that waits.
        self.done = 0;
    }

    /// Executes a request; gives the bytes that it has put into the driver's buffers, from the first on.
    fn execute(&mut self, mem: &mut Memory, chain: &Chain) -> Poll<u32> {
        let mut header = [0; HEADER];
        get(mem, &chain.readable, 0, &mut header);
        let Some(room) = chain.writable_len().checked_sub(1) else { return Poll::Ready(0) };
        let number = u128::from_le_bytes(header);
        let (kind, sector) = (number as u32, (number >> 64) as u64);
        let (status, written) = match (chain.readable_len().checked_sub(HEADER as u64), kind) {
            (Some(_), request::IN) => ready!(self.read(mem, chain, sector, room)),
            (Some(len), request::OUT) => (self.write(mem, chain, sector, len), 0),
            (Some(_), request::FLUSH) => {
                (if self.medium.flush().is_ok() { status::OK } else { status::IOERR }, 0)
            }
            (Some(_), request::GET_ID) => {
                let id = &ID[..room.min(ID.len() as u64) as usize];
                put(mem, &chain.writable, 0, id);
                (status::OK, id.len() as u32)
            }
            (Some(_), _) => (status::UNSUPP, 0),
            (None, _) => (status::IOERR, 0),
        };
        put(mem, &chain.writable, room, &[status]);
        // The status does not count where nothing has been put right before it (2.7.8.2).
        Poll::Ready(if u64::from(written) == room { written + 1 } else { written })
    }

    /// Where `len` bytes from a sector on are on the medium, if they are.
    fn place(&self, sector: u64, len: u64) -> Option<u64> {
        let behind = sector.checked_add(len / SECTOR)?;
        let there = len.is_multiple_of(SECTOR) && len <= MAX_DATA && behind <= self.sectors();
        there.then(|| sector * SECTOR)
    }

    fn read(&mut self, mem: &mut Memory, chain: &Chain, sector: u64, len: u64) -> Poll<(u8, u32)> {
        let Some(offset) = self.place(sector, len) else { return Poll::Ready((status::IOERR, 0)) };
        let mut piece = vec![0; PIECE.min(len) as usize];
        while self.done < len {
            let piece = &mut piece[..PIECE.min(len - self.done) as usize];
            self.asked = true;
            if ready!(self.medium.read(offset + self.done, piece)).is_err() {
                return Poll::Ready((status::IOERR, self.done as u32));
            }
            put(mem, &chain.writable, self.done, piece);
            self.done += piece.len() as u64;
        }
        Poll::Ready((status::OK, len as u32))
    }

    fn write(&mut self, mem: &Memory, chain: &Chain, sector: u64, len: u64) -> u8 {
        let Some(offset) = self.place(sector, len) else { return status::IOERR };
        if self.put_on_medium(mem, chain, offset, len).is_err() {
            return status::IOERR;
        }
        // Without flushes of its own, a driver takes what is written for safe (5.2.6.2).
        let safe = self.transport.has_feature(F_FLUSH) || self.medium.flush().is_ok();
        if safe { status::OK } else { status::IOERR }
    }

    /// Writes the `len` bytes behind a request's header: from the guest's memory, where that can be, else in pieces.
    fn put_on_medium(
        &mut self,
        mem: &Memory,
        chain: &Chain,
        offset: u64,
        len: u64,
    ) -> Result<(), DiskImageError> {
        let parts = behind(&chain.readable, HEADER as u64).map(|(addr, len)| mem.slice(addr, len as u32));
        if let Some(parts) = parts.collect::<Option<Vec<_>>>()
            && self.medium.write_parts(offset, &parts)?
        {
            return Ok(());
        }
        let mut piece = vec![0; PIECE.min(len) as usize];
        let mut done = 0;
        while done < len {
            let piece = &mut piece[..PIECE.min(len - done) as usize];
            get(mem, &chain.readable, HEADER as u64 + done, piece);
            self.medium.write(offset + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }
}

/// Addresses and lengths of what lies in buffers behind their first `skip` bytes.
fn behind(buffers: &[Buffer], mut skip: u64) -> impl Iterator<Item = (u32, usize)> {
    buffers.iter().filter_map(move |buffer| {
        let cut = skip.min(buffer.len.into()) as u32;
        skip -= u64::from(cut);
        (cut < buffer.len).then(|| (buffer.addr + cut, (buffer.len - cut) as usize))
    })
}

/// Puts bytes into buffers, behind their first `skip` bytes; what has no room is lost.
fn put(mem: &mut Memory, buffers: &[Buffer], skip: u64, mut bytes: &[u8]) {
    for (addr, len) in behind(buffers, skip) {
        let (now, later) = bytes.split_at(bytes.len().min(len));
        if now.is_empty() {
            return;
        }
        mem.write(addr, now);
        bytes = later;
    }
}

/// Gets bytes from buffers, behind their first `skip` bytes; what they have not stays as it is.
fn get(mem: &Memory, buffers: &[Buffer], skip: u64, mut bytes: &mut [u8]) {
    for (addr, len) in behind(buffers, skip) {
        let (now, later) = bytes.split_at_mut(bytes.len().min(len));
        if now.is_empty() {
            return;
        }
        mem.read(addr, now);
        bytes = later;
    }
}

impl Function for VirtioBlock {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        self.transport.config_space(DEVICE_TYPE, IO_PORTS, CONFIG_LENGTH as u16)
    }
}

impl Device for VirtioBlock {
    fn reset(&mut self, _: &mut Memory) {
        self.restart();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &super::BARS))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.window.into(), at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.port_write(cx.mem, at.window.into(), at.offset, at.width, value);
        if std::mem::take(&mut self.asked) {
            cx.requests.data();
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(DEVFN, self.transport.irq())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Driver;
    use super::super::{BAR_NOTIFY, STATUS_DRIVER_OK};
    use super::*;
    use crate::ide::{DiskImage, DiskImageError, Form, Late};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const HEAD: u32 = 0x2_0000;
    const STATUS: u32 = 0x2_1000;
    const DATA: u32 = 0x4_0000;
    const DISK: u64 = 1 << 20;

    struct Guest {
        mem: Box<Memory>,
        disk: VirtioBlock,
        queue: Driver,
    }

    impl Guest {
        fn new(medium: Medium) -> Self {
            let (mut disk, queue) = (VirtioBlock::new(medium), Driver::new(0x1000, 16));
            queue.place(&mut disk.transport.queues[REQUESTS]);
            disk.transport.device_status = STATUS_DRIVER_OK;
            Self { mem: Memory::new(2 << 20).unwrap(), disk, queue }
        }

        /// Makes a request with buffers in which the device writes, or reads; its status, and the bytes written.
        fn ask(&mut self, kind: u32, sector: u64, buffers: &[(u32, u32)], flags: u16) -> (u8, u32) {
            self.mem.write_u32(HEAD, kind);
            self.mem.write_u64(HEAD + 8, sector);
            self.mem.write_u8(STATUS, 0xff);
            let (mem, queue) = (&mut self.mem, &mut self.queue);
            queue.descriptor(mem, 0, HEAD.into(), HEADER as u32, NEXT, 1);
            for (i, (addr, len)) in (1..).zip(buffers) {
                queue.descriptor(mem, i, (*addr).into(), *len, NEXT | flags, i + 1);
            }
            queue.descriptor(mem, buffers.len() as u16 + 1, STATUS.into(), 1, WRITE, 0);
            queue.offer(mem, 0);
            self.disk.port_write(&mut self.mem, BAR_NOTIFY, 0, Width::Word, 0);
            for _ in 0..100 {
                if !self.disk.waits() {
                    break;
                }
                self.disk.media_arrived(&mut self.mem);
            }
            let (_, written) = self.queue.taken(&self.mem).expect("it is given back");
            (self.mem.read_u8(STATUS), written)
        }
    }

    fn bytes() -> Vec<u8> {
        (0..DISK).map(|i| (i ^ i >> 9) as u8).collect()
    }

    #[test]
    fn requests_scatter_and_gather() {
        let image = bytes();
        let media = (0..8).map(|seed| Medium::new(Late::new(image.clone(), seed), Form::Written));
        for medium in media.chain([Medium::new(image.clone(), Form::Written)]) {
            let mut guest = Guest::new(medium);
            // Segments of any length, more than a piece in all.
            let segments = [(DATA, 100), (DATA + 0x1_0000, 0x1_0000), (DATA + 0x8_0000, 0x1_0000 - 100)];
            assert_eq!(guest.ask(request::IN, 3, &segments, WRITE), (status::OK, 0x2_0001));
            let mut at = 3 * 512;
            for (addr, len) in segments {
                assert!(*guest.mem.slice(addr, len).unwrap() == image[at..at + len as usize], "{at}");
                at += len as usize;
            }
            let swapped = [segments[1], segments[0], segments[2]];
            assert_eq!(guest.ask(request::OUT, 100, &swapped, 0), (status::OK, 1));
            assert_eq!(guest.ask(request::FLUSH, 0, &[], 0), (status::OK, 1));
            assert_eq!(guest.ask(request::IN, 100, &[(DATA, 512)], WRITE), (status::OK, 513));
            assert!(*guest.mem.slice(DATA, 512).unwrap() == image[3 * 512 + 100..][..512]);
            assert!(guest.disk.transport.irq());
        }
    }

    #[test]
    fn what_cannot_be_is_an_error_of_the_request() {
        let mut guest = Guest::new(Medium::new(bytes(), Form::Written));
        let last = DISK / SECTOR - 1;
        assert_eq!(guest.ask(request::IN, last, &[(DATA, 512)], WRITE), (status::OK, 513));
        for (sector, len) in [(last, 1024), (last + 1, 512), (u64::MAX, 512), (1 << 60, 512), (0, 100)] {
            assert_eq!(guest.ask(request::IN, sector, &[(DATA, len)], WRITE), (status::IOERR, 0));
            assert_eq!(guest.ask(request::OUT, sector, &[(DATA, len)], 0), (status::IOERR, 1));
        }
        // As much as the queue has descriptors for.
        let all = [(0x10_0000, 0x10_0000); 14];
        guest.disk.medium = Medium::new(vec![0; 32 << 20], Form::Written);
        assert_eq!(guest.ask(request::IN, 0, &all, WRITE), (status::OK, (14 << 20) + 1));
        assert_eq!(guest.ask(11, 0, &[(DATA, 16)], 0), (status::UNSUPP, 1));
        assert_eq!(guest.ask(request::GET_ID, 0, &[(DATA, 20)], WRITE), (status::OK, 21));
        assert_eq!(guest.mem.slice(DATA, 20).unwrap(), ID);
        // Without a place for the status, and without a header.
        guest.queue.descriptor(&mut guest.mem, 0, HEAD.into(), 16, 0, 0);
        guest.queue.offer(&mut guest.mem, 0);
        guest.queue.descriptor(&mut guest.mem, 1, STATUS.into(), 1, WRITE, 0);
        guest.queue.offer(&mut guest.mem, 1);
        guest.disk.port_write(&mut guest.mem, BAR_NOTIFY, 0, Width::Word, 0);
        assert_eq!([0; 2].map(|_: u8| guest.queue.taken(&guest.mem)), [Some((0, 0)), Some((1, 1))]);
        assert_eq!(guest.mem.read_u8(STATUS), status::IOERR);
    }

    /// A driver that does not flush finds each write flushed, and its failure in the write's status.
    #[test]
    fn a_driver_without_flushes_needs_none() {
        #[derive(Debug, Default)]
        struct Counted(Arc<AtomicU32>);
        impl DiskImage for Counted {
            fn size(&self) -> u64 {
                DISK
            }

            fn read(&self, _: u64, _: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
                Poll::Ready(Ok(()))
            }

            fn write(&self, _: u64, _: &[u8]) -> Result<(), DiskImageError> {
                Ok(())
            }

            fn flush(&self) -> Result<(), DiskImageError> {
                match self.0.fetch_add(1, Ordering::Relaxed) {
                    0 => Ok(()),
                    _ => Err(DiskImageError("full".into())),
                }
            }
        }
        let flushes = Arc::default();
        let mut guest = Guest::new(Medium::written_through(Counted(Arc::clone(&flushes))));
        let flushes = || flushes.load(Ordering::Relaxed);
        assert_eq!(guest.ask(request::OUT, 0, &[(DATA, 512)], 0), (status::OK, 1));
        assert_eq!(flushes(), 0);
        guest.disk.transport.driver_feature[0] &= !F_FLUSH;
        assert_eq!(guest.ask(request::OUT, 0, &[(DATA, 512)], 0), (status::OK, 1));
        assert_eq!(flushes(), 1);
        assert_eq!(guest.ask(request::OUT, 0, &[(DATA, 512)], 0), (status::IOERR, 1));
        assert_eq!(guest.ask(request::FLUSH, 0, &[], 0), (status::IOERR, 1));
    }

    #[test]
    fn a_reset_ends_what_waits() {
        #[derive(Debug)]
        struct Never;
        impl DiskImage for Never {
            fn size(&self) -> u64 {
                DISK
            }

            fn read(&self, _: u64, _: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
                Poll::Pending
            }
        }
        let mut guest = Guest::new(Medium::new(Never, Form::Written));
        guest.queue.descriptor(&mut guest.mem, 0, HEAD.into(), 16, NEXT, 1);
        guest.queue.descriptor(&mut guest.mem, 1, DATA.into(), 513, WRITE, 0);
        guest.queue.offer(&mut guest.mem, 0);
        guest.disk.port_write(&mut guest.mem, BAR_NOTIFY, 0, Width::Word, 0);
        assert!(guest.disk.waits() && guest.queue.taken(&guest.mem).is_none());
        guest.disk.port_write(&mut guest.mem, super::super::BAR_COMMON, 20, Width::Byte, 0);
        assert!(!guest.disk.waits());
        let read = |guest: &mut Guest, at| guest.disk.port_read(BAR_DEVICE, at, Width::Dword);
        assert_eq!([0, 4, 8, 12, 20].map(|at| read(&mut guest, at)), [2048, 0, SIZE_MAX, SEG_MAX, 512]);
    }
}
