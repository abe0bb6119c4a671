//! The pins of the processor: what it asks of the board it sits on.

use crate::memory::Memory;

/// The width of one port or memory-mapped access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
}

impl Width {
    /// The number of bytes: 1, 2 or 4.
    pub const fn bytes(self) -> u32 {
        self as u32
    }

    /// The value with all bits of this width set, which is also what an access that nothing on the
    /// board claims reads.
    pub const fn mask(self) -> u32 {
        match self {
            Width::Byte => 0xff,
            Width::Word => 0xffff,
            Width::Dword => 0xffff_ffff,
        }
    }
}

/// The port at which a guest calls the hypervisor that CPUID names in leaf 40000000h: an IN of a
/// doubleword from it is [`Bus::hypervisor_call`].
pub const HYPERVISOR_PORT: u16 = 0x5658;

/// The registers in which a guest calls the hypervisor, and in which that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HypervisorCall {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// What waits for the processor to look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// [`Bus::yield_requested`].
    pub yield_requested: bool,
    /// [`Bus::nmi`].
    pub nmi: bool,
    /// [`Bus::interrupt`].
    pub interrupt: bool,
}

/// The board as the processor sees it.
///
/// Accesses carry the guest's memory, so that a device that is a bus master can reach it. Nothing
/// here fails: what no device claims reads as all ones and swallows writes. So do pins to which nothing
/// is connected, which is what a board need not say anything about.
pub trait Bus {
    /// Reads a port. Bits above `width` of the result are ignored.
    fn port_read(&mut self, _mem: &mut Memory, _port: u16, width: Width) -> u32 {
        width.mask()
    }

    /// Writes a port. Bits of `value` above `width` are zero.
    fn port_write(&mut self, _mem: &mut Memory, _port: u16, _width: Width, _value: u32) {}

    /// What the next reads of a port would give, one after the other, where nothing else comes of any but the last of
    /// them: a repeated INS takes many at once then, and says so by [`Self::port_moved`].
    fn port_source(&self, _port: u16, _width: Width) -> Option<&[u8]> {
        None
    }

    /// Where the next writes to a port would go, in the same way, for a repeated OUTS.
    fn port_sink(&mut self, _port: u16, _width: Width) -> Option<&mut [u8]> {
        None
    }

    /// So many bytes of [`Self::port_source`] or [`Self::port_sink`] have been read or written, which is a whole
    /// number of accesses.
    fn port_moved(&mut self, _mem: &mut Memory, _port: u16, _bytes: usize) {}

    /// Answers a call to the hypervisor. Where there is none, the port reads as all ones.
    fn hypervisor_call(&mut self, call: &mut HypervisorCall) {
        call.eax = u32::MAX;
    }

    /// Reads a physical address that is not RAM.
    fn mmio_read(&mut self, _mem: &mut Memory, _addr: u32, width: Width) -> u32 {
        width.mask()
    }

    /// Writes a physical address that is not RAM.
    fn mmio_write(&mut self, _mem: &mut Memory, _addr: u32, _width: Width, _value: u32) {}

    /// The level of the INTR pin: an interrupt controller has a vector to deliver.
    fn interrupt(&self) -> bool {
        false
    }

    /// The NMI latch: a non-maskable interrupt waits.
    fn nmi(&self) -> bool {
        false
    }

    /// The processor takes the non-maskable interrupt.
    fn acknowledge_nmi(&mut self) {}

    /// The interrupt acknowledge cycle: takes the vector (a spurious one if the reason has gone).
    fn acknowledge(&mut self) -> u8 {
        Width::Byte.mask() as u8
    }

    /// The board wants the running processor to return before its budget is spent: a reset, a
    /// power-off, an exit was asked for, or a deadline was moved nearer.
    fn yield_requested(&self) -> bool {
        false
    }

    /// All that the processor looks at after each access, asked in one call. Only what the processor asks of the
    /// board changes it while the processor runs.
    fn pins(&self) -> Pins {
        Pins { yield_requested: self.yield_requested(), nmi: self.nmi(), interrupt: self.interrupt() }
    }

    /// Guest time in nanoseconds since power-on; never goes back. The TSC counts it.
    fn now(&mut self) -> u64;

    /// The FERR pin: an unmasked x87 exception with CR0.NE clear, which a PC routes to IRQ 13.
    fn fpu_error(&mut self) {}

    /// 32 random bits for RDRAND.
    fn random(&mut self) -> u32;

    /// IA32_APIC_BASE (MSR 1Bh).
    fn apic_base(&self) -> u32 {
        0
    }

    /// A guest's write to IA32_APIC_BASE.
    fn set_apic_base(&mut self, _value: u32) {}
}

/// The board of a processor that stands alone: nothing answers, and time stands still.
pub struct Unconnected;

impl Bus for Unconnected {
    fn now(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u32 {
        0
    }
}
