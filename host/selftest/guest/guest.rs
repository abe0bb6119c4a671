//! The assembler, with what all tests need: texts and variables, the line's detail, verdicts, time.

use std::ops::{Deref, DerefMut};

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};

/// What the assembler gives.
pub type Result<T = ()> = std::result::Result<T, IcedError>;

/// A test's name, and the function that writes its code.
pub type Test = (&'static str, fn(&mut Guest) -> Result);

/// Where the kernel is loaded. Its code is first, at fixed places behind it are its data and its work space.
pub const LOAD: u32 = 1 << 20;
/// Bytes of the Multiboot header, in front of the code.
const HEADER: u32 = 32;
const DATA: u32 = LOAD + 0x4000;
const WORK: u32 = LOAD + 0x8000;
/// The detail of a test's line.
pub const DETAIL: u32 = WORK;
/// What is read from a disk, or has come from the network.
pub const BUFFER: u32 = WORK + 0x1000;
/// The stack's upper end.
pub const STACK: u32 = WORK + 0x4000;
/// The first address that the kernel does not use.
pub const END: u32 = LOAD + 0x1_0000;

/// Subroutines. They keep all registers but those that are named.
#[derive(Clone, Copy)]
pub struct Routines {
    /// Appends the text at ESI to the detail; moves ESI.
    pub put: CodeLabel,
    /// Appends EAX to the detail, in decimal.
    pub put_decimal: CodeLabel,
    /// Appends AL to the detail, in hexadecimal.
    pub put_hex: CodeLabel,
    /// Shows the text at ESI on the screen and on COM1.
    pub show: CodeLabel,
    /// Gives the milliseconds since the start in EAX; changes EDX.
    pub now: CodeLabel,
    /// Waits for an interrupt, if the timer makes some.
    pub rest: CodeLabel,
    /// Looks for the PCI function with EAX as its vendor and device. Gives its configuration address in EBX, and
    /// the zero flag if it is there; changes EAX, ECX and EDX.
    pub find_pci: CodeLabel,
    /// A test's end: jumped to with nothing, or with a reason's text at ESI.
    pub passed: CodeLabel,
    /// There is no such part.
    pub absent: CodeLabel,
    /// It does not work.
    pub failed: CodeLabel,
}

/// Variables of 32 bits, by their addresses.
#[derive(Clone, Copy)]
pub struct Variables {
    /// Where the boot loader's information is.
    pub boot_info: u32,
    /// Where the detail goes on.
    pub tail: u32,
    /// The time stamp counter at the start, in 64 bits.
    pub start: u32,
    /// Its counts in a millisecond.
    pub tsc_khz: u32,
    /// When a test gives up, in ms.
    pub deadline: u32,
    /// What `timers` counts. The first word is not 0 if the timer interrupts: what waits may halt the processor.
    pub ticks: u32,
}

/// The guest as far as it is written.
pub struct Guest {
    code: CodeAssembler,
    data: Vec<u8>,
    /// Places in the data that hold addresses of code: they are known at the end.
    addresses: Vec<(u32, CodeLabel, Patch)>,
    /// The subroutines.
    pub to: Routines,
    /// The variables.
    pub at: Variables,
}

/// How an address of code lies in the data.
#[derive(Clone, Copy)]
pub enum Patch {
    /// As a word of 32 bits.
    Whole,
    /// In two halves, as in a gate (SDM volume 3, 6.11).
    Gate,
}

impl Deref for Guest {
    type Target = CodeAssembler;

    fn deref(&self) -> &CodeAssembler {
        &self.code
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.code
    }
}

impl Guest {
    /// Nothing yet.
    pub fn new() -> Result<Self> {
        /// Until it is measured: 1 GHz, as env86 has it. Others are given less time, or more.
        const USUAL_KHZ: u32 = 1_000_000;
        let mut code = CodeAssembler::new(32)?;
        let mut label = || code.create_label();
        let to = Routines {
            put: label(),
            put_decimal: label(),
            put_hex: label(),
            show: label(),
            now: label(),
            rest: label(),
            find_pci: label(),
            passed: label(),
            absent: label(),
            failed: label(),
        };
        let mut data = Vec::new();
        let mut variable = |values: &[u32]| {
            let at = DATA + data.len() as u32;
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            at
        };
        let at = Variables {
            boot_info: variable(&[0]),
            tail: variable(&[DETAIL]),
            start: variable(&[0, 0]),
            tsc_khz: variable(&[USUAL_KHZ]),
            deadline: variable(&[0]),
            ticks: variable(&[0; 6]),
        };
        Ok(Self { code, data, addresses: Vec::new(), to, at })
    }

    /// Puts bytes into the data, on 4 bytes, and gives their address.
    pub fn bytes(&mut self, bytes: &[u8]) -> u32 {
        self.data.resize(self.data.len().next_multiple_of(4), 0);
        let at = DATA + self.data.len() as u32;
        self.data.extend(bytes);
        at
    }

    /// The same with words of 32 bits.
    pub fn words(&mut self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// The same with a text, which ends with a zero.
    pub fn text(&mut self, text: &str) -> u32 {
        self.bytes(&[text.as_bytes(), &[0]].concat())
    }

    /// At this address in the data there is to be that of a label, which is set.
    pub fn address(&mut self, at: u32, label: CodeLabel, patch: Patch) {
        self.addresses.push((at - DATA, label, patch));
    }

    /// A label is here. Gives it as one that is set.
    pub fn here(&mut self, mut label: CodeLabel) -> Result<CodeLabel> {
        self.code.set_label(&mut label)?;
        // An instruction has one label at most; this one has no bytes.
        self.code.zero_bytes()?;
        Ok(label)
    }

    /// A new label, here.
    pub fn mark(&mut self) -> Result<CodeLabel> {
        let label = self.create_label();
        self.here(label)
    }

    /// Calls a subroutine.
    pub fn run(&mut self, routine: impl Fn(&Routines) -> CodeLabel) -> Result {
        let routine = routine(&self.to);
        self.code.call(routine)
    }

    /// Writes a byte to a port; changes AL and DX.
    pub fn write(&mut self, port: u16, value: u8) -> Result {
        self.mov(al, u32::from(value))?;
        self.write_al(port)
    }

    /// Writes AL to a port; changes DX.
    pub fn write_al(&mut self, port: u16) -> Result {
        self.mov(dx, u32::from(port))?;
        self.out(dx, al)
    }

    /// Reads a port into AL; changes DX.
    pub fn read(&mut self, port: u16) -> Result {
        self.mov(dx, u32::from(port))?;
        self.in_(al, dx)
    }

    /// Appends a text to the detail; changes ESI.
    pub fn put(&mut self, text: &str) -> Result {
        let text = self.text(text);
        self.mov(esi, text)?;
        self.run(|to| to.put)
    }

    /// Appends EAX to the detail.
    pub fn put_decimal(&mut self) -> Result {
        self.run(|to| to.put_decimal)
    }

    /// Appends AL to the detail, in hexadecimal.
    pub fn put_hex(&mut self) -> Result {
        self.run(|to| to.put_hex)
    }

    /// The test fails, for a reason.
    pub fn fail(&mut self, reason: &str) -> Result {
        let (reason, to) = (self.text(reason), self.to.failed);
        self.mov(esi, reason)?;
        self.jmp(to)
    }

    /// The test fails if the zero flag is not set.
    pub fn fail_unless_equal(&mut self, reason: &str) -> Result {
        let equal = self.create_label();
        self.je(equal)?;
        self.fail(reason)?;
        self.here(equal)?;
        Ok(())
    }

    /// There is no such part.
    pub fn say_absent(&mut self, reason: &str) -> Result {
        let (reason, to) = (self.text(reason), self.to.absent);
        self.mov(esi, reason)?;
        self.jmp(to)
    }

    /// There is no such part if the zero flag is not set.
    pub fn absent_unless_equal(&mut self, reason: &str) -> Result {
        let equal = self.create_label();
        self.je(equal)?;
        self.say_absent(reason)?;
        self.here(equal)?;
        Ok(())
    }

    /// From now on it is so many milliseconds until the deadline; changes EAX and EDX.
    pub fn set_deadline(&mut self, ms: u32) -> Result {
        let deadline = self.at.deadline;
        self.run(|to| to.now)?;
        self.add(eax, ms)?;
        self.mov(dword_ptr(deadline), eax)
    }

    /// Jumps, if the deadline has not come; changes EAX and EDX.
    pub fn before_deadline(&mut self, again: CodeLabel) -> Result {
        let deadline = self.at.deadline;
        self.run(|to| to.now)?;
        self.cmp(eax, dword_ptr(deadline))?;
        self.jb(again)
    }

    /// The kernel, which is entered at a label that is set.
    pub fn finish(mut self, entry: CodeLabel) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
        const MAGIC: u32 = 0x1bad_b002;
        /// The header has the addresses where things go.
        const ADDRESSES: u32 = 1 << 16;
        let base = LOAD + HEADER;
        let code =
            self.code.assemble_options(base.into(), BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        for (at, label, patch) in self.addresses {
            let place = &mut self.data[at as usize..];
            let address = (code.label_ip(&label)? as u32).to_le_bytes();
            match patch {
                Patch::Whole => place[..4].copy_from_slice(&address),
                Patch::Gate => {
                    place[..2].copy_from_slice(&address[..2]);
                    place[6..8].copy_from_slice(&address[2..]);
                }
            }
        }
        let entry = code.label_ip(&entry)? as u32;
        let code = &code.inner.code_buffer;
        let (code_end, data_end) = (base + code.len() as u32, DATA + self.data.len() as u32);
        if code_end > DATA || data_end > WORK {
            return Err(
                format!("the code ends at {code_end:#x}, the data at {data_end:#x}: too large").into()
            );
        }
        let checksum = 0u32.wrapping_sub(MAGIC + ADDRESSES);
        let header = [MAGIC, ADDRESSES, checksum, LOAD, LOAD, data_end, END, entry];
        let mut kernel: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        kernel.extend(code);
        kernel.resize((DATA - LOAD) as usize, 0);
        kernel.extend(&self.data);
        Ok(kernel)
    }
}
