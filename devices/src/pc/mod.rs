//! The board: every device by value, wired as a PC is.
//!
//! Ports are decoded by a table ([`ports::PortMap`]), memory-mapped registers by address. After each
//! access the board carries the device's interrupt line to the controllers and keeps the time at
//! which a timer must be looked at next, so that nothing is ever polled in between.

mod clock;
pub mod interrupts;
pub mod ports;
mod timers;

use crate::acpi::{self, Acpi};
use crate::debug::{self, DebugConsole};
use crate::dma::Dma;
use crate::fs::{BlobStore, Filesystem};
use crate::fw_cfg::{self, FwCfg};
use crate::pci::{self, Effect, Pci};
use crate::pit::{self, Irq0, Pit};
use crate::ps2::{self, Ps2};
use crate::rtc::{self, CmosConfig, Rtc};
use crate::system_control::{self, SystemControl};
use crate::uart::{self, Uart};
use crate::vga::{self, Vga};
use crate::virtio::{console, console::VirtioConsole, p9, p9::Virtio9p};
use crate::{apic, ioapic, pic};
pub use clock::{Clock, Entropy, ManualClock, Seeded, VirtualClock};
use env86_emu::{Bus, Memory, Width};
pub use interrupts::Interrupts;
use ports::{PortMap, Region, Target};
use timers::{Timer, Timers};

const PIT_IRQ: u8 = 0;
const RTC_IRQ: u8 = 8;
const FPU_IRQ: u8 = 13;
/// A write clears the FPU's error (82371SB, 2.5.6.2: Coprocessor Error).
const FPU_ERROR_CLEAR: u16 = 0xf0;
/// Output that waits on a port before the machine stops for it to be taken, in bytes.
pub(crate) const OUTPUT_LIMIT: usize = 4096;

/// What a board is built from.
pub struct Config {
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
    /// A video BIOS, visible at [`vga::ROM`].
    pub vga_rom: Vec<u8>,
    /// A guest's write to this port ends the program.
    pub debug_exit: Option<u16>,
    /// Files for the guest over virtio-9p, with the contents of their image.
    pub filesystem: Option<(Filesystem, Box<dyn BlobStore>)>,
    /// A virtio console is fitted.
    pub virtio_console: bool,
}

impl Default for Config {
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

/// The board.
pub struct Pc {
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
    /// ACPI power management, if fitted.
    pub acpi: Option<Acpi>,
    /// Files over virtio, if fitted.
    pub p9: Option<Virtio9p>,
    /// Virtio console, if fitted.
    pub console: Option<VirtioConsole>,
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

impl Pc {
    /// A board after power-on.
    pub fn new(config: Config, clock: Box<dyn Clock>, entropy: Box<dyn Entropy>) -> Self {
        let cmos = CmosConfig { memory_size: config.memory_size, ..config.cmos };
        let mut pc = Self {
            interrupts: Interrupts::new(config.acpi),
            pit: Pit::default(),
            rtc: Rtc::new(&cmos),
            dma: Dma::default(),
            system_control: SystemControl::default(),
            ps2: Ps2::default(),
            uarts: config.uarts.map(|fitted| fitted.then(Uart::default)),
            pci: Pci::default(),
            vga: Vga::new(config.vga_memory_size),
            acpi: config.acpi.then(Acpi::default),
            p9: config.filesystem.map(|(files, store)| Virtio9p::new(files, store)),
            console: config.virtio_console.then(VirtioConsole::default),
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
        pc.plug_functions();
        pc.synchronize();
        pc
    }

    /// What a reset of the board does to its devices. Memory is not theirs.
    pub fn reset(&mut self) {
        self.interrupts.reset();
        self.pit = Pit::default();
        self.rtc.reset();
        self.dma.reset();
        self.system_control = SystemControl::default();
        self.ps2.reset();
        self.uarts.iter_mut().flatten().for_each(Uart::reset);
        self.p9.iter_mut().for_each(Virtio9p::reset);
        self.console.iter_mut().for_each(VirtioConsole::reset);
        self.vga.reset();
        self.fw_cfg.reset();
        if let Some(acpi) = &mut self.acpi {
            acpi.reset();
        }
        self.pci = Pci::default();
        self.request = None;
        self.plug_functions();
        self.synchronize();
    }

    fn plug_functions(&mut self) {
        self.pci.plug(&self.vga);
        self.acpi.iter().for_each(|acpi| self.pci.plug(acpi));
        self.p9.iter().for_each(|p9| self.pci.plug(p9));
        self.console.iter().for_each(|console| self.pci.plug(console));
    }

    /// Derives everything that follows from the devices' state: to be called after that was
    /// changed from outside (a restored state).
    pub fn synchronize(&mut self) {
        self.map_ports();
        for port in 0..self.uarts.len() {
            self.uart_changed(port);
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

    /// Fills the port table: what moves first, what stays where it is over that.
    fn map_ports(&mut self) {
        type Decode = fn(u8) -> Target;
        const MOVABLE: [(u8, Decode); 2] = [(p9::DEVFN, Target::P9), (console::DEVFN, Target::VirtioConsole)];
        let ports = &mut self.ports;
        ports.clear();
        for (devfn, target) in MOVABLE {
            let Some(space) = self.pci.function(devfn) else { continue };
            for bar in 0..pci::BARS {
                if let Some(port) = space.bar(bar) {
                    ports.claim(port as u16, space.io_ports(bar), target(bar as u8));
                }
            }
        }
        ports.claim(0x00, 16, Target::Dma);
        ports.claim(0x81, 15, Target::Dma);
        ports.claim(0xc0, 32, Target::Dma);
        ports.claim(0x481, 15, Target::Dma);
        ports.claim(pic::PORT_MASTER_COMMAND, 2, Target::Pic);
        ports.claim(pic::PORT_SLAVE_COMMAND, 2, Target::Pic);
        ports.claim(pic::PORT_MASTER_ELCR, 2, Target::Pic);
        ports.claim(pit::PORT_COUNTER0, 4, Target::Pit);
        ports.claim(system_control::PORT_B, 1, Target::SystemControl);
        ports.claim(system_control::PORT_A, 1, Target::SystemControl);
        ports.claim(ps2::PORT_DATA, 1, Target::Ps2);
        ports.claim(ps2::PORT_COMMAND, 1, Target::Ps2);
        ports.claim(rtc::PORT_INDEX, 2, Target::Rtc);
        ports.claim(FPU_ERROR_CLEAR, 1, Target::FpuError);
        for (number, base) in (0..).zip(uart::PORTS) {
            if self.uarts[usize::from(number)].is_some() {
                ports.claim(base, uart::PORT_COUNT, Target::Uart(number));
            }
        }
        ports.claim(0x3b4, 2, Target::Vga);
        ports.claim(0x3ba, 1, Target::Vga);
        ports.claim(0x3c0, 16, Target::Vga);
        ports.claim(0x3d4, 2, Target::Vga);
        ports.claim(0x3da, 1, Target::Vga);
        ports.claim(vga::VBE_INDEX, 2, Target::Vbe);
        ports.claim(fw_cfg::PORT_SELECT, 2, Target::FwCfg);
        ports.claim(debug::PORT_E9, 1, Target::DebugConsole);
        ports.claim(debug::PORT_SEABIOS, 1, Target::DebugConsole);
        ports.claim(pci::CONFIG_ADDRESS, 8, Target::Pci);
        if self.acpi.is_some() {
            ports.claim(acpi::GPE0_BASE, acpi::GPE0_PORTS, Target::Acpi);
            ports.claim(acpi::PM_BASE, acpi::PM_PORTS, Target::Acpi);
            ports.claim(acpi::SMI_COMMAND, 2, Target::Acpi);
        }
        if let Some(port) = self.debug_exit {
            ports.claim(port, 4, Target::DebugExit);
        }
    }

    /// Takes what the guest has asked for, if it has.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    fn ask(&mut self, request: Request) {
        tracing::debug!(target: "pc", ?request, "the guest asks");
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
            if self.uarts[port].as_ref().is_some_and(|uart| !uart.input.is_empty()) {
                self.uart_changed(port);
            }
        }
        self.yield_requested = false;
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

    /// Bytes that wait to be taken by the host, on the port that has most of them.
    pub(crate) fn output_waiting(&self) -> usize {
        let serial = self.uarts.iter().flatten().map(|uart| uart.output.len());
        let console = self.console.iter().flat_map(|console| &console.ports).map(|port| port.output.len());
        serial.chain(console).chain([self.debug.waiting()]).max().unwrap_or(0)
    }

    /// An access that one device takes in one piece.
    fn read_device(&mut self, region: Region, port: u16, width: Width) -> u32 {
        let now = self.clock.now();
        match region.target {
            Target::None | Target::DebugExit | Target::FpuError => width.mask(),
            Target::Dma => self.dma.read(port).into(),
            Target::Pic => {
                let value = self.interrupts.pic.read(port);
                self.interrupts.update();
                value.into()
            }
            Target::Pit => {
                let value = self.pit.read(port, now);
                self.timer_changed(Timer::Pit, now);
                value.into()
            }
            Target::SystemControl => self.system_control.read(port, &self.pit, now).into(),
            Target::Rtc => {
                let value = self.rtc.read(port, now, self.clock.unix_millis());
                self.timer_changed(Timer::Rtc, now);
                value.into()
            }
            Target::Uart(number) => {
                let uart = self.uarts[usize::from(number)].as_mut();
                let value = uart.map_or(0xff, |uart| uart.read(port - region.base));
                self.drive_uart_line(number.into());
                value.into()
            }
            Target::Vga => self.vga.read(port, now).into(),
            Target::Vbe => self.vga.read_vbe(port).into(),
            Target::FwCfg if port == fw_cfg::PORT_DATA => self.fw_cfg.read().into(),
            Target::FwCfg => width.mask(),
            Target::DebugConsole => debug::PRESENT.into(),
            Target::Pci => self.pci.read(port, width),
            Target::Acpi => {
                let value = self.acpi.as_mut().map_or(width.mask(), |acpi| acpi.read(port, width, now));
                self.timer_changed(Timer::Acpi, now);
                value
            }
            Target::Ps2 => {
                let value = self.ps2.read(port, now);
                self.timer_changed(Timer::Ps2, now);
                value.into()
            }
            Target::P9(bar) => {
                let offset = port - region.base;
                let value =
                    self.p9.as_mut().map_or(width.mask(), |p9| p9.port_read(bar.into(), offset, width));
                self.drive_p9();
                value
            }
            Target::VirtioConsole(bar) => {
                let offset = port - region.base;
                let console = self.console.as_mut();
                let value =
                    console.map_or(width.mask(), |console| console.port_read(bar.into(), offset, width));
                self.drive_console();
                value
            }
        }
    }

    /// An access that one device takes in one piece.
    fn write_device(&mut self, mem: &mut Memory, region: Region, port: u16, width: Width, value: u32) {
        let now = self.clock.now();
        let byte = value as u8;
        match region.target {
            Target::None => {}
            Target::Dma => self.dma.write(port, byte),
            Target::Pic => {
                self.interrupts.pic.write(port, byte);
                self.interrupts.update();
            }
            Target::Pit => {
                self.pit.write(port, byte, now);
                self.timer_changed(Timer::Pit, now);
            }
            Target::SystemControl => {
                self.system_control.write(port, byte, &mut self.pit, now);
                if self.system_control.take_reset() {
                    self.ask(Request::Reset);
                }
            }
            Target::Rtc => {
                self.rtc.write(port, byte, now, self.clock.unix_millis());
                self.timer_changed(Timer::Rtc, now);
            }
            Target::FpuError => self.interrupts.set_isa(FPU_IRQ, false),
            Target::Uart(number) => {
                if let Some(uart) = &mut self.uarts[usize::from(number)] {
                    uart.write(port - region.base, byte);
                    self.yield_requested |= uart.output.len() > OUTPUT_LIMIT;
                }
                self.drive_uart_line(number.into());
            }
            Target::Vga => self.vga.write(port, byte),
            Target::Vbe => self.vga.write_vbe_port(port, value as u16),
            Target::FwCfg if port == fw_cfg::PORT_SELECT => self.fw_cfg.select(value as u16),
            Target::FwCfg => {}
            Target::DebugConsole => {
                self.debug.write(byte);
                self.yield_requested |= self.debug.waiting() > OUTPUT_LIMIT;
            }
            Target::DebugExit => self.ask(Request::DebugExit(value)),
            Target::Pci => self.write_pci(port, width, value),
            Target::Acpi => {
                if self.acpi.as_mut().is_some_and(|acpi| acpi.write(port, width, value, now)) {
                    self.ask(Request::PowerOff);
                }
                self.timer_changed(Timer::Acpi, now);
            }
            Target::Ps2 => {
                self.ps2.write(port, byte, now);
                self.timer_changed(Timer::Ps2, now);
                if self.ps2.take_reset() {
                    self.ask(Request::Reset);
                }
            }
            Target::P9(bar) => {
                let unix_ns = self.unix_ns();
                if let Some(p9) = &mut self.p9 {
                    p9.port_write(mem, bar.into(), port - region.base, width, value, unix_ns);
                }
                self.drive_p9();
            }
            Target::VirtioConsole(bar) => {
                if let Some(console) = &mut self.console {
                    console.port_write(mem, bar.into(), port - region.base, width, value);
                }
                self.drive_console();
                self.yield_requested |= self.output_waiting() > OUTPUT_LIMIT;
            }
        }
    }

    fn write_pci(&mut self, port: u16, width: Width, value: u32) {
        match self.pci.write(port, width, value) {
            Effect::None => {}
            Effect::Decode(_) => self.map_ports(),
            Effect::Routing => self.interrupts.set_pci(self.pci.irq_levels()),
            Effect::Reset => self.ask(Request::Reset),
        }
    }

    /// Where an access goes, if one device takes it in one piece.
    fn whole(&self, port: u16, width: Width) -> Option<Region> {
        let region = self.ports.find(port);
        let fits = match region.target {
            _ if width == Width::Byte => true,
            // Only if nobody has the ports after it either.
            Target::None => {
                (1..width.bytes() as u16).all(|i| self.ports.find(port.wrapping_add(i)) == region)
            }
            Target::Vbe => width == Width::Word,
            Target::FwCfg => width == Width::Word && port == fw_cfg::PORT_SELECT,
            Target::Pci => u32::from(port & 3) + width.bytes() <= 4,
            Target::Acpi | Target::DebugExit | Target::P9(_) | Target::VirtioConsole(_) => {
                self.ports.find(port.wrapping_add(width.bytes() as u16 - 1)) == region
            }
            _ => false,
        };
        fits.then_some(region)
    }
}

impl Bus for Pc {
    fn port_read(&mut self, _mem: &mut Memory, port: u16, width: Width) -> u32 {
        if let Some(region) = self.whole(port, width) {
            return self.read_device(region, port, width);
        }
        // A device of bytes gets them one by one, the lowest first, as on the ISA bus.
        (0..width.bytes()).fold(0, |value, i| {
            let port = port.wrapping_add(i as u16);
            let byte = self.read_device(self.ports.find(port), port, Width::Byte);
            value | (byte & 0xff) << (8 * i)
        })
    }

    fn port_write(&mut self, mem: &mut Memory, port: u16, width: Width, value: u32) {
        if let Some(region) = self.whole(port, width) {
            return self.write_device(mem, region, port, width, value);
        }
        for (i, byte) in (0..width.bytes() as u16).zip(value.to_le_bytes()) {
            let port = port.wrapping_add(i);
            self.write_device(mem, self.ports.find(port), port, Width::Byte, byte.into());
        }
    }

    fn mmio_read(&mut self, _mem: &mut Memory, addr: u32, width: Width) -> u32 {
        const PAGE: u32 = 0x1000;
        if let Some(offset) = within(addr, vga::WINDOW, vga::WINDOW_SIZE) {
            return self.vga.read_window(offset, width);
        }
        if let Some(offset) = within(addr, vga::FRAMEBUFFER, self.vga.framebuffer.len() as u32) {
            return self.vga.read_framebuffer(offset, width);
        }
        // Registers are dwords; a narrower access sees its part of one.
        let lane = 8 * (addr & 3);
        let value = if let Some(offset) = within(addr, apic::BASE, apic::WINDOW) {
            let now = self.clock.now();
            let value = self.interrupts.read_local(offset & !3, now);
            self.timer_changed(Timer::Apic, now);
            value
        } else if let Some(offset) = within(addr, ioapic::BASE, PAGE) {
            self.interrupts.apics.as_ref().map(|apics| apics.io.read(offset & !3))
        } else {
            return within(addr, vga::ROM, vga::ROM_SIZE).map_or(width.mask(), |at| self.read_rom(at, width));
        };
        value.map_or(width.mask(), |value| value >> lane & width.mask())
    }

    fn mmio_write(&mut self, _mem: &mut Memory, addr: u32, width: Width, value: u32) {
        const PAGE: u32 = 0x1000;
        if let Some(offset) = within(addr, vga::WINDOW, vga::WINDOW_SIZE) {
            self.vga.write_window(offset, width, value);
        } else if let Some(offset) = within(addr, vga::FRAMEBUFFER, self.vga.framebuffer.len() as u32) {
            self.vga.write_framebuffer(offset, width, value);
        } else if let Some(offset) = within(addr, apic::BASE, apic::WINDOW) {
            let now = self.clock.now();
            self.interrupts.write_local(offset & !3, value, now);
            self.timer_changed(Timer::Apic, now);
        } else if let Some(offset) = within(addr, ioapic::BASE, PAGE) {
            self.interrupts.write_io(offset & !3, value);
        }
    }

    fn interrupt(&self) -> bool {
        self.interrupts.interrupt()
    }

    fn acknowledge(&mut self) -> u8 {
        self.interrupts.acknowledge()
    }

    fn yield_requested(&self) -> bool {
        self.yield_requested
    }

    fn now(&mut self) -> u64 {
        self.clock.now()
    }

    fn fpu_error(&mut self) {
        self.interrupts.set_isa(FPU_IRQ, true);
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
            let now = self.clock.now();
            self.timer_changed(Timer::Apic, now);
        }
    }
}

impl Pc {
    fn read_rom(&self, offset: u32, width: Width) -> u32 {
        if self.vga_rom.is_empty() {
            return width.mask();
        }
        let byte = |at: u32| self.vga_rom.get(at as usize).copied().unwrap_or(0);
        (0..width.bytes()).rev().fold(0, |value, i| value << 8 | u32::from(byte(offset + i)))
    }
}

/// The offset of an address in a window, if it is in it.
fn within(addr: u32, base: u32, size: u32) -> Option<u32> {
    addr.checked_sub(base).filter(|offset| *offset < size)
}

#[cfg(test)]
mod tests;
