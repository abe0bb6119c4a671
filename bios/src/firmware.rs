//! What a BIOS leaves behind: interrupt vectors, its data area, tables, and the board's registers.
//!
//! The machines that start without a BIOS get this. The code it leaves is the little that a guest
//! may stumble into: interrupt vectors that return, and a reset vector that resets.

use core::ops::Range;

use env86_emu::Memory;

use crate::{
    BootError, acpi,
    board::{BoardInfo, PIRQ_ROUTING, configure_pci},
    checksum::set_checksum,
    mptable,
    step::Step,
    video,
};

/// The extended BIOS data area: the last KiB of the 640 KiB of base memory.
pub const EBDA: u32 = 0x9_fc00;
/// Where the ACPI root pointer is, in a machine that has one.
pub const RSDP: u32 = 0xf_8000;
/// Bytes at the end of RAM taken for ACPI tables, in a machine that has them.
pub const ACPI_AREA: u32 = 0x1_0000;
/// Bytes at the end of that area that the firmware control structure has for itself.
pub const ACPI_NVS: u32 = 0x1000;

const MIB: u32 = 1 << 20;
/// The segment of the system BIOS.
const BIOS_SEGMENT: u16 = 0xf000;
const BIOS: Range<u32> = 0xf_0000..MIB;
const PIRQ_TABLE: u32 = 0xf_8100;
const MP_TABLE: u32 = 0xf_9000;
/// Base memory, up to the EBDA.
const BASE_MEMORY_KIB: u16 = (EBDA >> 10) as u16;

/// Who may use a range of memory (ACPI 1.0b, 14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// RAM that is free.
    Usable = 1,
    /// Not to be touched.
    Reserved = 2,
    /// ACPI tables; free when they have been read.
    AcpiTables = 3,
    /// ACPI's own; to be kept.
    AcpiNvs = 4,
}

/// A range of the memory map that INT 15h function E820h would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical addresses.
    pub range: Range<u32>,
    /// Who may use it.
    pub kind: RegionKind,
}

impl Region {
    /// As E820h stores it: base, length, type.
    pub fn e820(&self) -> [u8; 20] {
        let mut entry = [0; 20];
        entry[..8].copy_from_slice(&u64::from(self.range.start).to_le_bytes());
        entry[8..16].copy_from_slice(&u64::from(self.range.end - self.range.start).to_le_bytes());
        entry[16..].copy_from_slice(&(self.kind as u32).to_le_bytes());
        entry
    }
}

/// The end of the RAM that is free above 1 MiB.
pub fn usable_top(board: &BoardInfo, memory_size: u32) -> u32 {
    if board.acpi { memory_size - ACPI_AREA } else { memory_size }
}

/// The memory map.
pub fn memory_map(board: &BoardInfo, memory_size: u32) -> Vec<Region> {
    let top = usable_top(board, memory_size);
    let mut map = vec![
        (0..EBDA, RegionKind::Usable),
        (EBDA..0xa_0000, RegionKind::Reserved),
        (BIOS, RegionKind::Reserved),
        (MIB..top, RegionKind::Usable),
    ];
    if board.acpi {
        let nvs = memory_size - ACPI_NVS;
        map.push((top..nvs, RegionKind::AcpiTables));
        map.push((nvs..memory_size, RegionKind::AcpiNvs));
    }
    map.retain(|(range, _)| !range.is_empty());
    map.into_iter().map(|(range, kind)| Region { range, kind }).collect()
}

/// Puts everything a BIOS leaves into memory and tells what it would have programmed.
pub fn install(board: &BoardInfo, mem: &mut Memory) -> Result<Vec<Step>, BootError> {
    let size = mem.size();
    if usable_top(board, size) < MIB {
        let need = u64::from(MIB + ACPI_AREA);
        return Err(BootError::Memory { what: "firmware with ACPI", need, have: size.into() });
    }
    mem.write(BIOS.start, &vec![0; BIOS.len()]);
    install_vectors(mem);
    install_data_area(board, mem);
    mem.write(PIRQ_TABLE, &pirq_table());
    if board.acpi {
        // Without APICs there is nothing to describe: Linux believes an MP table more than CPUID, goes
        // on to set up an I/O APIC that does not answer, and dies of it.
        mem.write(MP_TABLE, &mptable::build(MP_TABLE, board));
        acpi::install(board, usable_top(board, size), size - ACPI_NVS, RSDP, mem);
    }

    let mut steps = configure_pci(board);
    steps.extend(configure_legacy());
    steps.extend(video::text_mode());
    if board.acpi {
        steps.extend(configure_local_apic());
    }
    Ok(steps)
}

/// The code in the BIOS segment: where it lies there, what it is.
mod code {
    /// IRET, at the address where the PC's first BIOS had its own.
    pub const RETURN: (u16, &[u8]) = (0xff53, &[0xcf]);
    /// IRQ 0: counts the ticks since midnight and passes them on to INT 1Ch.
    pub const TIMER: (u16, &[u8]) = (
        0xe000,
        &[
            0x50, 0x1e, // push ax; push ds
            0xb8, 0x40, 0x00, 0x8e, 0xd8, // mov ax, 40h; mov ds, ax
            0xff, 0x06, 0x6c, 0x00, // inc word [6Ch]
            0x75, 0x04, // jnz +4
            0xff, 0x06, 0x6e, 0x00, // inc word [6Eh]
            0xcd, 0x1c, // int 1Ch
            0xb0, 0x20, 0xe6, 0x20, // mov al, 20h; out 20h, al
            0x1f, 0x58, 0xcf, // pop ds; pop ax; iret
        ],
    );
    /// IRQ 1 to 7: end of interrupt.
    pub const MASTER_IRQ: (u16, &[u8]) = (
        0xe040,
        &[
            0x50, 0xb0, 0x20, // push ax; mov al, 20h
            0xe6, 0x20, // out 20h, al
            0x58, 0xcf, // pop ax; iret
        ],
    );
    /// IRQ 8 to 15: end of interrupt for both controllers.
    pub const SLAVE_IRQ: (u16, &[u8]) = (
        0xe050,
        &[
            0x50, 0xb0, 0x20, // push ax; mov al, 20h
            0xe6, 0xa0, 0xe6, 0x20, // out A0h, al; out 20h, al
            0x58, 0xcf, // pop ax; iret
        ],
    );
    /// INT 11h: the equipment word.
    pub const EQUIPMENT: (u16, &[u8]) = (
        0xe060,
        &[
            0x1e, 0xb8, 0x40, 0x00, 0x8e, 0xd8, // push ds; mov ax, 40h; mov ds, ax
            0xa1, 0x10, 0x00, // mov ax, [10h]
            0x1f, 0xcf, // pop ds; iret
        ],
    );
    /// INT 12h: KiB of base memory.
    pub const BASE_MEMORY: (u16, &[u8]) = (
        0xe070,
        &[
            0x1e, 0xb8, 0x40, 0x00, 0x8e, 0xd8, // push ds; mov ax, 40h; mov ds, ax
            0xa1, 0x13, 0x00, // mov ax, [13h]
            0x1f, 0xcf, // pop ds; iret
        ],
    );
    /// A service with functions, none of which is here: AH = 86h, carry set.
    pub const NO_FUNCTION: (u16, &[u8]) = (
        0xe080,
        &[
            0x55, 0x89, 0xe5, // push bp; mov bp, sp
            0x80, 0x4e, 0x06, 0x01, // or byte [bp+6], 1
            0x5d, 0xb4, 0x86, 0xcf, // pop bp; mov ah, 86h; iret
        ],
    );
    /// Resets the machine, by port CF9h and, where that is missing, by the keyboard controller.
    pub const RESET: (u16, &[u8]) = (
        0xe090,
        &[
            0xfa, // cli
            0xba, 0xf9, 0x0c, // mov dx, CF9h
            0xb0, 0x02, 0xee, 0xb0, 0x06, 0xee, // mov al, 2; out dx, al; mov al, 6; out dx, al
            0xb0, 0xfe, 0xe6, 0x64, // mov al, FEh; out 64h, al
            0xf4, 0xeb, 0xfd, // hlt; jmp -3
        ],
    );
    /// The reset vector: a far jump to [`RESET`], the BIOS date, the model byte of an AT.
    pub const ENTRY: (u16, &[u8]) = (
        0xfff0,
        &[
            0xea,
            RESET.0 as u8,
            (RESET.0 >> 8) as u8,
            0x00,
            0xf0, // jmp F000:RESET
            b'0',
            b'1',
            b'/',
            b'0',
            b'1',
            b'/',
            b'0',
            b'0',
            0,
            0xfc,
            0,
        ],
    );
    /// All of them.
    pub const ALL: [(u16, &[u8]); 9] =
        [RETURN, TIMER, MASTER_IRQ, SLAVE_IRQ, EQUIPMENT, BASE_MEMORY, NO_FUNCTION, RESET, ENTRY];
}

/// The real-mode interrupt vectors and the code they point to.
fn install_vectors(mem: &mut Memory) {
    for (offset, bytes) in code::ALL {
        mem.write(BIOS.start + u32::from(offset), bytes);
    }
    for vector in 0..=0xffu32 {
        let (offset, _) = match vector {
            0x08 => code::TIMER,
            0x09..=0x0f => code::MASTER_IRQ,
            0x70..=0x77 => code::SLAVE_IRQ,
            0x11 => code::EQUIPMENT,
            0x12 => code::BASE_MEMORY,
            0x13 | 0x15 => code::NO_FUNCTION,
            0x18 | 0x19 => code::RESET,
            _ => code::RETURN,
        };
        mem.write_u16(4 * vector, offset);
        mem.write_u16(4 * vector + 2, BIOS_SEGMENT);
    }
}

/// Offsets in the BIOS data area at 400h.
mod bda {
    pub const START: u32 = 0x400;
    pub const SIZE: usize = 0x100;
    pub const COM_PORTS: u32 = 0x00;
    pub const EBDA_SEGMENT: u32 = 0x0e;
    pub const EQUIPMENT: u32 = 0x10;
    pub const BASE_MEMORY: u32 = 0x13;
    pub const KEYBOARD_HEAD: u32 = 0x1a;
    pub const KEYBOARD_TAIL: u32 = 0x1c;
    pub const KEYBOARD_BUFFER: u32 = 0x1e;
    pub const COM_TIMEOUTS: u32 = 0x7c;
    pub const KEYBOARD_START: u32 = 0x80;
    pub const KEYBOARD_END: u32 = 0x82;
    pub const KEYBOARD_FLAGS: u32 = 0x96;
}

const COM_PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
/// Equipment: x87, pointing device, 80x25 colour; the serial ports are counted from bit 9 on.
const EQUIPMENT: u16 = 0x26;
const SERIAL_SHIFT: u32 = 9;

/// The BIOS data area and the extended one.
fn install_data_area(board: &BoardInfo, mem: &mut Memory) {
    let serial = usize::from(board.serial_ports).min(COM_PORTS.len());
    mem.write(bda::START, &[0; bda::SIZE]);
    for (i, &port) in (0..).zip(&COM_PORTS[..serial]) {
        mem.write_u16(bda::START + bda::COM_PORTS + 2 * i, port);
        mem.write_u8(bda::START + bda::COM_TIMEOUTS + i, 0x0a);
    }
    mem.write_u16(bda::START + bda::EBDA_SEGMENT, (EBDA >> 4) as u16);
    mem.write_u16(bda::START + bda::EQUIPMENT, EQUIPMENT | (serial as u16) << SERIAL_SHIFT);
    mem.write_u16(bda::START + bda::BASE_MEMORY, BASE_MEMORY_KIB);
    let buffer = bda::KEYBOARD_BUFFER as u16;
    mem.write_u16(bda::START + bda::KEYBOARD_HEAD, buffer);
    mem.write_u16(bda::START + bda::KEYBOARD_TAIL, buffer);
    mem.write_u16(bda::START + bda::KEYBOARD_START, buffer);
    mem.write_u16(bda::START + bda::KEYBOARD_END, buffer + 0x20);
    mem.write_u8(bda::START + bda::KEYBOARD_FLAGS, 0x10); // 101 keys
    video::install_data(bda::START, mem);

    let mut ebda = [0; 1024];
    ebda[0] = 1; // its size in KiB
    mem.write(EBDA, &ebda);
}

/// The PCI interrupt routing table, `$PIR` (Microsoft, PCI IRQ Routing Table Specification 1.0).
fn pirq_table() -> Vec<u8> {
    use crate::board::{ISA_BRIDGE, PIRQRCA, pirq};
    const SLOTS: Range<u8> = 1..32;
    /// Any interrupt that ISA leaves free: 3 to 7, 9 to 12, 14, 15.
    const POSSIBLE: u16 = 0xdef8;
    const ROUTER: u32 = 0x7000_8086;

    let exclusive = PIRQ_ROUTING.iter().fold(0u16, |bits, irq| bits | 1 << irq);
    let size = 32 + 16 * SLOTS.len() as u16;
    let mut table = b"$PIR".to_vec();
    table.extend([0, 1]); // version 1.0
    table.extend(size.to_le_bytes());
    table.extend([0, ISA_BRIDGE]);
    table.extend(exclusive.to_le_bytes());
    table.extend(ROUTER.to_le_bytes());
    table.extend([0; 16]); // miniport data, reserved, checksum
    for slot in SLOTS {
        table.extend([0, slot << 3]);
        for pin in 1..=4 {
            table.push(PIRQRCA + pirq(slot, pin));
            table.extend(POSSIBLE.to_le_bytes());
        }
        table.extend([0, 0]); // soldered to the board
    }
    set_checksum(&mut table, 31);
    table
}

/// The chips that a PC/AT has: keyboard controller, DMA, interrupt controllers, timer.
fn configure_legacy() -> Vec<Step> {
    let levels = PIRQ_ROUTING.iter().fold(0u16, |bits, irq| bits | 1 << irq);
    let writes: [(u16, u8); 26] = [
        // 8237A: master clear, then the second one cascades the first.
        (0x0d, 0),
        (0xda, 0),
        (0xd6, 0xc0),
        (0xd4, 0),
        // 8254: counter 0 divides by 65536.
        (0x43, 0x34),
        (0x40, 0),
        (0x40, 0),
        // 8259A: edge triggered, cascaded, vectors 08h and 70h, all masked but the timer, the
        // keyboard and the cascade: INT 08h counts, and a HLT ends.
        (0x20, 0x11),
        (0x21, 0x08),
        (0x21, 0x04),
        (0x21, 0x01),
        (0xa0, 0x11),
        (0xa1, 0x70),
        (0xa1, 0x02),
        (0xa1, 0x01),
        (0x21, 0xf8),
        (0xa1, 0xff),
        // ELCR: the PCI interrupts are level triggered.
        (0x4d0, levels as u8),
        (0x4d1, (levels >> 8) as u8),
        // Timer counter 2 off, speaker silent.
        (0x61, 0),
        // RTC: 32768 Hz, 1024 Hz rate, 24 hours, no interrupt. NMI on.
        (0x70, 0x0a),
        (0x71, 0x26),
        (0x70, 0x0b),
        (0x71, 0x02),
        (0x70, 0x0d),
        // x87 error latch.
        (0xf0, 0),
    ];
    // The keyboard comes first: the interrupt controllers' initialisation forgets its request.
    let mut steps = enable_keyboard();
    steps.extend(writes.map(|(port, value)| Step::out(port, value)));
    steps
}

/// The keyboard scans and interrupts, its codes are translated; the mouse is off until asked for.
fn enable_keyboard() -> Vec<Step> {
    const DATA: u16 = 0x60;
    const COMMAND: u16 = 0x64;
    const WRITE_COMMAND_BYTE: u8 = 0x60;
    const MOUSE_OFF_TRANSLATE: u8 = 0x60;
    const KEYBOARD_INTERRUPT: u8 = 0x01;
    const ENABLE_SCANNING: u8 = 0xf4;
    vec![
        Step::out(COMMAND, WRITE_COMMAND_BYTE),
        Step::out(DATA, MOUSE_OFF_TRANSLATE),
        Step::out(DATA, ENABLE_SCANNING),
        Step::In(DATA), // its acknowledgement
        Step::out(COMMAND, WRITE_COMMAND_BYTE),
        Step::out(DATA, MOUSE_OFF_TRANSLATE | KEYBOARD_INTERRUPT),
    ]
}

/// The local APIC in virtual wire mode: LINT0 takes the 8259A's interrupts, LINT1 is NMI.
fn configure_local_apic() -> Vec<Step> {
    const SPURIOUS: (u32, u32) = (0xf0, 0x1fe); // enabled, vector FEh
    const LINT0: (u32, u32) = (0x350, 0x8700); // ExtINT, level
    const LINT1: (u32, u32) = (0x360, 0x8400); // NMI, level
    [SPURIOUS, LINT0, LINT1]
        .map(|(reg, value)| Step::Mmio { addr: acpi::LOCAL_APIC + reg, values: vec![value] })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::tests::sample;

    fn installed(acpi: bool) -> Box<Memory> {
        let mut mem = Memory::new(16 << 20).unwrap();
        mem.write(0, &vec![0xee; 0xa_0000]);
        install(&sample(acpi), &mut mem).unwrap();
        mem
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &b| sum.wrapping_add(b))
    }

    #[test]
    fn every_vector_points_to_code() {
        let mem = installed(false);
        for vector in 0..256 {
            let at = BIOS.start + u32::from(mem.read_u16(4 * vector));
            assert_eq!(mem.read_u16(4 * vector + 2), 0xf000);
            assert_ne!(mem.read_u8(at), 0, "vector {vector:#x}");
        }
        assert_eq!(mem.slice(0xf_fff0, 5).unwrap(), [0xea, 0x90, 0xe0, 0x00, 0xf0]);
    }

    #[test]
    fn pieces_of_code_do_not_overlap() {
        let mut spans: Vec<_> =
            code::ALL.iter().map(|(at, c)| (*at as usize, *at as usize + c.len())).collect();
        spans.sort();
        assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0));
        assert_eq!(spans.last().unwrap().1, 0x1_0000);
    }

    #[test]
    fn data_area_describes_the_board() {
        let mem = installed(false);
        assert_eq!(mem.read_u16(0x400), 0x3f8);
        assert_eq!(mem.read_u16(0x406), 0x2e8);
        assert_eq!(mem.read_u16(0x40e), 0x9fc0);
        assert_eq!(mem.read_u16(0x410), 0x826);
        assert_eq!(mem.read_u16(0x413), 639);
        assert_eq!((mem.read_u8(0x449), mem.read_u16(0x44a), mem.read_u16(0x463)), (3, 80, 0x3d4));
        assert_eq!(mem.read_u16(EBDA), 1);
    }

    #[test]
    fn routing_table_adds_up() {
        let mem = installed(false);
        let size = mem.read_u16(PIRQ_TABLE + 6).into();
        let table = mem.slice(PIRQ_TABLE, size).unwrap();
        assert_eq!((&table[..4], sum(table)), (b"$PIR".as_slice(), 0));
        let slot6 = &table[32 + 16 * 5..][..16];
        assert_eq!((slot6[1], slot6[2], slot6[5]), (0x30, 0x61, 0x62));
        assert!(PIRQ_TABLE + size < MP_TABLE);
    }

    #[test]
    fn tables_of_apics_come_with_apics() {
        for acpi in [false, true] {
            let mem = installed(acpi);
            let bios = mem.slice(BIOS.start, BIOS.len() as u32).unwrap();
            let has = |signature: &[u8]| bios.chunks(16).any(|c| c.starts_with(signature));
            assert_eq!((has(b"_MP_"), has(b"RSD PTR "), has(b"$PIR")), (acpi, acpi, true));
        }
    }

    #[test]
    fn memory_map_covers_ram_once() {
        for acpi in [false, true] {
            let map = memory_map(&sample(acpi), 64 << 20);
            assert!(map.windows(2).all(|w| w[0].range.end <= w[1].range.start));
            assert_eq!(map.last().unwrap().range.end, 64 << 20);
        }
        assert_eq!(memory_map(&sample(false), 1 << 20).len(), 3);
        let mut small = Memory::new(1 << 20).unwrap();
        assert!(install(&sample(true), &mut small).is_err());
        assert!(install(&sample(false), &mut small).is_ok());
    }
}
