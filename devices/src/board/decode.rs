//! The processor's accesses: which device gets them, and what the board does after them.

use super::Board;
use super::device::{Access, After, Context, Device, MemoryAccess, Parts, Time, Visitor};
use super::ports::Region;
use super::rows::Row;
use env86_emu::{Bus, HypervisorCall, Memory, Width};

/// Something done with a device that may reach memory, at a time.
pub(super) struct Act<'m, K> {
    pub now: u64,
    pub mem: &'m mut Memory,
    pub kind: K,
}

/// What is done.
pub(super) trait Kind {
    /// What comes of it.
    type Output;

    fn act<D: Device>(self, device: &mut D, cx: &mut Context) -> Self::Output;
}

impl<K: Kind> Visitor for Act<'_, K> {
    type Output = (K::Output, After);

    #[inline(always)]
    fn visit<D: Device>(self, device: &mut D, parts: Parts) -> Self::Output {
        let Parts { dma, clock, requests, connected } = parts;
        let mut cx = Context { time: Time::new(self.now, clock), mem: self.mem, dma, requests, connected };
        let output = self.kind.act(device, &mut cx);
        (output, After::of(device, &mut cx.time))
    }
}

struct Read(Access);

impl Kind for Read {
    type Output = u32;

    #[inline(always)]
    fn act<D: Device>(self, device: &mut D, cx: &mut Context) -> u32 {
        device.read(cx, self.0)
    }
}

struct Write(Access, u32);

impl Kind for Write {
    type Output = ();

    #[inline(always)]
    fn act<D: Device>(self, device: &mut D, cx: &mut Context) {
        device.write(cx, self.0, self.1);
    }
}

struct ReadMemory(MemoryAccess);

impl Kind for ReadMemory {
    type Output = u32;

    #[inline(always)]
    fn act<D: Device>(self, device: &mut D, cx: &mut Context) -> u32 {
        device.read_memory(cx, self.0)
    }
}

struct WriteMemory(MemoryAccess, u32);

impl Kind for WriteMemory {
    type Output = ();

    #[inline(always)]
    fn act<D: Device>(self, device: &mut D, cx: &mut Context) {
        device.write_memory(cx, self.0, self.1);
    }
}

struct Poll;

impl Kind for Poll {
    type Output = ();

    fn act<D: Device>(self, device: &mut D, cx: &mut Context) {
        device.poll(cx);
    }
}

impl Board {
    /// Lets a device whose deadline has come act.
    pub(super) fn poll(&mut self, mem: &mut Memory, row: Row, now: u64) {
        self.act(mem, row, now, Poll);
    }

    /// Guest time of an access. A deadline that has passed unseen, because the slice takes longer
    /// than was thought, ends it.
    #[inline]
    pub(super) fn time_of_access(&mut self) -> u64 {
        let now = self.clock.now();
        self.requests.yield_requested |= self.timers.any_due(now);
        now
    }

    #[inline]
    fn read_port(&mut self, mem: &mut Memory, region: Option<Region>, port: u16, width: Width) -> u32 {
        let Some(Region { base, row, window, .. }) = region else { return width.mask() };
        let now = self.time_of_access();
        let at = Access { window, port, offset: port.wrapping_sub(base), width };
        self.act(mem, row, now, Read(at))
    }

    #[inline]
    fn write_port(&mut self, mem: &mut Memory, region: Option<Region>, port: u16, width: Width, value: u32) {
        let Some(Region { base, row, window, .. }) = region else {
            // Port 80h, for one, shows how far a start has come.
            return tracing::trace!(target: "ports", port, value, "written, and no device is there");
        };
        let now = self.time_of_access();
        let at = Access { window, port, offset: port.wrapping_sub(base), width };
        self.act(mem, row, now, Write(at, value));
        if self.requests.rewired {
            self.rewire(mem);
        }
    }

    #[inline(never)]
    fn read_wide(&mut self, mem: &mut Memory, port: u16, width: Width) -> u32 {
        if let Ok(region) = self.ports.whole(port, width) {
            return self.read_port(mem, region, port, width);
        }
        (0..width.bytes()).fold(0, |value, i| {
            let port = port.wrapping_add(i as u16);
            let byte = self.read_port(mem, self.ports.find(port), port, Width::Byte);
            value | (byte & 0xff) << (8 * i)
        })
    }

    #[inline(never)]
    fn write_wide(&mut self, mem: &mut Memory, port: u16, width: Width, value: u32) {
        if let Ok(region) = self.ports.whole(port, width) {
            return self.write_port(mem, region, port, width, value);
        }
        for (i, byte) in (0..width.bytes() as u16).zip(value.to_le_bytes()) {
            let port = port.wrapping_add(i);
            self.write_port(mem, self.ports.find(port), port, Width::Byte, byte.into());
        }
    }
}

impl Bus for Board {
    fn port_read(&mut self, mem: &mut Memory, port: u16, width: Width) -> u32 {
        match width {
            Width::Byte => self.read_port(mem, self.ports.find(port), port, width),
            _ => self.read_wide(mem, port, width),
        }
    }

    fn port_write(&mut self, mem: &mut Memory, port: u16, width: Width, value: u32) {
        match width {
            Width::Byte => self.write_port(mem, self.ports.find(port), port, width, value),
            _ => self.write_wide(mem, port, width, value),
        }
    }

    fn port_source(&self, port: u16, width: Width) -> Option<&[u8]> {
        let Region { base, row, .. } = self.ports.whole(port, width).ok()??;
        let card = self.ne2k.as_ref().filter(|_| row == Row::ne2k)?;
        card.source(port.wrapping_sub(base), width)
    }

    fn port_sink(&mut self, port: u16, width: Width) -> Option<&mut [u8]> {
        let Region { base, row, .. } = self.ports.whole(port, width).ok()??;
        let card = self.ne2k.as_mut().filter(|_| row == Row::ne2k)?;
        card.sink(port.wrapping_sub(base), width)
    }

    fn port_moved(&mut self, _: &mut Memory, _: u16, bytes: usize) {
        self.ne2k.iter_mut().for_each(|card| card.moved(bytes));
        self.changed(Row::ne2k);
    }

    fn hypervisor_call(&mut self, call: &mut HypervisorCall) {
        self.backdoor.call(call, self.clock.unix_millis());
    }

    fn mmio_read(&mut self, mem: &mut Memory, addr: u32, width: Width) -> u32 {
        let Some((region, offset)) = self.memory.find(addr) else { return width.mask() };
        let now = self.time_of_access();
        self.act(mem, region.row, now, ReadMemory(MemoryAccess { window: region.window, offset, width }))
    }

    fn mmio_write(&mut self, mem: &mut Memory, addr: u32, width: Width, value: u32) {
        let Some((region, offset)) = self.memory.find(addr) else { return };
        let now = self.time_of_access();
        let at = MemoryAccess { window: region.window, offset, width };
        self.act(mem, region.row, now, WriteMemory(at, value));
    }

    fn interrupt(&self) -> bool {
        self.interrupts.interrupt()
    }

    fn nmi(&self) -> bool {
        self.interrupts.nmi()
    }

    fn acknowledge_nmi(&mut self) {
        self.interrupts.acknowledge_nmi();
    }

    fn acknowledge(&mut self) -> u8 {
        self.interrupts.acknowledge()
    }

    fn yield_requested(&self) -> bool {
        self.requests.yield_requested
    }

    fn now(&mut self) -> u64 {
        self.time_of_access()
    }

    fn fpu_error(&mut self) {
        self.fpu.raised = true;
        self.changed(Row::fpu);
    }

    fn random(&mut self) -> u32 {
        self.entropy.next_u32()
    }

    fn apic_base(&self) -> u32 {
        self.interrupts.apics.as_ref().map_or(0, |apics| apics.local.base)
    }

    fn set_apic_base(&mut self, value: u32) {
        if let Some(apics) = &mut self.interrupts.apics {
            apics.local.set_base(value);
            self.interrupts.update();
            self.changed(Row::interrupts);
        }
    }
}
