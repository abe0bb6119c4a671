//! The board: every device by value, wired as a PC is.
//!
//! [`rows`] lists the devices. What each of them claims goes into two tables (`ports`), by which an
//! access finds its device. After each access the board carries the device's interrupt lines to the
//! controllers and keeps the time at which it must be looked at next, so that nothing is ever polled
//! in between.

mod clock;
mod decode;
pub(crate) mod device;
pub mod interrupts;
mod ports;
pub(crate) mod requests;
pub mod rows;
mod timers;

use crate::floppy;
use crate::ide;
use crate::lpt::Lpt;
use crate::ne2k::Ne2k;
use crate::ps2::Ps2;
use crate::sound::{self, Sound};
use crate::uart::Uart;
use crate::vga;
use crate::virtio::block::VirtioBlock;
use crate::virtio::net::VirtioNet;
pub use clock::{Clock, Entropy, ManualClock, Seeded, VirtualClock};
use device::{After, Claims, Device, Parts, Plug, Time, Visitor, Widths};
use env86_emu::Memory;
pub use interrupts::Interrupts;
pub use ports::BoardError;
pub(crate) use requests::OUTPUT_LIMIT;
pub use requests::{Connected, Request};
pub use rows::{Board, BoardConfig, Row};

/// Asks a device for its lines and its deadline.
struct Settle {
    now: u64,
}

impl Visitor for Settle {
    type Output = After;

    fn visit<D: Device>(self, device: &mut D, parts: Parts) -> After {
        After::of(device, &mut Time::new(self.now, parts.clock))
    }
}

struct Reset<'m>(&'m mut Memory);

impl Visitor for Reset<'_> {
    type Output = ();

    fn visit<D: Device>(self, device: &mut D, _: Parts) {
        device.reset(self.0);
    }
}

/// Asks a device for its PCI function.
struct Functions;

impl Visitor for Functions {
    type Output = Option<Plug>;

    fn visit<D: Device>(self, device: &mut D, _: Parts) -> Option<Plug> {
        device.function()
    }
}

/// Asks a device for what it claims.
struct Claim<'a>(Claims<'a>);

impl Visitor for Claim<'_> {
    type Output = ();

    fn visit<D: Device>(mut self, device: &mut D, _: Parts) {
        device.claims(&mut self.0);
    }
}

impl Board {
    /// A board after power-on, whose video memory is part of `mem`.
    ///
    /// # Errors
    /// If two devices claim the same ports or addresses: nothing that is fitted by itself does, but a
    /// port that the user gives to [`BoardConfig::debug_exit`] may be another device's.
    pub fn new(
        config: BoardConfig,
        mem: &mut Memory,
        clock: Box<dyn Clock>,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, BoardError> {
        let mut board = Self::made(config, mem, clock, entropy);
        board.plug_functions();
        board.map()?;
        board.synchronize(mem);
        Ok(board)
    }

    /// What a reset of the board does to its devices. Memory keeps its contents.
    pub fn reset(&mut self, mem: &mut Memory) {
        self.dma.reset();
        for row in Row::ALL {
            self.visit(*row, Reset(mem));
        }
        self.requests.request = None;
        self.plug_functions();
        self.synchronize(mem);
    }

    fn plug_functions(&mut self) {
        for row in Row::ALL {
            if let Some(plug) = self.visit(*row, Functions) {
                self.pci.insert(plug.devfn, plug.space);
            }
        }
    }

    /// Fills the tables of ports and addresses: what stays where it is, and in what that leaves free what
    /// the guest can move. Which of two base addresses at the same ports answers, the order of the
    /// rows says.
    fn map(&mut self) -> Result<(), BoardError> {
        let (mut ports, mut memory) = (std::mem::take(&mut self.ports), std::mem::take(&mut self.memory));
        let mut problem = None;
        ports.clear();
        memory.clear();
        for row in Row::ALL {
            self.visit(*row, Claim(Claims::new(*row, &mut ports, &mut memory, &mut problem)));
        }
        for row in Row::ALL {
            let Some(plug) = self.visit(*row, Functions) else { continue };
            let Some(space) = self.pci.function(plug.devfn) else { continue };
            for bar in plug.bars {
                if let Some(port) = space.bar((*bar).into()) {
                    let count = space.io_ports((*bar).into());
                    ports.claim_free(*row, *bar, port as u16, count, Widths::Within);
                }
            }
        }
        (self.ports, self.memory) = (ports, memory);
        problem.map_or(Ok(()), Err)
    }

    /// Takes over what the guest has done to base addresses, to the routing of interrupts and to the
    /// attributes of the shadow area.
    #[cold]
    fn rewire(&mut self, mem: &mut Memory) {
        self.requests.rewired = false;
        if let Err(error) = self.map() {
            tracing::error!(target: "board", %error, "devices overlap that did not at the start");
        }
        let address = self.pci.function(vga::DEVFN).and_then(|space| space.bar(vga::FRAMEBUFFER_BAR));
        self.vga.map_framebuffer(mem, address);
        self.vga.map_window(mem);
        mem.set_read_only(self.pci.read_only());
        self.interrupts.set_pci(self.pci.irq_levels());
    }

    /// Derives everything that follows from the devices' state: to be called after that was
    /// changed from outside (a restored state).
    pub fn synchronize(&mut self, mem: &mut Memory) {
        // The timer says when its line changes, and the latch is in no state.
        self.interrupts.adopt_lines(1 << rows::PIT_IRQ);
        self.fpu.raised = self.interrupts.pic.slave.lines & 1 << (rows::FPU_IRQ - 8) != 0;
        self.uarts.iter_mut().flatten().for_each(Uart::poll);
        let now = self.clock.now();
        self.sb16.run(mem, &mut self.dma, now);
        self.pit.speaker.run(now);
        for row in Row::ALL {
            self.changed(*row);
        }
        self.rewire(mem);
        self.interrupts.update();
        self.requests.yield_requested = true;
    }

    /// Takes over the lines and the deadline of a device after it was changed.
    pub(crate) fn changed(&mut self, row: Row) {
        let now = self.clock.now();
        let after = self.visit(row, Settle { now });
        self.carry(row, after);
    }

    /// Carries the lines of a device to the controllers, and takes over its deadline.
    #[inline(always)]
    fn carry(&mut self, row: Row, after: After) {
        let After { lines, deadline } = after;
        if lines.driven != 0 {
            self.interrupts.set_lines(lines.driven, lines.high, lines.pulsed);
        }
        if let Some((devfn, level)) = lines.pci
            && self.pci.set_interrupt(devfn, level)
        {
            self.interrupts.set_pci(self.pci.irq_levels());
        }
        if let Some(deadline) = deadline {
            self.requests.yield_requested |= self.timers.set(row, deadline);
        }
    }

    /// Takes what the guest has asked for, if it has.
    pub fn take_request(&mut self) -> Option<Request> {
        self.requests.request.take()
    }

    /// Guest time in nanoseconds.
    pub fn time(&mut self) -> u64 {
        self.clock.now()
    }

    /// The clock.
    pub fn clock(&mut self) -> &mut dyn Clock {
        &mut *self.clock
    }

    /// When a device must be looked at next, in guest time.
    pub fn next_event(&self) -> Option<u64> {
        self.timers.next()
    }

    /// How late the next deadline may be seen without an interrupt being lost, in ns. A timer that
    /// starts anew by itself raises one interrupt, however many periods have passed.
    pub fn slack(&self) -> u64 {
        self.shortest_period().map_or(u64::MAX, |shortest| shortest / 2)
    }

    /// Begins a slice of execution: lets devices take notice of the time, and of input that waits.
    /// A deadline that comes to lie before `end` during the slice makes the processor return.
    pub(crate) fn begin_slice(&mut self, mem: &mut Memory, now: u64) {
        if self.timers.any_due(now) {
            for row in Row::ALL {
                if self.timers.due(*row, now) {
                    self.poll(mem, *row, now);
                }
            }
        }
        let mut input = false;
        for uart in self.uarts.iter_mut().flatten() {
            uart.slice_over();
            input |= !uart.input.is_empty();
            uart.poll();
        }
        if input {
            self.changed(Row::uarts);
        }
        self.requests.yield_requested = false;
    }

    /// The processor has halted.
    pub(crate) fn halted(&mut self) {
        self.uarts.iter_mut().flatten().for_each(Uart::halted);
    }

    /// Sets the time at which the slice that begins will be over.
    pub(crate) fn set_slice_end(&mut self, end: u64) {
        self.timers.set_slice_end(end);
    }

    /// Gives a serial port input; tells how many bytes it took. 0 is COM1.
    pub fn serial_input(&mut self, port: usize, bytes: &[u8]) -> usize {
        let Some(uart) = self.uarts.get_mut(port).and_then(Option::as_mut) else { return 0 };
        let taken = uart.push_input(bytes);
        self.changed(Row::uarts);
        taken
    }

    /// Takes what a serial port has sent. 0 is COM1.
    pub fn serial_output(&mut self, port: usize) -> Vec<u8> {
        self.uarts.get_mut(port).and_then(Option::as_mut).map(Uart::take_output).unwrap_or_default()
    }

    /// Gives a port of the virtio console input; tells how many bytes it took.
    pub fn console_input(&mut self, mem: &mut Memory, port: usize, bytes: &[u8]) -> usize {
        let Some(console) = &mut self.console else { return 0 };
        let taken = console.push_input(port, bytes);
        console.poll(mem);
        self.changed(Row::console);
        taken
    }

    /// Takes what the guest has written to a port of the virtio console.
    pub fn console_output(&mut self, mem: &mut Memory, port: usize) -> Vec<u8> {
        let Some(console) = &mut self.console else { return Vec::new() };
        let output = console.drain_output(port);
        console.poll(mem);
        self.changed(Row::console);
        output
    }

    /// Offers the network card a frame; tells whether it was taken. `None` says that there is no card.
    /// What comes while the cable is pulled is lost.
    pub fn network_input(&mut self, mem: &mut Memory, frame: &[u8]) -> Option<bool> {
        if !self.connected.network {
            return self.has_network_card().then_some(true);
        }
        let taken = match (&mut self.ne2k, &mut self.virtio_net) {
            (Some(card), _) => card.receive(frame),
            (None, Some(card)) => card.receive(mem, frame),
            (None, None) => return None,
        };
        self.network_changed();
        Some(taken)
    }

    /// Takes the frames that the guest has sent.
    pub fn network_output(&mut self, mem: &mut Memory) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        if let Some(card) = &mut self.ne2k {
            frames.extend(card.take_sent());
        }
        if let Some(card) = self.virtio_net.as_mut().filter(|card| card.has_sent()) {
            frames.extend(card.take_sent());
            card.poll(mem);
        }
        if !frames.is_empty() {
            self.network_changed();
        }
        frames
    }

    /// Takes what the sound card and the speaker have played up to now, mixed.
    pub fn sound_output(&mut self, mem: &mut Memory) -> Option<Sound> {
        let sounds = self.sb16.sounds() || self.pit.speaker.sounds();
        if sounds {
            let now = self.clock.now();
            self.sb16.run(mem, &mut self.dma, now);
            self.pit.speaker.run(now);
            self.changed(Row::sb16);
            self.changed(Row::pit);
        }
        sound::mix([self.sb16.track(), self.pit.speaker.track()])
    }

    /// Whether there is a network card.
    pub fn has_network_card(&self) -> bool {
        self.ne2k.is_some() || self.virtio_net.is_some()
    }

    /// Puts a cable into the network card, or pulls it. The virtio card tells its driver; the NE2000 has
    /// no way to.
    pub fn connect_network(&mut self, connected: bool) {
        self.connected.network = connected;
        if let Some(card) = &mut self.virtio_net {
            card.set_link(connected);
        }
        self.network_changed();
    }

    fn has_sent_frames(&self) -> bool {
        self.ne2k.as_ref().is_some_and(Ne2k::has_sent)
            || self.virtio_net.as_ref().is_some_and(VirtioNet::has_sent)
    }

    fn network_changed(&mut self) {
        self.changed(Row::ne2k);
        self.changed(Row::virtio_net);
    }

    /// Tells the guest the size of the virtio console's screen.
    pub fn set_console_size(&mut self, mem: &mut Memory, columns: u16, rows: u16) {
        if let Some(console) = &mut self.console {
            console.set_size(mem, columns, rows);
            self.changed(Row::console);
        }
    }

    /// Contents of files that the guest waits for have come.
    pub fn files_arrived(&mut self, mem: &mut Memory) {
        let unix_ns = Time::new(0, &mut *self.clock).unix_nanos();
        if let Some(p9) = &mut self.p9 {
            p9.poll(mem, unix_ns);
            self.changed(Row::p9);
        }
    }

    /// Data that drives wait for have come from their media.
    pub fn media_arrived(&mut self, mem: &mut Memory) {
        self.ide.media_arrived(mem);
        self.changed(Row::ide);
        if let Some(block) = &mut self.block {
            block.media_arrived(mem);
            self.changed(Row::block);
        }
    }

    /// Changes the disc in the CD-ROM drive, or takes it out, while the machine runs.
    pub fn change_disc(&mut self, mem: &mut Memory, disc: Option<ide::Medium>) -> Result<(), ide::DiscError> {
        let result = self.ide.change_disc(mem, disc);
        self.changed(Row::ide);
        result
    }

    /// Changes the disk in a floppy drive, or takes it out, while the machine runs.
    pub fn change_floppy(&mut self, drive: usize, disk: Option<floppy::Disk>) {
        self.floppy.change_disk(drive, disk);
        self.changed(Row::floppy);
    }

    /// The guest waits for data of a medium or of a file that have not come yet.
    pub fn waits_for_data(&self) -> bool {
        let block = self.block.as_ref().is_some_and(VirtioBlock::waits);
        self.ide.waits() || block || self.p9.as_ref().is_some_and(|p9| !p9.held.is_empty())
    }

    /// Presses and releases keys, as bytes of scan code set 1. Takes all or nothing: false says to
    /// try again later.
    pub fn keyboard_input(&mut self, set1: &[u8]) -> bool {
        self.with_ps2(|ps2, now| ps2.key(set1, now))
    }

    /// Lets something outside move keyboard or mouse; `act` gets guest time.
    pub fn with_ps2<T>(&mut self, act: impl FnOnce(&mut Ps2, u64) -> T) -> T {
        let now = self.clock.now();
        let result = act(&mut self.ps2, now);
        self.changed(Row::ps2);
        result
    }

    /// Presses the power button, which a board without ACPI has not.
    pub fn press_power_button(&mut self) {
        if let Some(acpi) = &mut self.acpi {
            acpi.press_power_button();
            self.changed(Row::acpi);
        }
    }

    /// Bytes that wait to be taken by the host, on the connected port that has most of them. A frame
    /// counts as much, and so does what is asked of a folder: someone may be waiting to answer it.
    pub(crate) fn output_waiting(&self) -> usize {
        let asked = self.shares.as_ref().is_some_and(|shares| !shares.asked.is_empty());
        if asked || self.connected.network && self.has_sent_frames() {
            return usize::MAX;
        }
        let serial = self.uarts.iter().zip(self.connected.serial).filter(|(_, connected)| *connected);
        let serial = serial.filter_map(|(uart, _)| Some(uart.as_ref()?.output.len()));
        let console =
            self.console.iter().flat_map(|console| console.ports.iter().zip(self.connected.console));
        let console = console.filter(|(_, connected)| *connected).map(|(port, _)| port.output.len());
        let printed = self.lpt.as_ref().map_or(0, Lpt::waiting);
        serial.chain(console).chain([self.debug.waiting(), printed]).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
