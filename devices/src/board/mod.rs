//! The board: every device by value, wired as a PC is.
//!
//! Ports are decoded by a table ([`ports::PortMap`]), memory-mapped registers by address. After each
//! access the board carries the device's interrupt line to the controllers and keeps the time at
//! which a timer must be looked at next, so that nothing is ever polled in between.

mod clock;
mod decode;
pub mod interrupts;
pub mod ports;
mod timers;

use crate::acpi::{self, Acpi};
use crate::debug::DebugConsole;
use crate::dma::Dma;
use crate::fs::{BlobStore, Filesystem};
use crate::fw_cfg::{self, FwCfg};
use crate::ide::{self, Ide};
use crate::pci::Pci;
use crate::pit::{Irq0, Pit};
use crate::ps2::{self, Ps2};
use crate::rtc::{CmosConfig, Rtc};
use crate::system_control::SystemControl;
use crate::uart::{self, Uart};
use crate::vga::Vga;
use crate::virtio::{console, console::VirtioConsole, p9, p9::Virtio9p};
use crate::vmware::Backdoor;
pub use clock::{Clock, Entropy, ManualClock, Seeded, VirtualClock};
use env86_emu::Memory;
pub use interrupts::Interrupts;
use ports::PortMap;
use timers::{Timer, Timers};

const PIT_IRQ: u8 = 0;
const RTC_IRQ: u8 = 8;
const FPU_IRQ: u8 = 13;
/// Output that waits on a port before the machine stops for it to be taken, in bytes.
pub(crate) const OUTPUT_LIMIT: usize = 4096;

/// What a board is built from.
pub struct BoardConfig {
    /// Bytes of RAM, which the setup memory and fw_cfg tell the firmware.
    pub memory_size: u32,
    /// Bytes of the linear framebuffer.
    pub vga_memory_size: u32,
    /// APICs and ACPI power management are fitted.
    pub acpi: bool,
    /// COM1 to COM4.
    pub uarts: [bool; 4],
    /// The contents of the setup memory beside the RAM size.
    pub cmos: CmosConfig,
    /// Files for the firmware.
    pub fw_cfg_files: Vec<fw_cfg::File>,
    /// A video BIOS, visible at [`crate::vga::ROM`].
    pub vga_rom: Vec<u8>,
    /// A guest's write to this port ends the program.
    pub debug_exit: Option<u16>,
    /// Files for the guest over virtio-9p, with the contents of their image.
    pub filesystem: Option<(Filesystem, Box<dyn BlobStore>)>,
    /// A virtio console is fitted.
    pub virtio_console: bool,
    /// Hard disks and CD-ROM drives.
    pub ide: ide::Units,
}

impl Default for BoardConfig {
    /// v86's default machine.
    fn default() -> Self {
        Self {
            memory_size: 64 << 20,
            vga_memory_size: 8 << 20,
            acpi: false,
            uarts: [true, true, false, false],
            cmos: CmosConfig::default(),
            fw_cfg_files: Vec::new(),
            vga_rom: Vec::new(),
            debug_exit: None,
            filesystem: None,
            virtio_console: false,
            ide: ide::Units::default(),
        }
    }
}

/// What a guest has asked of whoever runs the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A reset.
    Reset,
    /// The power off.
    PowerOff,
    /// The end of the program, with a value.
    DebugExit(u32),
}

/// The lines whose output a host takes. The machine stops when much of it waits there; on others it
/// runs on. The debug console has its own switch, [`DebugConsole::connected`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// COM1 to COM4. Of what waits on one that is not connected, the oldest is lost.
    pub serial: [bool; 4],
    /// The ports of the virtio console. The guest waits when one that is not connected is full.
    pub console: [bool; console::PORTS],
}

impl Default for Connected {
    /// COM1 and the virtio console.
    fn default() -> Self {
        Self { serial: [true, false, false, false], console: [true; console::PORTS] }
    }
}

/// The board.
pub struct Board {
    /// Where a host takes output.
    pub connected: Connected,
    /// Interrupt controllers and the lines to them.
    pub interrupts: Interrupts,
    /// Interval timer.
    pub pit: Pit,
    /// Clock and CMOS.
    pub rtc: Rtc,
    /// ISA DMA.
    pub dma: Dma,
    /// Ports 61h and 92h.
    pub system_control: SystemControl,
    /// Keyboard and mouse.
    pub ps2: Ps2,
    /// COM1 to COM4.
    pub uarts: [Option<Uart>; 4],
    /// PCI bus.
    pub pci: Pci,
    /// Graphics card.
    pub vga: Vga,
    /// Hard disks and CD-ROM drives.
    pub ide: Ide,
    /// ACPI power management, if fitted.
    pub acpi: Option<Acpi>,
    /// Files over virtio, if fitted.
    pub p9: Option<Virtio9p>,
    /// Virtio console, if fitted.
    pub console: Option<VirtioConsole>,
    /// Calls to the hypervisor.
    pub backdoor: Backdoor,
    /// Firmware configuration.
    pub fw_cfg: FwCfg,
    /// Debug console.
    pub debug: DebugConsole,
    vga_rom: Vec<u8>,
    debug_exit: Option<u16>,
    ports: PortMap,
    timers: Timers,
    clock: Box<dyn Clock>,
    entropy: Box<dyn Entropy>,
    request: Option<Request>,
    /// The processor is to return: there is a request, output to take, or a nearer deadline.
    yield_requested: bool,
}

impl Board {
    /// A board after power-on, whose video memory is part of `mem`.
    pub fn new(
        config: BoardConfig,
        mem: &mut Memory,
        clock: Box<dyn Clock>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let (memory_size, disks) = (config.memory_size, config.ide.cmos());
        let cmos = CmosConfig { memory_size, disks, ..config.cmos };
        let mut board = Self {
            connected: Connected::default(),
            interrupts: Interrupts::new(config.acpi),
            pit: Pit::default(),
            rtc: Rtc::new(&cmos),
            dma: Dma::default(),
            system_control: SystemControl::default(),
            ps2: Ps2::default(),
            uarts: config.uarts.map(|fitted| fitted.then(Uart::default)),
            pci: Pci::default(),
            vga: Vga::new(mem, config.vga_memory_size),
            ide: Ide::new(config.ide),
            acpi: config.acpi.then(Acpi::default),
            p9: config.filesystem.map(|(files, store)| Virtio9p::new(files, store)),
            console: config.virtio_console.then(VirtioConsole::default),
            backdoor: Backdoor::default(),
            fw_cfg: FwCfg::new(config.memory_size, config.fw_cfg_files),
            debug: DebugConsole::default(),
            vga_rom: config.vga_rom,
            debug_exit: config.debug_exit,
            ports: PortMap::default(),
            timers: Timers::default(),
            clock,
            entropy,
            request: None,
            yield_requested: false,
        };
        board.plug_functions();
        board.synchronize(mem);
        board
    }

    /// What a reset of the board does to its devices. Memory keeps its contents.
    pub fn reset(&mut self, mem: &mut Memory) {
        self.interrupts.reset();
        self.pit = Pit::default();
        self.rtc.reset();
        self.dma.reset();
        self.system_control = SystemControl::default();
        self.ps2.reset();
        self.uarts.iter_mut().flatten().for_each(Uart::reset);
        self.p9.iter_mut().for_each(Virtio9p::reset);
        self.console.iter_mut().for_each(VirtioConsole::reset);
        self.vga.reset(mem);
        self.ide.reset();
        self.backdoor = Backdoor::default();
        self.fw_cfg.reset();
        if let Some(acpi) = &mut self.acpi {
            acpi.reset();
        }
        self.pci = Pci::default();
        self.request = None;
        self.plug_functions();
        self.synchronize(mem);
    }

    fn plug_functions(&mut self) {
        self.pci.plug(&self.vga);
        self.pci.plug(&self.ide);
        self.acpi.iter().for_each(|acpi| self.pci.plug(acpi));
        self.p9.iter().for_each(|p9| self.pci.plug(p9));
        self.console.iter().for_each(|console| self.pci.plug(console));
    }

    /// Derives everything that follows from the devices' state: to be called after that was
    /// changed from outside (a restored state).
    pub fn synchronize(&mut self, mem: &mut Memory) {
        self.map_ports();
        self.map_video(mem);
        self.interrupts.adopt_lines(1 << PIT_IRQ | 1 << FPU_IRQ);
        for port in 0..self.uarts.len() {
            self.uart_changed(port);
        }
        for channel in 0..ide::IRQS.len() {
            self.drive_ide(channel);
        }
        self.drive_p9();
        self.drive_console();
        self.interrupts.set_pci(self.pci.irq_levels());
        self.interrupts.update();
        let now = self.clock.now();
        for timer in Timer::ALL {
            self.timer_changed(timer, now);
        }
        self.yield_requested = true;
    }

    /// Takes what the guest has asked for, if it has.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// Guest time of an access. A deadline that has passed unseen, because the slice takes longer
    /// than was thought, ends it.
    fn time_of_access(&mut self) -> u64 {
        let now = self.clock.now();
        self.yield_requested |= self.timers.next().is_some_and(|deadline| deadline <= now);
        now
    }

    fn ask(&mut self, request: Request) {
        tracing::debug!(target: "board", ?request, "the guest asks");
        self.request.get_or_insert(request);
        self.yield_requested = true;
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
        let apic = self.interrupts.apics.as_ref().and_then(|apics| apics.local.interrupt_period());
        let periods = [self.pit.period(), self.rtc.interrupt_period(), apic];
        periods.into_iter().flatten().min().map_or(u64::MAX, |shortest| shortest / 2)
    }

    /// Begins a slice of execution: lets devices take notice of the time, and of input that waits.
    /// A deadline that comes to lie before `end` during the slice makes the processor return.
    pub(crate) fn begin_slice(&mut self, now: u64) {
        if self.timers.next().is_some_and(|deadline| deadline <= now) {
            for timer in Timer::ALL {
                if self.timers.due(timer, now) {
                    self.poll_timer(timer, now);
                }
            }
        }
        for port in 0..self.uarts.len() {
            let Some(uart) = &mut self.uarts[port] else { continue };
            uart.slice_over();
            if !uart.input.is_empty() {
                self.uart_changed(port);
            }
        }
        self.yield_requested = false;
    }

    /// The processor has halted.
    pub(crate) fn halted(&mut self) {
        self.uarts.iter_mut().flatten().for_each(Uart::halted);
    }

    /// Sets the time at which the slice that begins will be over.
    pub(crate) fn set_slice_end(&mut self, end: u64) {
        self.timers.set_slice_end(end);
    }

    fn poll_timer(&mut self, timer: Timer, now: u64) {
        match timer {
            Timer::Apic => {
                if let Some(apics) = &mut self.interrupts.apics {
                    apics.local.poll(now);
                    self.interrupts.update();
                }
            }
            Timer::Acpi => {
                if let Some(acpi) = &mut self.acpi {
                    acpi.poll(now);
                }
            }
            Timer::Rtc => {
                self.rtc.poll(now, self.clock.unix_millis());
            }
            Timer::Ps2 => self.ps2.poll(now),
            // Polled when its line is carried, below.
            Timer::Pit => {}
        }
        self.timer_changed(timer, now);
    }

    /// Carries the line of a device with a timer, and takes over its next deadline.
    fn timer_changed(&mut self, timer: Timer, now: u64) {
        let next = match timer {
            Timer::Pit => {
                match self.pit.poll(now) {
                    Irq0::Rose => self.interrupts.pulse_isa(PIT_IRQ),
                    Irq0::Fell => self.interrupts.set_isa(PIT_IRQ, false),
                    Irq0::Unchanged => {}
                }
                self.pit.next_event(now)
            }
            Timer::Rtc => {
                self.interrupts.set_isa(RTC_IRQ, self.rtc.irq());
                self.rtc.next_event(now, self.clock.unix_millis())
            }
            Timer::Ps2 => {
                self.interrupts.set_isa(ps2::IRQ_KEYBOARD, self.ps2.irq1());
                self.interrupts.set_isa(ps2::IRQ_MOUSE, self.ps2.irq12());
                self.ps2.next_event()
            }
            Timer::Apic => self.interrupts.apics.as_ref().and_then(|apics| apics.local.next_event()),
            Timer::Acpi => self.acpi.as_ref().and_then(|acpi| {
                self.interrupts.set_isa(acpi::SCI_IRQ, acpi.sci());
                acpi.next_event()
            }),
        };
        self.yield_requested |= self.timers.set(timer, next);
    }

    /// Carries the line of a UART, which two ports share.
    fn uart_changed(&mut self, port: usize) {
        if let Some(uart) = &mut self.uarts[port] {
            uart.poll();
        }
        self.drive_uart_line(port);
    }

    fn drive_uart_line(&mut self, port: usize) {
        let irq = uart::IRQS[port];
        let sharing = self.uarts.iter().zip(uart::IRQS).filter(|(_, other)| *other == irq);
        let level = sharing.filter_map(|(uart, _)| uart.as_ref()).any(Uart::irq);
        self.interrupts.set_isa(irq, level);
    }

    /// Carries the interrupt pin of a PCI function.
    fn drive_function(&mut self, devfn: u8, level: bool) {
        if self.pci.set_interrupt(devfn, level) {
            self.interrupts.set_pci(self.pci.irq_levels());
        }
    }

    /// Carries the line of an IDE channel.
    fn drive_ide(&mut self, channel: usize) {
        let Some(irq) = ide::IRQS.get(channel) else { return };
        // Where the machine stands still until data have come, it does so behind this instruction, and
        // whether it does makes no other difference.
        self.yield_requested |= self.ide.take_asked();
        if self.ide.take_pulse(channel) {
            self.interrupts.pulse_isa(*irq);
        } else {
            self.interrupts.set_isa(*irq, self.ide.irq(channel));
        }
    }

    fn drive_p9(&mut self) {
        self.drive_function(p9::DEVFN, self.p9.as_ref().is_some_and(Virtio9p::irq));
    }

    fn drive_console(&mut self) {
        self.drive_function(console::DEVFN, self.console.as_ref().is_some_and(VirtioConsole::irq));
    }

    /// Gives a serial port input; tells how many bytes it took. 0 is COM1.
    pub fn serial_input(&mut self, port: usize, bytes: &[u8]) -> usize {
        let Some(uart) = self.uarts.get_mut(port).and_then(Option::as_mut) else { return 0 };
        let taken = uart.push_input(bytes);
        self.drive_uart_line(port);
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
        self.drive_console();
        taken
    }

    /// Takes what the guest has written to a port of the virtio console.
    pub fn console_output(&mut self, mem: &mut Memory, port: usize) -> Vec<u8> {
        let Some(console) = &mut self.console else { return Vec::new() };
        let output = console.drain_output(port);
        console.poll(mem);
        self.drive_console();
        output
    }

    /// Tells the guest the size of the virtio console's screen.
    pub fn set_console_size(&mut self, mem: &mut Memory, columns: u16, rows: u16) {
        if let Some(console) = &mut self.console {
            console.set_size(mem, columns, rows);
            self.drive_console();
        }
    }

    /// Contents of files that the guest waits for have come.
    pub fn files_arrived(&mut self, mem: &mut Memory) {
        let unix_ns = self.unix_ns();
        if let Some(p9) = &mut self.p9 {
            p9.poll(mem, unix_ns);
            self.drive_p9();
        }
    }

    /// Data that drives wait for have come from their media.
    pub fn media_arrived(&mut self, mem: &mut Memory) {
        self.ide.media_arrived(mem);
        (0..ide::IRQS.len()).for_each(|channel| self.drive_ide(channel));
    }

    /// Changes the disc in the CD-ROM drive, or takes it out, while the machine runs.
    pub fn change_disc(&mut self, mem: &mut Memory, disc: Option<ide::Medium>) -> Result<(), ide::DiscError> {
        let result = self.ide.change_disc(mem, disc);
        (0..ide::IRQS.len()).for_each(|channel| self.drive_ide(channel));
        result
    }

    /// The guest waits for data of a medium or of a file that have not come yet.
    pub fn waits_for_data(&self) -> bool {
        self.ide.waits() || self.p9.as_ref().is_some_and(|p9| !p9.held.is_empty())
    }

    /// Wall time in nanoseconds since 1970.
    fn unix_ns(&mut self) -> u64 {
        u64::try_from(self.clock.unix_millis()).unwrap_or(0).saturating_mul(1_000_000)
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
        self.timer_changed(Timer::Ps2, now);
        result
    }

    /// Presses the power button, which a board without ACPI has not.
    pub fn press_power_button(&mut self) {
        if let Some(acpi) = &mut self.acpi {
            acpi.press_power_button();
            self.interrupts.set_isa(acpi::SCI_IRQ, acpi.sci());
        }
    }

    /// Bytes that wait to be taken by the host, on the connected port that has most of them.
    pub(crate) fn output_waiting(&self) -> usize {
        let serial = self.uarts.iter().zip(self.connected.serial).filter(|(_, connected)| *connected);
        let serial = serial.filter_map(|(uart, _)| Some(uart.as_ref()?.output.len()));
        let console =
            self.console.iter().flat_map(|console| console.ports.iter().zip(self.connected.console));
        let console = console.filter(|(_, connected)| *connected).map(|(port, _)| port.output.len());
        serial.chain(console).chain([self.debug.waiting()]).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
