//! What the board asks of a device, and what it gives it.

use super::clock::Clock;
use super::ports::{BoardError, MemoryMap, PortMap};
use super::requests::{Connected, Requests};
use super::rows::Row;
use crate::dma::Dma;
use crate::pci::{ConfigSpace, Function};
use env86_emu::{Memory, Width};

/// A device of the board. What is not here, a device has not.
pub(crate) trait Device {
    /// Its entries in a state, by their names there.
    const STATES: &'static [&'static str] = &[];
    /// It has deadlines, and [`Self::deadline`] is to be asked after each access.
    const TIMED: bool = false;

    /// What a reset of the board does to it. The guest's memory keeps its contents.
    fn reset(&mut self, mem: &mut Memory);

    /// Says which ports and which memory it answers at, wherever the guest has put its base addresses.
    fn claims(&self, _claims: &mut Claims) {}

    /// Its PCI function, if it is one.
    fn function(&self) -> Option<Plug> {
        None
    }

    /// A guest's IN.
    fn read(&mut self, _cx: &mut Context, at: Access) -> u32 {
        at.width.mask()
    }

    /// A guest's OUT.
    fn write(&mut self, _cx: &mut Context, _at: Access, _value: u32) {}

    /// A guest's load from its memory.
    fn read_memory(&mut self, _cx: &mut Context, at: MemoryAccess) -> u32 {
        at.width.mask()
    }

    /// A guest's store to its memory.
    fn write_memory(&mut self, _cx: &mut Context, _at: MemoryAccess, _value: u32) {}

    /// Its deadline has come.
    fn poll(&mut self, _cx: &mut Context) {}

    /// When [`Self::poll`] must be called next, in guest time. Asked after each access and each poll.
    fn deadline(&mut self, _time: &mut Time) -> Option<u64> {
        None
    }

    /// The period in nanoseconds of a timer that starts anew by itself, and interrupts.
    fn period(&self) -> Option<u64> {
        None
    }

    /// The levels of its interrupt lines. Asked after each access and each poll.
    fn lines(&mut self, _now: u64) -> Lines {
        Lines::NONE
    }
}

/// A device that not every board has.
impl<D: Device> Device for Option<D> {
    const STATES: &'static [&'static str] = D::STATES;
    const TIMED: bool = D::TIMED;

    fn reset(&mut self, mem: &mut Memory) {
        self.iter_mut().for_each(|device| device.reset(mem));
    }

    fn claims(&self, claims: &mut Claims) {
        self.iter().for_each(|device| device.claims(claims));
    }

    fn function(&self) -> Option<Plug> {
        self.as_ref()?.function()
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.as_mut().map_or(at.width.mask(), |device| device.read(cx, at))
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.iter_mut().for_each(|device| device.write(cx, at, value));
    }

    fn read_memory(&mut self, cx: &mut Context, at: MemoryAccess) -> u32 {
        self.as_mut().map_or(at.width.mask(), |device| device.read_memory(cx, at))
    }

    fn write_memory(&mut self, cx: &mut Context, at: MemoryAccess, value: u32) {
        self.iter_mut().for_each(|device| device.write_memory(cx, at, value));
    }

    fn poll(&mut self, cx: &mut Context) {
        self.iter_mut().for_each(|device| device.poll(cx));
    }

    fn deadline(&mut self, time: &mut Time) -> Option<u64> {
        self.as_mut()?.deadline(time)
    }

    fn period(&self) -> Option<u64> {
        self.as_ref()?.period()
    }

    fn lines(&mut self, now: u64) -> Lines {
        self.as_mut().map_or(Lines::NONE, |device| device.lines(now))
    }
}

/// Guest time, and the wall's.
pub(crate) struct Time<'a> {
    /// Guest time in nanoseconds.
    pub now: u64,
    clock: &'a mut dyn Clock,
}

impl<'a> Time<'a> {
    pub fn new(now: u64, clock: &'a mut dyn Clock) -> Self {
        Self { now, clock }
    }

    /// Wall time in milliseconds since 1970, UTC.
    pub fn unix_millis(&mut self) -> i64 {
        self.clock.unix_millis()
    }

    /// Wall time in nanoseconds since 1970, UTC.
    pub fn unix_nanos(&mut self) -> u64 {
        u64::try_from(self.clock.unix_millis()).unwrap_or(0).saturating_mul(1_000_000)
    }
}

/// What a device may use while it is accessed or polled.
pub(crate) struct Context<'a> {
    /// What time it is.
    pub time: Time<'a>,
    /// The guest's memory, for bus masters.
    pub mem: &'a mut Memory,
    /// The ISA DMA controller.
    pub dma: &'a mut Dma,
    /// What the guest asks of the host.
    pub requests: &'a mut Requests,
    /// The lines whose output a host takes.
    pub connected: Connected,
}

/// The parts of the board that a [`Context`] is made of.
pub(crate) struct Parts<'a> {
    pub dma: &'a mut Dma,
    pub clock: &'a mut dyn Clock,
    pub requests: &'a mut Requests,
    pub connected: Connected,
}

/// Something to be done with a device, whichever it is.
pub(crate) trait Visitor {
    /// What comes of it.
    type Output;

    /// Does it.
    fn visit<D: Device>(self, device: &mut D, parts: Parts) -> Self::Output;
}

/// What the board has to know after something was done with a device.
#[derive(Clone, Copy)]
pub(crate) struct After {
    pub lines: Lines,
    /// Its deadline, if it has deadlines at all.
    pub deadline: Option<Option<u64>>,
}

impl After {
    /// Asks a device.
    #[inline(always)]
    pub fn of<D: Device>(device: &mut D, time: &mut Time) -> Self {
        let lines = device.lines(time.now);
        Self { lines, deadline: D::TIMED.then(|| device.deadline(time)) }
    }
}

/// An access to a device's ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Which of the device's claims it hit.
    pub window: u8,
    /// The port.
    pub port: u16,
    /// The port less the claim's first.
    pub offset: u16,
    /// How wide it is: never wider than the claim allows.
    pub width: Width,
}

/// An access to a device's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryAccess {
    /// Which of the device's claims it hit.
    pub window: u8,
    /// The address less the claim's first.
    pub offset: u32,
    /// How wide it is. It may reach beyond the claim's end.
    pub width: Width,
}

/// Which accesses a device takes in one piece. Of others it gets the bytes one by one, the lowest
/// first, as on the ISA bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widths {
    /// Bytes.
    Bytes,
    /// Bytes, and words at any of the ports, each of which is a register of 16 bits.
    Words,
    /// All, at any of the ports.
    Register,
    /// All that lie within the claim.
    Within,
    /// All that lie within an aligned doubleword.
    Dwords,
}

/// Where the board notes what a device claims.
pub(crate) struct Claims<'a> {
    row: Row,
    ports: &'a mut PortMap,
    memory: &'a mut MemoryMap,
    problem: &'a mut Option<BoardError>,
}

impl<'a> Claims<'a> {
    pub fn new(
        row: Row,
        ports: &'a mut PortMap,
        memory: &'a mut MemoryMap,
        problem: &'a mut Option<BoardError>,
    ) -> Self {
        Self { row, ports, memory, problem }
    }

    /// Claims `count` ports from `base` on. `window` is what accesses will carry.
    pub fn ports(&mut self, window: u8, base: u16, count: u16, widths: Widths) {
        if let Err(error) = self.ports.claim(self.row, window, base, count, widths) {
            self.problem.get_or_insert(error);
        }
    }

    /// Claims `size` bytes of memory at `base`. `window` is what accesses will carry.
    pub fn memory(&mut self, window: u8, base: u32, size: u32) {
        if let Err(error) = self.memory.claim(self.row, window, base, size) {
            self.problem.get_or_insert(error);
        }
    }
}

/// A device as a PCI function.
pub(crate) struct Plug {
    /// Slot and function.
    pub devfn: u8,
    /// The configuration space at power-on.
    pub space: ConfigSpace,
    /// Base addresses whose ports the guest moves. Their accesses carry their numbers as windows.
    pub bars: &'static [u8],
}

impl Plug {
    pub fn new(device: &impl Function, bars: &'static [u8]) -> Self {
        Self { devfn: device.devfn(), space: device.config_space(), bars }
    }
}

/// Levels that a device drives its interrupt lines to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// The ISA lines that it drives, a bit each.
    pub driven: u16,
    /// Those of them that are high.
    pub high: u16,
    /// Those that fall and rise again.
    pub pulsed: u16,
    /// Its PCI function, and the level of that's pin.
    pub pci: Option<(u8, bool)>,
}

impl Lines {
    pub const NONE: Self = Self { driven: 0, high: 0, pulsed: 0, pci: None };

    /// An ISA line. Several devices may share one: it is high if any of them says so.
    pub fn isa(irq: u8, level: bool) -> Self {
        Self::NONE.with(irq, level)
    }

    /// An ISA line that falls and rises again.
    pub fn pulse(irq: u8) -> Self {
        Self { pulsed: bit(irq), ..Self::isa(irq, true) }
    }

    /// The pin of a PCI function.
    pub fn pci(devfn: u8, level: bool) -> Self {
        Self { pci: Some((devfn, level)), ..Self::NONE }
    }

    /// One more ISA line.
    pub fn with(self, irq: u8, level: bool) -> Self {
        let high = self.high | if level { bit(irq) } else { 0 };
        Self { driven: self.driven | bit(irq), high, ..self }
    }

    /// The lines of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            driven: self.driven | other.driven,
            high: self.high | other.high,
            pulsed: self.pulsed | other.pulsed,
            pci: other.pci.or(self.pci),
        }
    }
}

const fn bit(irq: u8) -> u16 {
    1 << (irq & 15)
}
