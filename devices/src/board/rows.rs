//! Every device on the board: a row each in the list, and under it how the board reaches it.
//!
//! A row is the device's field on the board, its type, and how it is made from the configuration. What
//! the board needs to know besides is the device's `Device`: which ports and memory it claims, how an
//! access reaches it, what a reset does, its deadlines, its lines, its PCI function, its entries in a
//! state. A chip whose registers need nothing but bytes keeps its plain `read` and `write`.

use super::decode::{Act, Kind};
use super::device::{
    Access, Claims, Context, Device, Lines, MemoryAccess, Parts, Plug, Time, Visitor, Widths,
};
use super::interrupts::Interrupts;
use super::ports::{MemoryMap, PortMap};
use super::requests::{Connected, OUTPUT_LIMIT, Request, Requests};
use super::timers::Timers;
use super::{Clock, Entropy};
use crate::acpi::{self, Acpi};
use crate::debug::{self, DebugConsole};
use crate::dma::{self, Dma};
use crate::floppy::{self, Floppy};
use crate::fs::{BlobStore, Filesystem};
use crate::fw_cfg::{self, FwCfg};
use crate::ide::{self, Ide};
use crate::lpt::Lpt;
use crate::ne2k::{self, Ne2k};
use crate::pci::{self, Effect, Pci};
use crate::pit::{self, Irq0, Pit};
use crate::ps2::{self, Ps2};
use crate::rtc::{self, CmosConfig, Rtc};
use crate::sb16::{self, Sb16};
use crate::system_control::{self, SystemControl};
use crate::uart::{self, Uart};
use crate::vga::{self, Vga};
use crate::virtio::balloon::VirtioBalloon;
use crate::virtio::block::VirtioBlock;
use crate::virtio::console::{self, VirtioConsole};
use crate::virtio::net::VirtioNet;
use crate::virtio::p9::{self, Virtio9p};
use crate::virtio::shares::VirtioShares;
use crate::vmware::Backdoor;
use crate::{apic, ioapic, pic, virtio};
use env86_emu::Memory;

/// The line of the interval timer.
pub(super) const PIT_IRQ: u8 = 0;
const RTC_IRQ: u8 = 8;
/// The line of the FPU's errors.
pub(super) const FPU_IRQ: u8 = 13;
/// A write clears the FPU's error (82371SB, 2.5.6.2: Coprocessor Error).
const FPU_ERROR_CLEAR: u16 = 0xf0;

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
    /// A video BIOS, visible at [`crate::vga::ROM`].
    pub vga_rom: Vec<u8>,
    /// A guest's write to this port ends the program.
    pub debug_exit: Option<u16>,
    /// Files for the guest over virtio-9p, with the contents of their image.
    pub filesystem: Option<(Filesystem, Box<dyn BlobStore>)>,
    /// An NE2000 network card with this address is fitted.
    pub ne2k: Option<[u8; 6]>,
    /// A virtio network card with this address is fitted.
    pub virtio_net: Option<[u8; 6]>,
    /// A virtio console is fitted.
    pub virtio_console: bool,
    /// A virtio balloon is fitted.
    pub virtio_balloon: bool,
    /// The device for folders of the host is fitted.
    pub virtio_shares: bool,
    /// What is in a virtio disk, if one is fitted.
    pub virtio_block: Option<ide::Medium>,
    /// A parallel port with a printer is fitted.
    pub lpt: bool,
    /// Hard disks and CD-ROM drives.
    pub ide: ide::Units,
    /// What is in the floppy drives A and B.
    pub floppies: [Option<floppy::Disk>; floppy::DRIVES],
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
            vga_rom: Vec::new(),
            debug_exit: None,
            filesystem: None,
            ne2k: Some(ne2k::MAC),
            virtio_net: None,
            virtio_console: false,
            virtio_balloon: false,
            virtio_shares: false,
            virtio_block: None,
            lpt: false,
            ide: ide::Units::default(),
            floppies: [None, None],
        }
    }
}

/// Makes the board of its rows: `field: type => how it is made;`. A device that is reached together with
/// others, or through the [`Context`], says so with `via`. The names in the head stand for the board,
/// and where a device is made for the configuration and the memory.
macro_rules! rows {
    (|$board:ident, $config:ident, $mem:ident|
     $($(#[$doc:meta])* $field:ident: $type:ty $(, via $via:ty: $device:expr)? => $made:expr;)*) => {
        /// The board.
        pub struct Board {
            $($(#[$doc])* pub $field: $type,)*
            /// The lines whose output a host takes.
            pub connected: Connected,
            pub(super) ports: PortMap,
            pub(super) memory: MemoryMap,
            pub(super) timers: Timers,
            pub(super) clock: Box<dyn Clock>,
            pub(super) entropy: Box<dyn Entropy>,
            pub(super) requests: Requests,
        }

        /// The row of a device, by the name of its field of [`Board`].
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Row {
            $($(#[$doc])* $field),*
        }

        impl Row {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$field),*];

            /// The device's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$field => stringify!($field)),* }
            }

            /// The device's entries in a state, by their names there.
            pub const fn states(self) -> &'static [&'static str] {
                match self { $(Self::$field => <rows!(@via $type $(, $via)?) as Device>::STATES),* }
            }
        }

        impl Board {
            /// The board with its devices, not yet wired.
            pub(super) fn made(
                mut $config: BoardConfig,
                $mem: &mut Memory,
                clock: Box<dyn Clock>,
                entropy: Box<dyn Entropy>,
            ) -> Self {
                Self {
                    $($field: $made,)*
                    connected: Connected::default(),
                    ports: PortMap::default(),
                    memory: MemoryMap::default(),
                    timers: Timers::default(),
                    clock,
                    entropy,
                    requests: Requests::default(),
                }
            }

            /// Lets a visitor see the device of a row.
            #[inline(always)]
            pub(super) fn visit<V: Visitor>(&mut self, row: Row, visitor: V) -> V::Output {
                let $board = self;
                match row {
                    $(Row::$field => {
                        let device = rows!(@device $board $field $(, $device)?);
                        visitor.visit(device, Parts {
                            dma: &mut $board.dma,
                            clock: &mut *$board.clock,
                            requests: &mut $board.requests,
                            connected: $board.connected,
                        })
                    })*
                }
            }

            /// Does something with the device of a row, and takes over its lines and its deadline: in
            /// each arm, so that a device that has none costs nothing.
            #[inline(always)]
            pub(super) fn act<K: Kind>(&mut self, mem: &mut Memory, row: Row, now: u64, kind: K) -> K::Output {
                let $board = self;
                match row {
                    $(Row::$field => {
                        let device = rows!(@device $board $field $(, $device)?);
                        let parts = Parts {
                            dma: &mut $board.dma,
                            clock: &mut *$board.clock,
                            requests: &mut $board.requests,
                            connected: $board.connected,
                        };
                        let (output, after) = Act { now, mem, kind }.visit(device, parts);
                        $board.carry(Row::$field, after);
                        output
                    })*
                }
            }

            /// The shortest period of a timer that starts anew by itself, in nanoseconds.
            pub(super) fn shortest_period(&self) -> Option<u64> {
                [$(rows!(@period self $field $(, $device)?)),*].into_iter().flatten().min()
            }
        }
    };
    (@via $type:ty) => { $type };
    (@via $type:ty, $via:ty) => { $via };
    (@device $board:ident $field:ident) => { &mut $board.$field };
    (@device $board:ident $field:ident, $device:expr) => { &mut $device };
    (@period $board:ident $field:ident) => { Device::period(&$board.$field) };
    (@period $board:ident $field:ident, $device:expr) => { None };
}

rows! { |board, config, mem|
    /// Graphics card.
    vga: Vga => Vga::new(mem, config.vga_memory_size);
    /// Interrupt controllers and the lines to them.
    interrupts: Interrupts => Interrupts::new(config.acpi);
    /// Interval timer.
    pit: Pit => Pit::default();
    /// Ports 61h and 92h.
    system_control: SystemControl,
        via Gates<'_>: Gates { control: &mut board.system_control, pit: &mut board.pit } =>
        SystemControl::default();
    /// Clock and CMOS.
    rtc: Rtc => {
        let (memory_size, disks) = (config.memory_size, config.ide.cmos());
        let floppy_types = floppy::cmos(&config.floppies);
        Rtc::new(&CmosConfig { memory_size, disks, floppy_types, ..config.cmos.clone() })
    };
    /// ISA DMA.
    dma: Dma, via DmaPorts<'_>: DmaPorts { sb16: &mut board.sb16 } => Dma::default();
    /// Keyboard and mouse.
    ps2: Ps2 => Ps2::default();
    /// COM1 to COM4.
    uarts: [Option<Uart>; 4] => config.uarts.map(|fitted| fitted.then(Uart::default));
    /// Parallel port, if fitted.
    lpt: Option<Lpt> => config.lpt.then(Lpt::default);
    /// PCI bus.
    pci: Pci => Pci::default();
    /// Hard disks and CD-ROM drives.
    ide: Ide => Ide::new(std::mem::take(&mut config.ide));
    /// Floppy disks.
    floppy: Floppy => Floppy::new(std::mem::take(&mut config.floppies));
    /// Sound card.
    sb16: Sb16 => Sb16::default();
    /// ACPI power management, if fitted.
    acpi: Option<Acpi> => config.acpi.then(Acpi::default);
    /// NE2000 network card, if fitted.
    ne2k: Option<Ne2k> => config.ne2k.map(Ne2k::new);
    /// Virtio network card, if fitted.
    virtio_net: Option<VirtioNet> => config.virtio_net.map(VirtioNet::new);
    /// Files over virtio, if fitted.
    p9: Option<Virtio9p> => config.filesystem.take().map(|(files, store)| Virtio9p::new(files, store));
    /// Virtio console, if fitted.
    console: Option<VirtioConsole> => config.virtio_console.then(VirtioConsole::default);
    /// Virtio balloon, if fitted.
    balloon: Option<VirtioBalloon> => config.virtio_balloon.then(VirtioBalloon::default);
    /// Folders of the host over virtio, if fitted.
    shares: Option<VirtioShares> => config.virtio_shares.then(VirtioShares::default);
    /// Virtio disk, if fitted.
    block: Option<VirtioBlock> => config.virtio_block.take().map(VirtioBlock::new);
    /// Calls to the hypervisor.
    backdoor: Backdoor => Backdoor::default();
    /// Firmware configuration.
    fw_cfg: FwCfg => FwCfg::new(config.memory_size);
    /// Debug console.
    debug: DebugConsole => DebugConsole::default();
    /// The video BIOS, if there is one.
    video_rom: VideoRom => VideoRom(std::mem::take(&mut config.vga_rom));
    /// The latch of the FPU's errors.
    fpu: FpuError => FpuError::default();
    /// The port that ends the program, if there is one.
    debug_exit: DebugExit => DebugExit(config.debug_exit);
}

impl Device for Vga {
    const STATES: &'static [&'static str] = &["vga"];

    fn reset(&mut self, mem: &mut Memory) {
        self.reset(mem);
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &[]))
    }

    fn claims(&self, claims: &mut Claims) {
        for ports in [vga::MONO_PORTS, vga::PORTS] {
            claims.ports(0, *ports.start(), ports.end() - ports.start() + 1, Widths::Bytes);
        }
        claims.ports(1, vga::VBE_INDEX, 2, Widths::Words);
        claims.memory(0, vga::WINDOW, vga::WINDOW_SIZE);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        if at.window == 0 { self.read(at.port, cx.time.now).into() } else { self.read_vbe(at.port).into() }
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        if at.window == 0 {
            self.write(cx.mem, at.port, value as u8, cx.time.now);
        } else {
            self.write_vbe_port(cx.mem, at.port, value as u16);
        }
    }

    fn read_memory(&mut self, cx: &mut Context, at: MemoryAccess) -> u32 {
        self.read_window(cx.mem, at.offset, at.width)
    }

    fn write_memory(&mut self, cx: &mut Context, at: MemoryAccess, value: u32) {
        self.write_window(cx.mem, at.offset, at.width, value);
    }
}

impl Interrupts {
    const LOCAL: u8 = 0;
    /// Bytes of the I/O APIC's registers.
    const IO_WINDOW: u32 = 0x1000;
}

impl Device for Interrupts {
    const STATES: &'static [&'static str] = &["pic", "apic", "ioapic"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        for base in [pic::PORT_MASTER_COMMAND, pic::PORT_SLAVE_COMMAND, pic::PORT_MASTER_ELCR] {
            claims.ports(0, base, 2, Widths::Bytes);
        }
        if self.apics.is_some() {
            claims.memory(Self::LOCAL, apic::BASE, apic::WINDOW);
            claims.memory(1, ioapic::BASE, Self::IO_WINDOW);
        }
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        let value = self.pic.read(at.port);
        self.update();
        value.into()
    }

    fn write(&mut self, _: &mut Context, at: Access, value: u32) {
        self.pic.write(at.port, value as u8);
        self.update();
    }

    /// Registers are doublewords; a narrower access sees its part of one.
    fn read_memory(&mut self, cx: &mut Context, at: MemoryAccess) -> u32 {
        let register = at.offset & !3;
        let value = if at.window == Self::LOCAL {
            self.read_local(register, cx.time.now)
        } else {
            self.apics.as_ref().map(|apics| apics.io.read(register))
        };
        value.map_or(at.width.mask(), |value| value >> (8 * (at.offset & 3)) & at.width.mask())
    }

    fn write_memory(&mut self, cx: &mut Context, at: MemoryAccess, value: u32) {
        if at.window == Self::LOCAL {
            self.write_local(at.offset & !3, value, cx.time.now);
        } else {
            self.write_io(at.offset & !3, value);
        }
    }

    fn poll(&mut self, cx: &mut Context) {
        if let Some(apics) = &mut self.apics {
            apics.local.poll(cx.time.now);
            self.update();
        }
    }

    fn deadline(&mut self, _: &mut Time) -> Option<u64> {
        self.apics.as_ref().and_then(|apics| apics.local.next_event())
    }

    fn period(&self) -> Option<u64> {
        self.apics.as_ref().and_then(|apics| apics.local.interrupt_period())
    }
}

impl Device for Pit {
    const STATES: &'static [&'static str] = &["pit"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        *self = Self::default();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, pit::PORT_COUNTER0, pit::PORT_CONTROL - pit::PORT_COUNTER0 + 1, Widths::Bytes);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.read(at.port, cx.time.now).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.write(at.port, value as u8, cx.time.now);
    }

    fn poll(&mut self, cx: &mut Context) {
        self.speaker.run(cx.time.now);
    }

    fn deadline(&mut self, time: &mut Time) -> Option<u64> {
        self.next_event(time.now).into_iter().chain(self.speaker.next_event()).min()
    }

    fn period(&self) -> Option<u64> {
        self.period()
    }

    fn lines(&mut self, now: u64) -> Lines {
        match self.poll(now) {
            Irq0::Rose => Lines::pulse(PIT_IRQ),
            Irq0::Fell => Lines::isa(PIT_IRQ, false),
            Irq0::Unchanged => Lines::NONE,
        }
    }
}

/// Ports 61h and 92h, with the timer that they gate.
pub(super) struct Gates<'a> {
    control: &'a mut SystemControl,
    pit: &'a mut Pit,
}

impl Device for Gates<'_> {
    fn reset(&mut self, _: &mut Memory) {
        *self.control = SystemControl::default();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, system_control::PORT_B, 1, Widths::Bytes);
        claims.ports(0, system_control::PORT_A, 1, Widths::Bytes);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.control.read(at.port, self.pit, cx.time.now).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.control.write(at.port, value as u8, self.pit, cx.time.now);
        if self.control.take_reset() {
            cx.requests.ask(Request::Reset);
        }
    }
}

impl Device for Rtc {
    const STATES: &'static [&'static str] = &["rtc"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, rtc::PORT_INDEX, 2, Widths::Bytes);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.read(at.port, cx.time.now, cx.time.unix_millis()).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.write(at.port, value as u8, cx.time.now, cx.time.unix_millis());
    }

    fn poll(&mut self, cx: &mut Context) {
        self.poll(cx.time.now, cx.time.unix_millis());
    }

    fn deadline(&mut self, time: &mut Time) -> Option<u64> {
        self.next_event(time.now, time.unix_millis())
    }

    fn period(&self) -> Option<u64> {
        self.interrupt_period()
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::isa(RTC_IRQ, self.irq())
    }
}

/// The ports of the DMA controller, which itself is part of every device's [`Context`]. The sound card moves
/// its samples up to the moment at which the guest looks at a count, or changes a channel.
pub(super) struct DmaPorts<'a> {
    sb16: &'a mut Sb16,
}

impl Device for DmaPorts<'_> {
    const STATES: &'static [&'static str] = &["dma"];

    /// [`Board::reset`] resets it.
    fn reset(&mut self, _: &mut Memory) {}

    fn claims(&self, claims: &mut Claims) {
        for ports in dma::PORTS {
            claims.ports(0, *ports.start(), ports.end() - ports.start() + 1, Widths::Bytes);
        }
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.sb16.run(cx.mem, cx.dma, cx.time.now);
        cx.dma.read(at.port).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.sb16.run(cx.mem, cx.dma, cx.time.now);
        cx.dma.write(at.port, value as u8);
    }
}

impl Device for Ps2 {
    const STATES: &'static [&'static str] = &["ps2"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, ps2::PORT_DATA, 1, Widths::Bytes);
        claims.ports(0, ps2::PORT_COMMAND, 1, Widths::Bytes);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.read(at.port, cx.time.now).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.write(at.port, value as u8, cx.time.now);
        if self.take_reset() {
            cx.requests.ask(Request::Reset);
        }
    }

    fn poll(&mut self, cx: &mut Context) {
        self.poll(cx.time.now);
    }

    fn deadline(&mut self, _: &mut Time) -> Option<u64> {
        self.next_event()
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::isa(ps2::IRQ_KEYBOARD, self.irq1()).with(ps2::IRQ_MOUSE, self.irq12())
    }
}

impl Device for [Option<Uart>; 4] {
    const STATES: &'static [&'static str] = &["uart0", "uart1", "uart2", "uart3"];

    fn reset(&mut self, _: &mut Memory) {
        self.iter_mut().flatten().for_each(Uart::reset);
    }

    fn claims(&self, claims: &mut Claims) {
        for ((number, base), _) in (0..).zip(uart::PORTS).zip(self).filter(|(_, uart)| uart.is_some()) {
            claims.ports(number, base, uart::PORT_COUNT, Widths::Bytes);
        }
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        let uart = self[usize::from(at.window & 3)].as_mut();
        uart.map_or(at.width.mask(), |uart| uart.read(at.offset).into())
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        let number = usize::from(at.window & 3);
        let Some(uart) = &mut self[number] else { return };
        uart.write(at.offset, value as u8);
        if uart.output.len() > OUTPUT_LIMIT {
            if cx.connected.serial[number] {
                cx.requests.output();
            } else if uart.output.len() >= 2 * OUTPUT_LIMIT {
                // Of what no host takes, only the end is kept.
                uart.output.drain(..OUTPUT_LIMIT);
            }
        }
    }

    /// Two share a line.
    fn lines(&mut self, _: u64) -> Lines {
        let mut lines = Lines::NONE;
        for (irq, uart) in uart::IRQS.into_iter().zip(self.iter()) {
            lines.driven |= u16::from(uart.is_some()) << irq;
            if uart.as_ref().is_some_and(Uart::irq) {
                lines.high |= 1 << irq;
            }
        }
        lines
    }
}

impl Device for Pci {
    const STATES: &'static [&'static str] = &["pci"];

    fn reset(&mut self, _: &mut Memory) {
        *self = Self::default();
    }

    fn claims(&self, claims: &mut Claims) {
        let count = pci::CONFIG_DATA_END - pci::CONFIG_ADDRESS + 1;
        claims.ports(0, pci::CONFIG_ADDRESS, count, Widths::Dwords);
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        Pci::read(self, at.port, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        match self.write(at.port, at.width, value) {
            Effect::None => {}
            Effect::Decode(_) | Effect::Routing | Effect::Shadow => cx.requests.rewire(),
            Effect::Reset => cx.requests.ask(Request::Reset),
        }
    }
}

impl Device for Ide {
    const STATES: &'static [&'static str] = &["ide"];

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &[ide::BUS_MASTER_BAR as u8]))
    }

    /// Windows are numbered as the base addresses of the function. The command blocks and Device
    /// Control stay at their old ports, whatever the base addresses say, and also without a drive.
    fn claims(&self, claims: &mut Claims) {
        for (number, base) in ide::COMMAND_PORTS.into_iter().enumerate() {
            let window = 2 * number as u8;
            // Only data come in words.
            claims.ports(window, base, 1, Widths::Register);
            claims.ports(window, base + 1, ide::COMMAND_PORT_COUNT - 1, Widths::Bytes);
            claims.ports(window + 1, ide::CONTROL_PORTS[number], 1, Widths::Bytes);
        }
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        let number = at.window / 2;
        match at.window {
            0 | 2 => self.read(number, at.port - ide::COMMAND_PORTS[usize::from(number)], at.width),
            1 | 3 => self.read_control(number).into(),
            _ => self.read_bus_master(at.offset, at.width),
        }
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        let number = at.window / 2;
        match at.window {
            0 | 2 => {
                let offset = at.port - ide::COMMAND_PORTS[usize::from(number)];
                self.write(cx.mem, number, offset, at.width, value);
            }
            1 | 3 => self.write_control(number, value as u8),
            _ => self.write_bus_master(cx.mem, at.offset, at.width, value),
        }
        if self.take_asked() {
            cx.requests.data();
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        let line = |lines: Lines, (channel, irq)| {
            lines.and(if self.take_pulse(channel) {
                Lines::pulse(irq)
            } else {
                Lines::isa(irq, self.irq(channel))
            })
        };
        ide::IRQS.into_iter().enumerate().fold(Lines::NONE, line)
    }
}

impl Device for Floppy {
    const STATES: &'static [&'static str] = &["fdc"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, floppy::PORT_BASE, floppy::PORT_COUNT, Widths::Bytes);
        claims.ports(0, floppy::PORT_DIR, 1, Widths::Bytes);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.read(at.port, cx.time.now).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.write(at.port, value as u8, cx.time.now);
    }

    fn poll(&mut self, cx: &mut Context) {
        self.poll(cx.mem, cx.dma, cx.time.now);
    }

    fn deadline(&mut self, _: &mut Time) -> Option<u64> {
        self.next_event()
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::isa(floppy::IRQ, self.irq())
    }
}

impl Device for Sb16 {
    const STATES: &'static [&'static str] = &["sb16"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, sb16::PORT_BASE, sb16::PORT_COUNT, Widths::Bytes);
        claims.ports(0, sb16::PORT_MIDI, 2, Widths::Bytes);
        claims.ports(0, sb16::PORT_OPL, sb16::PORT_OPL_COUNT, Widths::Bytes);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.run(cx.mem, cx.dma, cx.time.now);
        self.read(at.port, cx.time.now).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.run(cx.mem, cx.dma, cx.time.now);
        self.write(at.port, value as u8, cx.mem, cx.dma, cx.time.now);
    }

    fn poll(&mut self, cx: &mut Context) {
        self.run(cx.mem, cx.dma, cx.time.now);
    }

    fn deadline(&mut self, _: &mut Time) -> Option<u64> {
        self.next_event()
    }

    fn lines(&mut self, _: u64) -> Lines {
        let (line, left) = self.irq();
        let lines = left.map_or(Lines::NONE, |irq| Lines::isa(irq, false));
        line.map_or(lines, |(irq, level)| lines.with(irq, level))
    }
}

impl Device for Acpi {
    const STATES: &'static [&'static str] = &["acpi"];
    const TIMED: bool = true;

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &[]))
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, acpi::GPE0_BASE, acpi::GPE0_PORTS, Widths::Within);
        claims.ports(0, acpi::PM_BASE, acpi::PM_PORTS, Widths::Within);
        claims.ports(0, acpi::SMI_COMMAND, 2, Widths::Within);
    }

    fn read(&mut self, cx: &mut Context, at: Access) -> u32 {
        self.read(at.port, at.width, cx.time.now)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        if self.write(at.port, at.width, value, cx.time.now) {
            cx.requests.ask(Request::PowerOff);
        }
    }

    fn poll(&mut self, cx: &mut Context) {
        self.poll(cx.time.now);
    }

    fn deadline(&mut self, _: &mut Time) -> Option<u64> {
        self.next_event()
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::isa(acpi::SCI_IRQ, self.sci())
    }
}

impl Device for Virtio9p {
    const STATES: &'static [&'static str] = &["virtio_9p"];

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &virtio::BARS))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.window.into(), at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        let unix_ns = cx.time.unix_nanos();
        self.port_write(cx.mem, at.window.into(), at.offset, at.width, value, unix_ns);
        // A file's content may have been asked for.
        cx.requests.data();
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(p9::DEVFN, self.irq())
    }
}

impl Device for VirtioConsole {
    const STATES: &'static [&'static str] = &["virtio_console"];

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &virtio::BARS))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.window.into(), at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.port_write(cx.mem, at.window.into(), at.offset, at.width, value);
        let ports = self.ports.iter().zip(cx.connected.console);
        if ports.into_iter().any(|(port, connected)| connected && port.output.len() > OUTPUT_LIMIT) {
            cx.requests.output();
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(console::DEVFN, self.irq())
    }
}

/// Its port is the processor's own ([`env86_emu::Bus::hypervisor_call`]).
impl Device for Backdoor {
    const STATES: &'static [&'static str] = &["vmware"];

    fn reset(&mut self, _: &mut Memory) {
        *self = Self::default();
    }
}

impl Device for FwCfg {
    const STATES: &'static [&'static str] = &["fw_value"];

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, fw_cfg::PORT_SELECT, 1, Widths::Words);
        claims.ports(0, fw_cfg::PORT_DATA, 1, Widths::Bytes);
        claims.ports(1, fw_cfg::PORT_DMA, fw_cfg::PORT_DMA_COUNT, Widths::Dwords);
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        match at.port {
            fw_cfg::PORT_DATA => self.read().into(),
            fw_cfg::PORT_SELECT => at.width.mask(),
            _ => self.read_dma(at.offset.into(), at.width),
        }
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        match at.port {
            fw_cfg::PORT_SELECT => self.select(value as u16),
            fw_cfg::PORT_DATA => {}
            _ => self.write_dma(cx.mem, at.offset.into(), at.width, value),
        }
    }
}

impl Device for DebugConsole {
    /// What has been written stays.
    fn reset(&mut self, _: &mut Memory) {}

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, debug::PORT_E9, 1, Widths::Bytes);
        claims.ports(0, debug::PORT_SEABIOS, 1, Widths::Bytes);
    }

    fn read(&mut self, _: &mut Context, _: Access) -> u32 {
        debug::PRESENT.into()
    }

    fn write(&mut self, cx: &mut Context, _: Access, value: u32) {
        self.write(value as u8);
        if self.waiting() > OUTPUT_LIMIT {
            cx.requests.output();
        }
    }
}

/// A video BIOS where the graphics card's expansion ROM is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoRom(pub Vec<u8>);

impl Device for VideoRom {
    fn reset(&mut self, _: &mut Memory) {}

    fn claims(&self, claims: &mut Claims) {
        if !self.0.is_empty() {
            claims.memory(0, vga::ROM, vga::ROM_SIZE);
        }
    }

    fn read_memory(&mut self, _: &mut Context, at: MemoryAccess) -> u32 {
        let byte = |at: u32| self.0.get(at as usize).copied().unwrap_or(0);
        (0..at.width.bytes()).rev().fold(0, |value, i| value << 8 | u32::from(byte(at.offset + i)))
    }
}

/// The latch between the FPU's error pin and the interrupt controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FpuError {
    /// The FPU has had an error that the guest has not cleared.
    pub raised: bool,
}

impl Device for FpuError {
    fn reset(&mut self, _: &mut Memory) {
        *self = Self::default();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, FPU_ERROR_CLEAR, 1, Widths::Bytes);
    }

    fn write(&mut self, _: &mut Context, _: Access, _: u32) {
        self.raised = false;
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::isa(FPU_IRQ, self.raised)
    }
}

/// A port to which a guest's write ends the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugExit(pub Option<u16>);

impl Device for DebugExit {
    fn reset(&mut self, _: &mut Memory) {}

    fn claims(&self, claims: &mut Claims) {
        if let Some(port) = self.0 {
            claims.ports(0, port, 4, Widths::Within);
        }
    }

    fn write(&mut self, cx: &mut Context, _: Access, value: u32) {
        cx.requests.ask(Request::DebugExit(value));
    }
}
