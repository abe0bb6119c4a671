//! ACPI tables (ACPI 1.0b, chapter 5) for the board with its option `acpi`.
//!
//! The fixed hardware is the PIIX4's as the board has it; a write of SLP_TYP 0 with SLP_EN to the
//! PM1a control register is soft-off (S5), the only sleeping state.

use env86_emu::Memory;

use crate::{
    aml::{self, Space, Term},
    board::{BoardInfo, PIRQRCA, PM_BASE, POWER_MANAGEMENT, SCI_IRQ, pirq},
    checksum::set_checksum,
};

/// The local APIC's registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// The I/O APIC's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// SLP_TYP of soft-off, for PM1a and PM1b.
pub const SLEEP_TYPE_OFF: u8 = 0;

const GPE_BASE: u32 = 0xafe0;
const SMI_COMMAND: u32 = 0xb2;
const SMI_ACPI_ENABLE: u8 = 0xf1;
const SMI_ACPI_DISABLE: u8 = 0xf0;
/// WBINVD works; C1 works; no sleep button; RTC can't wake from S4 by status; platform clock.
const FADT_FLAGS: u32 = 0x80a5;
/// ISA interrupts that are level triggered and active high.
const LEVEL_IRQS: [u8; 4] = [5, 9, 10, 11];
/// Interrupts that PCI link devices may be set to.
const LINK_CHOICES: [u32; 3] = [5, 10, 11];
/// PCI memory windows end where the I/O APIC begins.
const PCI_MEMORY: u32 = 0xe000_0000;

const OEM: &[u8; 6] = b"ENV86 ";
const TABLE_OEM: &[u8; 8] = b"ENV86PC ";

/// Puts the tables at `addr`, the firmware control structure at `facs` and the root pointer at `rsdp`.
pub fn install(board: &BoardInfo, addr: u32, facs: u32, rsdp: u32, mem: &mut Memory) {
    let mut next = addr;
    let mut place = |table: &[u8], mem: &mut Memory| {
        let at = next;
        mem.write(at, table);
        next = (at + table.len() as u32).next_multiple_of(16);
        at
    };
    mem.write(facs, &build_facs());
    let dsdt = place(&build_dsdt(board), mem);
    let fadt = place(&build_fadt(facs, dsdt), mem);
    let madt = place(&build_madt(), mem);
    let entries: Vec<u8> = [fadt, madt].iter().flat_map(|at| at.to_le_bytes()).collect();
    let rsdt = place(&table(b"RSDT", &entries), mem);
    mem.write(rsdp, &build_rsdp(rsdt));
}

/// A system description table: the header of revision 1 and `body`.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.extend([1, 0]); // revision, checksum
    table.extend(OEM);
    table.extend(TABLE_OEM);
    table.extend(1u32.to_le_bytes());
    table.extend(b"ENV8");
    table.extend(1u32.to_le_bytes());
    table.extend(body);
    set_checksum(&mut table, 9);
    table
}

fn build_rsdp(rsdt: u32) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0".to_vec();
    rsdp.extend(OEM);
    rsdp.push(0);
    rsdp.extend(rsdt.to_le_bytes());
    set_checksum(&mut rsdp, 8);
    rsdp
}

/// Firmware ACPI control structure: no wake vector, no global lock taken.
fn build_facs() -> Vec<u8> {
    let mut facs = b"FACS".to_vec();
    facs.extend(64u32.to_le_bytes());
    facs.resize(64, 0);
    facs
}

/// Fixed ACPI description table, revision 1.
fn build_fadt(facs: u32, dsdt: u32) -> Vec<u8> {
    const MULTIPLE_APIC: u8 = 1;
    /// Latencies above these say that C2 and C3 are not there (C2: 100, C3: 1000 microseconds).
    const NO_C_STATE: u16 = 0xfff;
    let pm = u32::from(PM_BASE);
    let mut body = Vec::new();
    body.extend(facs.to_le_bytes());
    body.extend(dsdt.to_le_bytes());
    body.extend([MULTIPLE_APIC, 0]);
    body.extend(u16::from(SCI_IRQ).to_le_bytes());
    body.extend(SMI_COMMAND.to_le_bytes());
    body.extend([SMI_ACPI_ENABLE, SMI_ACPI_DISABLE, 0, 0]);
    // PM1a and PM1b event, PM1a and PM1b control, PM2 control, timer, GPE0, GPE1.
    for block in [pm, 0, pm + 4, 0, 0, pm + 8, GPE_BASE, 0] {
        body.extend(block.to_le_bytes());
    }
    // Their lengths: event, control, PM2, timer, GPE0, GPE1; base of GPE1; no _CST.
    body.extend([4, 2, 0, 4, 4, 0, 0, 0]);
    body.extend(NO_C_STATE.to_le_bytes());
    body.extend(NO_C_STATE.to_le_bytes());
    body.extend([0; 12]); // cache flush by WBINVD; no duty cycle; no alarm or century registers
    body.extend(FADT_FLAGS.to_le_bytes());
    table(b"FACP", &body)
}

/// Multiple APIC description table.
fn build_madt() -> Vec<u8> {
    const PCAT_COMPATIBLE: u32 = 1;
    const HIGH_LEVEL: u16 = 0x0d;
    let mut body = Vec::new();
    body.extend(LOCAL_APIC.to_le_bytes());
    body.extend(PCAT_COMPATIBLE.to_le_bytes());
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]); // processor 0, APIC 0, enabled
    body.extend([1, 12, 0, 0]); // I/O APIC 0
    body.extend(IO_APIC.to_le_bytes());
    body.extend(0u32.to_le_bytes()); // its first interrupt
    for irq in LEVEL_IRQS {
        body.extend([2, 10, 0, irq]); // override of an ISA interrupt
        body.extend(u32::from(irq).to_le_bytes());
        body.extend(HIGH_LEVEL.to_le_bytes());
    }
    body.extend([4, 6, 0xff, 0, 0, 1]); // NMI at LINT1 of all processors
    table(b"APIC", &body)
}

/// Differentiated system description table: the devices that can't be found by probing, how PCI
/// interrupts are routed, and soft-off.
pub fn build_dsdt(board: &BoardInfo) -> Vec<u8> {
    let sleep = SLEEP_TYPE_OFF.into();
    let off = aml::package(&[aml::integer(sleep), aml::integer(sleep), aml::integer(0), aml::integer(0)]);
    let mut system = vec![pci_root(board)];
    system.extend((0..4).map(link));
    let terms = [
        aml::scope("\\_PR", &[aml::processor("CPU0", 0)]),
        aml::scope("\\_SB", &system),
        aml::name("\\_S5", off),
    ];
    table(b"DSDT", &terms.concat())
}

fn pci_root(board: &BoardInfo) -> Term {
    aml::device(
        "PCI0",
        &[
            hardware_id("PNP0A03"),
            aml::name("_UID", aml::integer(0)),
            aml::name(
                "_CRS",
                aml::resources(&[
                    aml::word_window(Space::Bus, 0, 0xff),
                    aml::io(0xcf8, 8),
                    aml::word_window(Space::Io, 0, 0xcf7),
                    aml::word_window(Space::Io, 0xd00, 0xffff),
                    aml::dword_window(Space::CacheableMemory, 0xa_0000, 0xb_ffff),
                    aml::dword_window(Space::Memory, PCI_MEMORY, IO_APIC - 1),
                ]),
            ),
            aml::name("_PRT", routing()),
            isa_bridge(board),
        ],
    )
}

/// Which link device each pin of each slot ends at. The power management function is left out: its
/// interrupt is the SCI, whatever its pin says.
fn routing() -> Term {
    let slots = (1..32).filter(|&slot| slot != POWER_MANAGEMENT >> 3);
    let pins = slots.flat_map(|slot: u8| (1..=4).map(move |pin: u8| (slot, pin)));
    let entries: Vec<_> = pins
        .map(|(slot, pin)| {
            let address = u32::from(slot) << 16 | 0xffff;
            let line = LINKS[usize::from(pirq(slot, pin))];
            let items =
                [aml::integer(address), aml::integer(u32::from(pin) - 1), aml::path(line), aml::integer(0)];
            aml::package(&items)
        })
        .collect();
    aml::package(&entries)
}

/// First port and interrupt of COM1 to COM4.
const SERIAL_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
const LINKS: [&str; 4] = ["LNKA", "LNKB", "LNKC", "LNKD"];
/// The routing registers of the ISA bridge, as the link devices see them.
const ROUTING_FIELDS: [&str; 4] = ["PRQA", "PRQB", "PRQC", "PRQD"];

fn isa_bridge(board: &BoardInfo) -> Term {
    let mut body = vec![
        aml::name("_ADR", aml::integer(0x1_0000)),
        aml::pci_config_region("PIRR", PIRQRCA, 4),
        aml::byte_fields("PIRR", &ROUTING_FIELDS),
        isa_device("RTC", "PNP0B00", &[], &[aml::io(0x70, 2), aml::irq(8)]),
        isa_device("KBD", "PNP0303", &[], &[aml::io(0x60, 1), aml::io(0x64, 1), aml::irq(1)]),
        isa_device("MOU", "PNP0F13", &[], &[aml::irq(12)]),
    ];
    for (n, (port, interrupt)) in (1..=board.serial_ports).zip(SERIAL_PORTS) {
        let unique = aml::name("_UID", aml::integer(n.into()));
        let resources = [aml::io(port, 8), aml::shared_irq(interrupt)];
        body.push(isa_device(&format!("COM{n}"), "PNP0501", &[unique], &resources));
    }
    aml::device("ISA", &body)
}

fn isa_device(name: &str, id: &str, more: &[Term], resources: &[Term]) -> Term {
    let current = aml::name("_CRS", aml::resources(resources));
    aml::device(name, &[hardware_id(id), more.concat(), current])
}

fn hardware_id(id: &str) -> Term {
    aml::name("_HID", aml::eisa_id(id))
}

/// A link device: one PIRQ line with its routing register, bit 7 of which disables it.
fn link(line: u8) -> Term {
    const DISABLED: u32 = 0x80;
    const PRESENT: u32 = 0x09;
    const PRESENT_ENABLED: u32 = 0x0b;
    let register = || aml::path(&format!("\\_SB.PCI0.ISA.{}", ROUTING_FIELDS[usize::from(line)]));
    let number = || aml::path("IRQN");
    let disabled = || aml::and(register(), aml::integer(DISABLED));
    let template = || aml::path("IRQB");
    aml::device(
        LINKS[usize::from(line)],
        &[
            hardware_id("PNP0C0F"),
            aml::name("_UID", aml::integer(u32::from(line) + 1)),
            aml::name("_PRS", aml::resources(&[aml::interrupts(&LINK_CHOICES)])),
            aml::method(
                "_STA",
                0,
                &[
                    aml::if_(disabled(), &[aml::return_(aml::integer(PRESENT))]),
                    aml::return_(aml::integer(PRESENT_ENABLED)),
                ],
            ),
            aml::method("_DIS", 0, &[aml::or(register(), aml::integer(DISABLED), register())]),
            aml::name("IRQB", aml::resources(&[aml::interrupts(&[0])])),
            aml::create_dword_field(template(), aml::INTERRUPT_NUMBER, "IRQN"),
            aml::method(
                "_CRS",
                0,
                &[
                    aml::store(aml::and(register(), aml::integer(0x0f)), number()),
                    aml::if_(disabled(), &[aml::store(aml::integer(0), number())]),
                    aml::return_(template()),
                ],
            ),
            aml::method(
                "_SRS",
                1,
                &[
                    aml::create_dword_field(aml::arg0(), aml::INTERRUPT_NUMBER, "NEWN"),
                    aml::store(aml::path("NEWN"), register()),
                ],
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::tests::sample;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &b| sum.wrapping_add(b))
    }

    #[test]
    fn tables_are_found_from_the_root_and_add_up() {
        let mut mem = Memory::new(16 << 20).unwrap();
        let (area, facs, root) = (0x20_0000, 0x20_f000, 0xf_8000);
        install(&sample(true), area, facs, root, &mut mem);
        let rsdp = mem.slice(root, 20).unwrap();
        assert_eq!((&rsdp[..8], sum(rsdp)), (b"RSD PTR ".as_slice(), 0));
        let whole = |at: u32| {
            let len = mem.read_u32(at + 4);
            assert!(at >= area && at + len <= facs);
            let table = mem.slice(at, len).unwrap();
            assert_eq!(sum(table), 0);
            table
        };
        let rsdt = whole(mem.read_u32(root + 16));
        assert_eq!((&rsdt[..4], rsdt.len()), (b"RSDT".as_slice(), 44));
        let at = |offset: usize| u32::from_le_bytes(*rsdt[offset..].first_chunk().unwrap());
        let fadt = whole(at(36));
        assert_eq!((&fadt[..4], fadt.len()), (b"FACP".as_slice(), 116));
        assert_eq!(whole(at(40))[..4], *b"APIC");
        assert_eq!(fadt[112..], FADT_FLAGS.to_le_bytes());
        assert_eq!(fadt[76..80], 0xb008u32.to_le_bytes());
        assert_eq!(fadt[36..40], facs.to_le_bytes());
        let dsdt = whole(u32::from_le_bytes(*fadt[40..].first_chunk().unwrap()));
        assert_eq!(dsdt[..4], *b"DSDT");
        // \_S5: a package of four zeros.
        assert!(dsdt.windows(11).any(|w| w == b"_S5_\x12\x06\x04\0\0\0\0"));
    }

    /// With `ENV86_TEST_DSDT=FILE`: writes the table for a disassembler to read.
    #[test]
    fn dsdt_for_a_disassembler() {
        if let Some(path) = std::env::var_os("ENV86_TEST_DSDT") {
            std::fs::write(path, build_dsdt(&sample(true))).unwrap();
        }
    }
}
