//! A state that has been understood, and a machine put into it.

use super::absent::Passengers;
use super::bus::{self, SavedPci};
use super::container::Container;
use super::cpu::{self, TOP};
use super::files;
pub use super::files::Files;
use super::ide::{self, SavedIde};
use super::input;
use super::interrupts::{self, SavedApic};
use super::ram::Pages;
use super::record::{Layout, Record};
use super::timers::{self, SavedPit};
use super::value::Value;
use super::vga;
use super::virtio;
use super::{Slot, Source, StateError, extra};
use crate::acpi::Acpi;
use crate::board::BoardConfig;
use crate::dma::Dma;
use crate::fs::NoBlobs;
use crate::ide::{Medium, Units};
use crate::ioapic::Ioapic;
use crate::pc::Pc;
use crate::pic::Pic;
use crate::ps2::Ps2;
use crate::rtc::Rtc;
use crate::uart::Uart;
use crate::vga::Vga;
use crate::virtio::console::VirtioConsole;
use crate::vmware::Backdoor;
use crate::{fs::Filesystem, pit};
use env86_emu::ArchState;
use std::ops::Range;

const UARTS: [&str; 4] = ["uart0", "uart1", "uart2", "uart3"];
/// Guest time in nanoseconds that a state may begin with: some years, and far from overflow.
const MAX_TIME: u64 = 1 << 58;
/// How late a timer may have been at the save, in milliseconds, for its start to be believed.
const LATE_MS: f64 = 200.0;
/// Periods of the interval timer are shorter.
const PIT_PERIOD_MS: f64 = 55.0;

/// A state that can be resumed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The memory.
    pub pages: Pages,
    /// Bytes of the linear framebuffer.
    pub vga_memory_size: u32,
    /// Guest time in nanoseconds at which the machine was saved, as far as the state tells. A clock
    /// that goes on from there is right for every timer.
    pub time: u64,
    /// What the user should know: parts of the machine that are carried and do not work.
    pub notes: Vec<String>,
    pub(super) cpu: ArchState,
    pub(super) tsc: u64,
    pub(super) pic: Pic,
    pub(super) apic: SavedApic,
    pub(super) ioapic: Ioapic,
    pub(super) rtc: Rtc,
    pub(super) pci: SavedPci,
    pub(super) dma: Dma,
    pub(super) acpi: Option<Acpi>,
    pub(super) vga: Vga,
    pub(super) planes: Range<usize>,
    pub(super) framebuffer: Range<usize>,
    pub(super) ps2: Ps2,
    pub(super) backdoor: Backdoor,
    pub(super) uarts: [Option<Uart>; 4],
    pub(super) pit: SavedPit,
    pub(super) fw_value: Vec<u8>,
    pub(super) files: Option<Files>,
    pub(super) console: Option<VirtioConsole>,
    pub(super) ide: SavedIde,
    pub(super) passengers: Passengers,
    /// What env86 has added.
    pub(super) ours: extra::Extra,
}

/// The entry at the top level with this name.
fn entry<'a>(
    top: &Record<'a>,
    layout: &'static Layout,
    name: &'static str,
) -> Result<Record<'a>, StateError> {
    let number = TOP.fields.iter().position(|field| *field == name).unwrap_or_default();
    Record::new(layout, top.get(name), top.container, format!("entry {number} ({name})"))
}

/// The same for a device that not every machine has.
fn optional<'a>(
    top: &Record<'a>,
    layout: &'static Layout,
    name: &'static str,
) -> Result<Option<Record<'a>>, StateError> {
    if top.get(name).is_null() { Ok(None) } else { entry(top, layout, name).map(Some) }
}

impl Plan {
    /// Understands a state, or says why it cannot be resumed.
    pub fn read(container: &Container) -> Result<Self, StateError> {
        let top = Record::new(&TOP, &container.state, container, "entry")?;
        let pages = Pages::read(&top, container)?;
        let (cpu, tsc) = cpu::read(&top)?;
        let ours = extra::Extra::read(&container.ours);
        let vga = entry(&top, &vga::VGA, "vga")?;
        let buffer = |field| match vga.get(field) {
            Value::Buffer(_, id) => container.range(*id),
            other => Err(vga.wrong(field, format!("is {}", other.what()))),
        };
        let acpi = optional(&top, &bus::ACPI, "acpi")?;
        let files = optional(&top, &files::P9, "virtio_9p")?;
        let console = optional(&top, &virtio::CONSOLE, "virtio_console")?;
        let backdoor = optional(&top, &input::VMWARE, "vmware")?;
        let mut uarts = [const { None }; 4];
        for (uart, name) in uarts.iter_mut().zip(UARTS) {
            *uart = optional(&top, &input::UART, name)?.map(|r| input::read_uart(&r)).transpose()?;
        }
        let pic = interrupts::read_pic(&entry(&top, &interrupts::PIC, "pic")?)?;
        let mut plan = Self {
            vga_memory_size: vga::memory_size(&vga)?,
            time: 0,
            notes: notes(&top),
            ide: ide::read(&top, &pic)?,
            pic,
            apic: interrupts::read_apic(&top)?,
            ioapic: interrupts::read_ioapic(&top)?,
            rtc: timers::read_rtc(&entry(&top, &timers::RTC, "rtc")?)?,
            pci: bus::read_pci(&top)?,
            dma: bus::read_dma(&entry(&top, &bus::DMA, "dma")?)?,
            acpi: acpi.map(|r| bus::read_acpi(&r)).transpose()?,
            planes: buffer("vga_memory")?,
            framebuffer: buffer("svga_memory")?,
            vga: vga::read(&vga)?,
            ps2: input::read_ps2(&entry(&top, &input::PS2, "ps2")?)?,
            backdoor: backdoor.map(|r| input::read_backdoor(&r)).transpose()?.unwrap_or_default(),
            uarts,
            pit: timers::read_pit(&entry(&top, &timers::PIT, "pit")?)?,
            fw_value: bus::read_fw_value(&top)?,
            files: files.map(|r| files::read(&r)).transpose()?,
            console: console.map(|r| virtio::read_console(&r)).transpose()?,
            passengers: Passengers::read(container)?,
            pages,
            cpu,
            tsc,
            ours,
        };
        plan.time = plan.ours.guest_time().or(Some(tsc)).filter(|time| *time < MAX_TIME).unwrap_or(0);
        plan.ours.clone().refine(&mut plan);
        Ok(plan)
    }

    /// Wall time at the save, in milliseconds since 1970.
    pub fn unix_millis(&self) -> i64 {
        self.rtc.updated_ms
    }

    /// APICs and ACPI are fitted.
    pub fn acpi(&self) -> bool {
        self.acpi.is_some()
    }

    /// The files of virtio-9p, if it is fitted.
    pub fn files(&self) -> Option<&Filesystem> {
        self.files.as_ref().map(|files| &files.fs)
    }

    /// The drives to build a machine with. `image` gives each its medium, from where the state says.
    pub fn units<E>(&self, image: impl FnMut(Slot, Source) -> Result<Medium, E>) -> Result<Units, E> {
        self.ide.units(image)
    }

    /// Makes a board's configuration that of the state; the store of the files' contents stays, and so
    /// do the drives, which have to be [`Plan::units`].
    pub fn configure(&self, config: BoardConfig) -> BoardConfig {
        let filesystem = match (self.files.is_some(), config.filesystem) {
            (false, _) => None,
            (true, Some((_, store))) => Some((Filesystem::default(), store)),
            (true, None) => Some((Filesystem::default(), Box::new(NoBlobs) as _)),
        };
        BoardConfig {
            memory_size: self.pages.size,
            vga_memory_size: self.vga_memory_size,
            acpi: self.acpi(),
            uarts: self.uarts.each_ref().map(Option::is_some),
            virtio_console: self.console.is_some(),
            filesystem,
            ..config
        }
    }

    /// Whether a machine is one that this state can be put into.
    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        let board = &machine.board;
        let checks: [(&str, u64, u64); 6] = [
            ("memory", u64::from(machine.cpu.mem().size()), self.pages.size.into()),
            ("video memory", board.vga.framebuffer.len() as u64, self.vga_memory_size.into()),
            ("ACPI", board.acpi.is_some().into(), self.acpi.is_some().into()),
            ("APICs", board.interrupts.apics.is_some().into(), self.acpi.is_some().into()),
            ("virtio-9p", board.p9.is_some().into(), self.files.is_some().into()),
            ("virtio console", board.console.is_some().into(), self.console.is_some().into()),
        ];
        for (what, has, wanted) in checks {
            if has != wanted {
                return Err(StateError::OtherMachine(format!(
                    "it has {wanted} of {what}, and this has {has}"
                )));
            }
        }
        let uarts = board.uarts.each_ref().map(Option::is_some);
        if uarts != self.uarts.each_ref().map(Option::is_some) {
            return Err(StateError::OtherMachine("it has other serial ports".into()));
        }
        self.ide.fits(&board.ide)
    }

    /// Puts a machine into the state. Its memory has to hold the state's already ([`Pages`]); `file`
    /// is the state's file. A machine that the state does not fit is refused untouched.
    pub fn apply(self, machine: &mut Pc, file: &[u8]) -> Result<(), StateError> {
        self.fits(machine)?;
        let now = machine.board.time();
        let mut state = self.cpu;
        state.tsc_offset = self.tsc.wrapping_sub(now);
        if cpu::uses_pdpte(&state) && state.pdpte == [0; 4] {
            let table = state.cr3 & !0x1f;
            state.pdpte =
                core::array::from_fn(|i| machine.cpu.mem().read_u64(table.wrapping_add(8 * i as u32)));
        }
        machine.cpu.set_state(&state);
        let board = &mut machine.board;
        let believed = self.ours.guest_time().is_none();
        let clock_ms = if believed { self.tsc as f64 / 1e6 } else { 0.0 };
        board.interrupts.pic = self.pic;
        if let Some(apics) = &mut board.interrupts.apics {
            apics.local = self.apic.apic;
            apics.io = self.ioapic;
            let period = apics.local.period();
            apics.local.timer_deadline = self.apic.running_since.map(|since| {
                let elapsed = elapsed_ns(clock_ms - since, period as f64 / 1e6);
                now.saturating_add(period - elapsed.min(period))
            });
        }
        board.pit = self.pit.pit;
        for (counter, since) in board.pit.counters.iter_mut().zip(self.pit.started) {
            let elapsed = pit::ticks(elapsed_ns(clock_ms - since, PIT_PERIOD_MS));
            counter.resume(pit::ticks(now), elapsed);
        }
        board.rtc = self.rtc;
        board.rtc.resume(now);
        board.dma = self.dma;
        board.ps2 = self.ps2;
        board.backdoor = self.backdoor;
        board.uarts = self.uarts;
        vga::load(&mut board.vga, self.vga, &file[self.planes], &file[self.framebuffer]);
        if let (Some(acpi), Some(saved)) = (&mut board.acpi, self.acpi) {
            *acpi = saved;
            acpi.resume(now);
        }
        self.ide.apply(&mut board.ide, file);
        board.fw_cfg.value = self.fw_value;
        board.fw_cfg.position = 0;
        if let (Some(p9), Some(files)) = (&mut board.p9, self.files) {
            p9.transport = files.transport;
            p9.held.clear();
            p9.server.restore(files.fs, files.msize, files.fids);
        }
        if let (Some(console), Some(saved)) = (&mut board.console, self.console) {
            *console = saved;
        }
        board.pci.address = self.pci.address;
        let mut passengers = self.passengers;
        let mut others = self.pci.spaces;
        others.retain(|devfn, saved| match board.pci.function_mut(*devfn) {
            Some(space) => {
                space.restore(saved);
                false
            }
            None => true,
        });
        passengers.spaces = Some(others);
        machine.passengers = passengers;
        self.ours.apply(board);
        _ = board.take_request();
        board.synchronize();
        // What drives were waiting for at the save may be there, and the bus masters were waiting with them.
        board.media_arrived(machine.cpu.mem_mut());
        Ok(())
    }
}

/// The part of a period that has passed, in nanoseconds, from a difference of two times in
/// milliseconds that may come from two clocks: then nothing has.
fn elapsed_ns(difference_ms: f64, period_ms: f64) -> u64 {
    if (0.0..=period_ms + LATE_MS).contains(&difference_ms) { (difference_ms * 1e6) as u64 } else { 0 }
}

/// Devices that the guest may miss.
fn notes(top: &Record) -> Vec<String> {
    let missing = [
        ("ne2k", "an ne2k network card"),
        ("virtio_net", "a virtio network card"),
        ("virtio_balloon", "a virtio balloon"),
    ];
    let present = missing.into_iter().filter(|(name, _)| !top.get(name).is_null());
    present.map(|(_, what)| format!("the machine has {what}, which does not work here")).collect()
}
