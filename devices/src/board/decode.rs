//! The processor's accesses: which device gets them, and what the board does after them.

use super::ports::{Region, Target};
use super::timers::Timer;
use super::{Board, FPU_IRQ, OUTPUT_LIMIT, Request};
use crate::ide;
use crate::pci::{self, Effect};
use crate::virtio::{console, p9};
use crate::{acpi, apic, debug, fw_cfg, ioapic, pic, pit, ps2, rtc, system_control, uart, vga};
use env86_emu::{Bus, HypervisorCall, Memory, Width};

/// A write clears the FPU's error (82371SB, 2.5.6.2: Coprocessor Error).
const FPU_ERROR_CLEAR: u16 = 0xf0;

impl Board {
    /// Fills the port table: what moves first, what stays where it is over that.
    pub(super) fn map_ports(&mut self) {
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
        if let Some(port) = self.pci.function(ide::DEVFN).and_then(|space| space.bar(ide::BUS_MASTER_BAR)) {
            ports.claim(port as u16, ide::BUS_MASTER_PORTS, Target::BusMaster);
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
        // They stay at their old ports, whatever the base addresses say.
        for (number, _) in (0..).zip(&self.ide.channels).filter(|(_, channel)| channel.is_some()) {
            let at = usize::from(number);
            ports.claim(ide::COMMAND_PORTS[at], ide::COMMAND_PORT_COUNT, Target::Ide(number));
            ports.claim(ide::CONTROL_PORTS[at], 1, Target::IdeControl(number));
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

    /// Maps the video memory where the processor sees it.
    pub(super) fn map_video(&self, mem: &mut Memory) {
        let address = self.pci.function(vga::DEVFN).and_then(|space| space.bar(vga::FRAMEBUFFER_BAR));
        self.vga.map_framebuffer(mem, address);
        self.vga.map_window(mem);
    }

    /// An access that one device takes in one piece.
    fn read_device(&mut self, region: Region, port: u16, width: Width) -> u32 {
        let now = self.time_of_access();
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
            Target::Ide(channel) => {
                let value = self.ide.read(channel, port - region.base, width);
                self.drive_ide(channel.into());
                value
            }
            Target::IdeControl(channel) => self.ide.read_control(channel).into(),
            Target::BusMaster => self.ide.read_bus_master(port - region.base, width),
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
        let now = self.time_of_access();
        let byte = value as u8;
        match region.target {
            // Port 80h, for one, shows how far a start has come.
            Target::None => tracing::trace!(target: "ports", port, value, "written, and nobody there"),
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
                    if uart.output.len() > OUTPUT_LIMIT {
                        self.serial_output_is_long(number.into());
                    }
                }
                self.drive_uart_line(number.into());
            }
            Target::Vga => self.vga.write(mem, port, byte),
            Target::Vbe => self.vga.write_vbe_port(mem, port, value as u16),
            Target::FwCfg if port == fw_cfg::PORT_SELECT => self.fw_cfg.select(value as u16),
            Target::FwCfg => {}
            Target::DebugConsole => {
                self.debug.write(byte);
                self.yield_requested |= self.debug.waiting() > OUTPUT_LIMIT;
            }
            Target::DebugExit => self.ask(Request::DebugExit(value)),
            Target::Pci => self.write_pci(mem, port, width, value),
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
            Target::Ide(channel) => {
                self.ide.write(mem, channel, port - region.base, width, value);
                self.drive_ide(channel.into());
            }
            Target::IdeControl(channel) => {
                self.ide.write_control(channel, byte);
                self.drive_ide(channel.into());
            }
            Target::BusMaster => {
                self.ide.write_bus_master(mem, port - region.base, width, value);
                (0..ide::IRQS.len()).for_each(|channel| self.drive_ide(channel));
            }
            Target::P9(bar) => {
                let unix_ns = self.unix_ns();
                if let Some(p9) = &mut self.p9 {
                    p9.port_write(mem, bar.into(), port - region.base, width, value, unix_ns);
                }
                self.drive_p9();
                // As for drives: a file's content may have been asked for.
                self.yield_requested = true;
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

    /// Lets the processor return for the output of a serial port to be taken. Of what no host takes,
    /// only the end is kept.
    #[cold]
    fn serial_output_is_long(&mut self, port: usize) {
        if self.connected.serial[port] {
            self.yield_requested = true;
        } else if let Some(uart) = &mut self.uarts[port]
            && uart.output.len() >= 2 * OUTPUT_LIMIT
        {
            uart.output.drain(..OUTPUT_LIMIT);
        }
    }

    fn write_pci(&mut self, mem: &mut Memory, port: u16, width: Width, value: u32) {
        match self.pci.write(port, width, value) {
            Effect::None => {}
            Effect::Decode(_) => {
                self.map_ports();
                self.map_video(mem);
            }
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
            // Only data come in words.
            Target::Ide(_) => port == region.base + ide::DATA,
            Target::BusMaster
            | Target::Acpi
            | Target::DebugExit
            | Target::P9(_)
            | Target::VirtioConsole(_) => {
                self.ports.find(port.wrapping_add(width.bytes() as u16 - 1)) == region
            }
            _ => false,
        };
        fits.then_some(region)
    }
}

impl Bus for Board {
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

    fn hypervisor_call(&mut self, call: &mut HypervisorCall) {
        self.backdoor.call(call, self.clock.unix_millis());
    }

    fn mmio_read(&mut self, mem: &mut Memory, addr: u32, width: Width) -> u32 {
        const PAGE: u32 = 0x1000;
        if let Some(offset) = within(addr, vga::WINDOW, vga::WINDOW_SIZE) {
            return self.vga.read_window(mem, offset, width);
        }
        // Registers are dwords; a narrower access sees its part of one.
        let lane = 8 * (addr & 3);
        let value = if let Some(offset) = within(addr, apic::BASE, apic::WINDOW) {
            let now = self.time_of_access();
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

    fn mmio_write(&mut self, mem: &mut Memory, addr: u32, width: Width, value: u32) {
        const PAGE: u32 = 0x1000;
        if let Some(offset) = within(addr, vga::WINDOW, vga::WINDOW_SIZE) {
            self.vga.write_window(mem, offset, width, value);
        } else if let Some(offset) = within(addr, apic::BASE, apic::WINDOW) {
            let now = self.time_of_access();
            self.interrupts.write_local(offset & !3, value, now);
            self.timer_changed(Timer::Apic, now);
        } else if let Some(offset) = within(addr, ioapic::BASE, PAGE) {
            self.interrupts.write_io(offset & !3, value);
        }
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
        self.yield_requested
    }

    fn now(&mut self) -> u64 {
        self.time_of_access()
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
            let now = self.time_of_access();
            self.timer_changed(Timer::Apic, now);
        }
    }
}

impl Board {
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
