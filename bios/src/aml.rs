//! A builder for ACPI machine language (ACPI 1.0b, chapters 6.4 and 16): each function gives the
//! bytes of one term. Names are up to four characters; they are padded as AML wants them.

/// The bytes of a term.
pub type Term = Vec<u8>;

const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const NAME_OP: u8 = 0x08;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;
const SCOPE_OP: u8 = 0x10;
const BUFFER_OP: u8 = 0x11;
const PACKAGE_OP: u8 = 0x12;
const METHOD_OP: u8 = 0x14;
const DUAL_NAME_PREFIX: u8 = 0x2e;
const MULTI_NAME_PREFIX: u8 = 0x2f;
const EXT_OP: u8 = 0x5b;
const OP_REGION_OP: u8 = 0x80;
const FIELD_OP: u8 = 0x81;
const DEVICE_OP: u8 = 0x82;
const PROCESSOR_OP: u8 = 0x83;
const ROOT_CHAR: u8 = b'\\';
const ARG0_OP: u8 = 0x68;
const STORE_OP: u8 = 0x70;
const AND_OP: u8 = 0x7b;
const OR_OP: u8 = 0x7d;
const CREATE_DWORD_FIELD_OP: u8 = 0x8a;
const IF_OP: u8 = 0xa0;
const RETURN_OP: u8 = 0xa4;

/// The first argument of a method.
pub fn arg0() -> Term {
    vec![ARG0_OP]
}

/// A path such as `\_SB.PCI0` or `_CRS`.
pub fn path(path: &str) -> Term {
    let (root, relative) = match path.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, path),
    };
    let segments: Vec<_> = relative.split('.').collect();
    let mut term = Vec::new();
    if root {
        term.push(ROOT_CHAR);
    }
    match segments.len() {
        1 => {}
        2 => term.push(DUAL_NAME_PREFIX),
        n => term.extend([MULTI_NAME_PREFIX, n as u8]),
    }
    for segment in segments {
        term.extend(segment.bytes().chain(*b"____").take(4));
    }
    term
}

/// An integer in its shortest form.
pub fn integer(value: u32) -> Term {
    match value {
        0 => vec![ZERO_OP],
        1 => vec![ONE_OP],
        2..=0xff => vec![BYTE_PREFIX, value as u8],
        0x100..=0xffff => [&[WORD_PREFIX], (value as u16).to_le_bytes().as_slice()].concat(),
        _ => [&[DWORD_PREFIX], value.to_le_bytes().as_slice()].concat(),
    }
}

/// An EISA device id such as `PNP0A03`, as the integer that `_HID` takes.
pub fn eisa_id(id: &str) -> Term {
    let (letters, digits) = id.split_at(3);
    let vendor = letters.bytes().fold(0u16, |v, c| v << 5 | u16::from(c - b'@'));
    let product = digits.bytes().fold(0u16, |v, c| v << 4 | (c as char).to_digit(16).unwrap_or(0) as u16);
    let packed = u32::from(vendor) << 16 | u32::from(product);
    [&[DWORD_PREFIX], packed.to_be_bytes().as_slice()].concat()
}

/// `Name (name, value)`.
pub fn name(name: &str, value: Term) -> Term {
    [vec![NAME_OP], path(name), value].concat()
}

/// `Scope (name) { body }`.
pub fn scope(name: &str, body: &[Term]) -> Term {
    sized(&[SCOPE_OP], [path(name), body.concat()].concat())
}

/// `Device (name) { body }`.
pub fn device(name: &str, body: &[Term]) -> Term {
    sized(&[EXT_OP, DEVICE_OP], [path(name), body.concat()].concat())
}

/// `Processor (name, id, 0, 0) {}`: no power states but C1.
pub fn processor(name: &str, id: u8) -> Term {
    sized(&[EXT_OP, PROCESSOR_OP], [path(name), vec![id, 0, 0, 0, 0, 0]].concat())
}

/// `Method (name, args, Serialized) { body }`.
pub fn method(name: &str, args: u8, body: &[Term]) -> Term {
    const SERIALIZED: u8 = 8;
    sized(&[METHOD_OP], [path(name), vec![args | SERIALIZED], body.concat()].concat())
}

/// `Package () { items }`.
pub fn package(items: &[Term]) -> Term {
    sized(&[PACKAGE_OP], [vec![items.len() as u8], items.concat()].concat())
}

/// `OperationRegion (name, PCI_Config, offset, len)`.
pub fn pci_config_region(name: &str, offset: u8, len: u8) -> Term {
    const PCI_CONFIG: u8 = 2;
    [vec![EXT_OP, OP_REGION_OP], path(name), vec![PCI_CONFIG], integer(offset.into()), integer(len.into())]
        .concat()
}

/// `Field (region, ByteAcc, NoLock, Preserve) { fields }`, each field one byte.
pub fn byte_fields(region: &str, fields: &[&str]) -> Term {
    const BYTE_ACCESS: u8 = 1;
    let fields = fields.iter().flat_map(|f| [path(f), vec![8]].concat()).collect();
    sized(&[EXT_OP, FIELD_OP], [path(region), vec![BYTE_ACCESS], fields].concat())
}

/// `CreateDWordField (buffer, offset, name)`.
pub fn create_dword_field(buffer: Term, offset: u32, name: &str) -> Term {
    [vec![CREATE_DWORD_FIELD_OP], buffer, integer(offset), path(name)].concat()
}

/// `Store (value, target)`.
pub fn store(value: Term, target: Term) -> Term {
    [vec![STORE_OP], value, target].concat()
}

/// `And (a, b)`.
pub fn and(a: Term, b: Term) -> Term {
    [vec![AND_OP], a, b, vec![ZERO_OP]].concat()
}

/// `Or (a, b, target)`.
pub fn or(a: Term, b: Term, target: Term) -> Term {
    [vec![OR_OP], a, b, target].concat()
}

/// `If (condition) { body }`.
pub fn if_(condition: Term, body: &[Term]) -> Term {
    sized(&[IF_OP], [condition, body.concat()].concat())
}

/// `Return (value)`.
pub fn return_(value: Term) -> Term {
    [vec![RETURN_OP], value].concat()
}

/// `ResourceTemplate () { resources }`.
pub fn resources(resources: &[Term]) -> Term {
    const END_TAG: [u8; 2] = [0x79, 0]; // its checksum, if zero, is not checked
    let bytes = [resources.concat(), END_TAG.to_vec()].concat();
    sized(&[BUFFER_OP], [integer(bytes.len() as u32), bytes].concat())
}

/// `IO (Decode16, first, first, 1, len)`.
pub fn io(first: u16, len: u8) -> Term {
    let [lo, hi] = first.to_le_bytes();
    vec![0x47, 1, lo, hi, lo, hi, 1, len]
}

/// `IRQNoFlags () { irq }`: edge triggered, active high.
pub fn irq(irq: u8) -> Term {
    let [lo, hi] = (1u16 << irq).to_le_bytes();
    vec![0x22, lo, hi]
}

/// `IRQ (Edge, ActiveHigh, Shared) { irq }`.
pub fn shared_irq(irq: u8) -> Term {
    const EDGE_HIGH_SHARED: u8 = 0x11;
    let [lo, hi] = (1u16 << irq).to_le_bytes();
    vec![0x23, lo, hi, EDGE_HIGH_SHARED]
}

/// `Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { interrupts }`.
pub fn interrupts(interrupts: &[u32]) -> Term {
    const CONSUMER_LEVEL_HIGH_SHARED: u8 = 0x09;
    let mut term = vec![0x89];
    term.extend((2 + 4 * interrupts.len() as u16).to_le_bytes());
    term.extend([CONSUMER_LEVEL_HIGH_SHARED, interrupts.len() as u8]);
    term.extend(interrupts.iter().flat_map(|i| i.to_le_bytes()));
    term
}

/// Where the first number is in the bytes of [`interrupts`].
pub const INTERRUPT_NUMBER: u32 = 5;

/// What an address space descriptor describes.
#[derive(Clone, Copy, Debug)]
pub enum Space {
    /// Memory, read and write, not cacheable.
    Memory,
    /// Memory, read and write, cacheable.
    CacheableMemory,
    /// Ports, all of them.
    Io,
    /// PCI bus numbers.
    Bus,
}

impl Space {
    /// Resource type and type-specific flags.
    const fn codes(self) -> [u8; 2] {
        match self {
            Space::Memory => [0, 0x01],
            Space::CacheableMemory => [0, 0x03],
            Space::Io => [1, 0x03],
            Space::Bus => [2, 0x00],
        }
    }
}

/// Minimum and maximum are fixed, positive decode, a producer.
const FIXED_PRODUCER: u8 = 0x0c;

/// A window that a bridge passes on, in 16 bits: `WordIO`, `WordBusNumber`.
pub fn word_window(space: Space, first: u16, last: u16) -> Term {
    let [kind, flags] = space.codes();
    let len = (last - first).wrapping_add(1);
    let mut term = vec![0x88, 13, 0, kind, FIXED_PRODUCER, flags];
    term.extend([0, first, last, 0, len].iter().flat_map(|v| v.to_le_bytes()));
    term
}

/// A window that a bridge passes on, in 32 bits: `DWordMemory`.
pub fn dword_window(space: Space, first: u32, last: u32) -> Term {
    let [kind, flags] = space.codes();
    let len = (last - first).wrapping_add(1);
    let mut term = vec![0x87, 23, 0, kind, FIXED_PRODUCER, flags];
    term.extend([0, first, last, 0, len].iter().flat_map(|v| v.to_le_bytes()));
    term
}

/// An opcode, the length of what follows (the length's own bytes included), what follows.
fn sized(op: &[u8], body: Vec<u8>) -> Term {
    let len = match body.len() {
        n @ ..0x3f => vec![n as u8 + 1],
        n @ ..0xffe => vec![0x40 | (n + 2) as u8 & 15, ((n + 2) >> 4) as u8],
        n => vec![0x80 | (n + 3) as u8 & 15, ((n + 3) >> 4) as u8, ((n + 3) >> 12) as u8],
    };
    [op.to_vec(), len, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_ids_are_encoded_as_the_specification_says() {
        assert_eq!(path("_CRS"), b"_CRS");
        assert_eq!(path("\\_SB"), b"\\_SB_");
        assert_eq!(path("\\_SB.PCI0"), b"\\\x2e_SB_PCI0");
        assert_eq!(path("A.B.C"), b"\x2f\x03A___B___C___");
        assert_eq!(eisa_id("PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
    }

    #[test]
    fn lengths_count_themselves() {
        for (body, want) in [
            (0, vec![1]),
            (62, vec![63]),
            (63, vec![0x41, 4]),
            (0xffd, vec![0x4f, 0xff]),
            (0xffe, vec![0x81, 0x00, 0x01]),
        ] {
            let term = sized(&[0x10], vec![0; body]);
            assert_eq!(term[1..term.len() - body], want, "{body}");
        }
    }
}
