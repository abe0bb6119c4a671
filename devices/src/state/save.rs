//! From a machine to a state.

use super::StateError;
use super::absent::Passengers;
use super::bus;
use super::container::{Buffers, Saved};
use super::cpu::{self, TOP};
use super::extra;
use super::files;
use super::ide;
use super::input;
use super::interrupts;
use super::ram;
use super::record::Entry;
use super::timers;
use super::value::{Kind, Value};
use super::vga;
use super::virtio;
use crate::apic::Apic;
use crate::ioapic::Ioapic;
use crate::pc::Pc;
use xxhash_rust::xxh3::Xxh3;

/// Saves a machine, which may run on afterwards. The memory is not copied: the machine stays
/// borrowed until the state has been written.
///
/// What the guest has sent and nobody has taken is not part of the state; take it before.
///
/// `touched` says of a page of memory, by number, whether it can hold anything but zeros: a host that
/// knows which pages were never used saves the time to look at them.
pub fn save<'m>(machine: &'m mut Pc, touched: &dyn Fn(usize) -> bool) -> Result<Saved<'m>, StateError> {
    let now = machine.board.time();
    let unix_ms = machine.board.clock().unix_millis();
    let ours = extra::write(machine, now);
    let arch = machine.cpu.state();
    let tsc = now.wrapping_add(arch.tsc_offset);
    machine.board.vga.settle(machine.cpu.mem_mut());
    let Pc { cpu, board, passengers, .. } = machine;
    let mut buffers = Buffers::default();
    // First, so that it can be mapped.
    let (pages, bitmap) = ram::write(cpu.mem(), touched, &mut buffers);
    let files = board.p9.as_mut().map(|p9| files::write(p9, &mut buffers)).transpose()?;
    let mut uarts = (0..)
        .zip(&board.uarts)
        .map(|(port, uart)| uart.as_ref().map_or(Value::Null, |uart| input::write_uart(uart, port)));
    // The APICs are in the state of a machine without, too, as v86 powers them up.
    let (no_local, no_io) = (Apic { spurious: 0xfe, ..Apic::default() }, Ioapic::default());
    let (local, io) = match &board.interrupts.apics {
        Some(apics) => (&apics.local, &apics.io),
        None => (&no_local, &no_io),
    };
    let (ide_entry, ide) = ide::write(&board.ide, &mut buffers)?;
    let fw_value = match &board.fw_cfg.value[..] {
        [] => Value::List(Vec::new()),
        value => buffers.add(Kind::U8, value),
    };
    let mut top = cpu::write(Entry::new(&TOP), &arch, tsc, &mut buffers)
        .set("memory_size", cpu.mem().size())
        .set("packed_memory", pages)
        .set("memory_bitmap", bitmap)
        .set("virtio_9p", files.unwrap_or_default())
        .set("apic", interrupts::write_apic(local, now, &mut buffers))
        .set("rtc", timers::write_rtc(&board.rtc, unix_ms, &mut buffers))
        .set("pci", bus::write_pci(&board.pci, &passengers.spaces(), &mut buffers))
        .set("dma", bus::write_dma(&board.dma, &mut buffers))
        .set("acpi", board.acpi.as_ref().map(|acpi| bus::write_acpi(acpi, &mut buffers)).unwrap_or_default())
        .set("vga", vga::write(&board.vga, cpu.mem(), &mut buffers))
        .set("ps2", input::write_ps2(&board.ps2))
        .set("vmware", input::write_backdoor(&board.backdoor))
        .set("uart0", uarts.next().unwrap_or_default())
        .set("uart1", uarts.next().unwrap_or_default())
        .set("uart2", uarts.next().unwrap_or_default())
        .set("uart3", uarts.next().unwrap_or_default())
        .set("pit", timers::write_pit(&board.pit, now, &mut buffers))
        .set("pic", interrupts::write_pic(&board.interrupts.pic))
        .set("ioapic", interrupts::write_ioapic(io, &mut buffers))
        .set("fw_value", fw_value)
        .set(ide_entry, ide)
        .set(
            "virtio_console",
            board
                .console
                .as_ref()
                .map(|console| virtio::write_console(console, &mut buffers))
                .unwrap_or_default(),
        );
    for name in Passengers::names() {
        top = top.set(name, passengers.entry(name, &mut buffers));
    }
    Saved::new(&top.value(), buffers, ours)
}

/// A number that two machines share only if all of their states are alike.
pub fn digest(machine: &mut Pc) -> Result<u64, StateError> {
    let mut hasher = Xxh3::new();
    save(machine, &|_| true)?.pieces().for_each(|piece| hasher.update(piece));
    Ok(hasher.digest())
}
