//! The MultiProcessor tables (Intel MultiProcessor Specification 1.4, chapter 4).

use crate::{
    acpi::{IO_APIC, LOCAL_APIC},
    board::BoardInfo,
    checksum::set_checksum,
};

const CPU_SIGNATURE: u32 = 0x673;
const CPU_FEATURES: u32 = 0x0780_ab79;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
const CPU_ENABLED_BOOT: u8 = 3;
const IO_APIC_ENABLED: u8 = 1;

const PCI_BUS: u8 = 0;
const ISA_BUS: u8 = 1;
const IO_APIC_ID: u8 = 0;
/// As destination: every local APIC.
const ALL_LOCAL_APICS: u8 = 0xff;

const ENTRY_CPU: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_IO_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;

const TYPE_INT: u8 = 0;
const TYPE_NMI: u8 = 1;
const TYPE_EXTINT: u8 = 3;
/// Polarity and trigger as the bus has them.
const CONFORM: u8 = 0;
/// Active high, level triggered: what the board's PCI interrupts are.
const HIGH_LEVEL: u8 = 0x0d;
/// The interrupt by which the second 8259A reports to the first.
const CASCADE: u8 = 2;

const POINTER_SIZE: u32 = 16;
const HEADER_SIZE: usize = 44;

/// The floating pointer and, right behind it, the configuration table, to be placed at `addr`.
pub fn build(addr: u32, board: &BoardInfo) -> Vec<u8> {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend((addr + POINTER_SIZE).to_le_bytes());
    pointer.extend([1, 4, 0]); // one paragraph, revision 1.4, checksum
    pointer.extend([0; 5]); // a configuration table is there; virtual wire mode
    set_checksum(&mut pointer, 10);
    pointer.extend(configuration(board));
    pointer
}

fn configuration(board: &BoardInfo) -> Vec<u8> {
    let entries = entries(board);
    let size = HEADER_SIZE + entries.iter().map(Vec::len).sum::<usize>();
    let mut table = b"PCMP".to_vec();
    table.extend((size as u16).to_le_bytes());
    table.extend([4, 0]); // revision 1.4, checksum
    table.extend(b"ENV86   ");
    table.extend(b"PC          ");
    table.extend([0; 6]); // no OEM table
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]); // no extended table
    table.extend(entries.concat());
    set_checksum(&mut table, 7);
    table
}

fn entries(board: &BoardInfo) -> Vec<Vec<u8>> {
    let mut cpu = vec![ENTRY_CPU, 0, LOCAL_APIC_VERSION, CPU_ENABLED_BOOT];
    cpu.extend(CPU_SIGNATURE.to_le_bytes());
    cpu.extend(CPU_FEATURES.to_le_bytes());
    cpu.extend([0; 8]);
    let mut io_apic = vec![ENTRY_IO_APIC, IO_APIC_ID, IO_APIC_VERSION, IO_APIC_ENABLED];
    io_apic.extend(IO_APIC.to_le_bytes());
    let mut entries = vec![cpu, bus(PCI_BUS, b"PCI   "), bus(ISA_BUS, b"ISA   "), io_apic];

    let mut taken = 0u16;
    for function in &board.functions {
        if let Some(irq) = function.interrupt() {
            taken |= 1 << irq;
            let source = (function.devfn >> 3) << 2 | (function.interrupt_pin - 1) & 3;
            entries.push(io_interrupt(HIGH_LEVEL, PCI_BUS, source, irq));
        }
    }
    for irq in (0..16).filter(|&irq| irq != CASCADE && taken & 1 << irq == 0) {
        entries.push(io_interrupt(CONFORM, ISA_BUS, irq, irq));
    }
    entries.push(local_interrupt(TYPE_EXTINT, IO_APIC_ID, 0));
    entries.push(local_interrupt(TYPE_NMI, ALL_LOCAL_APICS, 1));
    entries
}

fn bus(id: u8, name: &[u8; 6]) -> Vec<u8> {
    [&[ENTRY_BUS, id], name.as_slice()].concat()
}

fn io_interrupt(flags: u8, bus: u8, source: u8, pin: u8) -> Vec<u8> {
    vec![ENTRY_IO_INTERRUPT, TYPE_INT, flags, 0, bus, source, IO_APIC_ID, pin]
}

fn local_interrupt(kind: u8, destination: u8, lint: u8) -> Vec<u8> {
    vec![ENTRY_LOCAL_INTERRUPT, kind, CONFORM, 0, ISA_BUS, 0, destination, lint]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::tests::sample;

    #[test]
    fn tables_add_up_and_list_each_interrupt_once() {
        let tables = build(0xf_9000, &sample(false));
        let (pointer, table) = tables.split_at(POINTER_SIZE as usize);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b));
        assert_eq!((sum(pointer), sum(table)), (0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        let count = u16::from_le_bytes([table[34], table[35]]);
        let (mut at, mut seen, mut pci) = (HEADER_SIZE, 0, Vec::new());
        while at < table.len() {
            let entry = &table[at..];
            if entry[0] == ENTRY_IO_INTERRUPT && entry[4] == PCI_BUS {
                pci.push((entry[5] >> 2, entry[7]));
            }
            at += if entry[0] == ENTRY_CPU { 20 } else { 8 };
            seen += 1;
        }
        assert_eq!((seen, at), (count, table.len()));
        assert_eq!(pci, [(5, 10), (6, 10), (0x1e, 10)]);
    }
}
