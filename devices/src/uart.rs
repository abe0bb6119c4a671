//! The 16550A serial port.
//!
//! The line is as fast as its ends: what the guest transmits is at once in the output queue, and
//! what the host sends waits in an input queue until the receiver FIFO has room, so that nothing is
//! overrun. Baud rates are kept for the guest to read back.
//!
//! Source: National Semiconductor PC16550D datasheet.

use std::collections::VecDeque;

/// I/O ports of COM1 to COM4.
pub const PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
/// Interrupt lines of COM1 to COM4.
pub const IRQS: [u8; 4] = [4, 3, 4, 3];
/// I/O ports that one UART takes.
pub const PORT_COUNT: u16 = 8;

/// Receiver buffer (read), transmitter holding (write); with DLAB, the divisor's low byte.
const RBR_THR_DLL: u16 = 0;
/// Interrupt enable; with DLAB, the divisor's high byte.
const IER_DLM: u16 = 1;
/// Interrupt identification (read), FIFO control (write).
const IIR_FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

const IER_RDA: u8 = 0x01;
const IER_THRE: u8 = 0x02;
const IER_RLS: u8 = 0x04;
const IER_MS: u8 = 0x08;
const IER_MASK: u8 = 0x0f;

const IIR_NONE: u8 = 0x01;
const IIR_MS: u8 = 0x00;
const IIR_THRE: u8 = 0x02;
const IIR_RDA: u8 = 0x04;
const IIR_RLS: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFO: u8 = 0xc0;

const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RX: u8 = 0x02;
const FCR_CLEAR_TX: u8 = 0x04;
const FCR_TRIGGER_SHIFT: u8 = 6;
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];

const LCR_BREAK: u8 = 0x40;
const LCR_DLAB: u8 = 0x80;

const MCR_DTR: u8 = 0x01;
const MCR_RTS: u8 = 0x02;
const MCR_OUT1: u8 = 0x04;
const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;
const MCR_MASK: u8 = 0x1f;

const LSR_DR: u8 = 0x01;
const LSR_OE: u8 = 0x02;
const LSR_PE: u8 = 0x04;
const LSR_FE: u8 = 0x08;
const LSR_BI: u8 = 0x10;
const LSR_THRE: u8 = 0x20;
const LSR_TEMT: u8 = 0x40;
const LSR_FIFO_ERROR: u8 = 0x80;
const LSR_ERRORS: u8 = LSR_OE | LSR_PE | LSR_FE | LSR_BI;

const MSR_DELTAS: u8 = 0x0f;
const MSR_TERI: u8 = 0x04;
const MSR_CTS: u8 = 0x10;
const MSR_DSR: u8 = 0x20;
const MSR_RI: u8 = 0x40;
const MSR_DCD: u8 = 0x80;
const MSR_LINES: u8 = 0xf0;

/// Characters that the receiver and the transmitter FIFO hold.
pub const FIFO_SIZE: usize = 16;
/// Bytes of host input that wait for the FIFO at most.
pub const INPUT_SIZE: usize = 4096;
/// Time slices without a write to a register after which no driver is still opening the port: a million
/// instructions or more. Linux writes the FIFO control register 2,000 to 5,000 instructions after it has
/// enabled interrupts, and later when an interrupt or another process comes between.
const SETTLED: u16 = 1000;
/// Time slices that a processor counts for that has halted.
const HALT: u16 = SETTLED / 4;
/// Looks for a character, one after the other and all in vain, after which a driver polls. Linux's looks a few
/// times when it asks whether all has been sent.
const POLLING: u8 = 64;

/// A character in the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The character.
    pub byte: u8,
    /// The errors that came with it: PE, FE and BI as in LSR.
    pub errors: u8,
}

/// One UART.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Divisor latch.
    pub divisor: u16,
    /// Interrupt enable register.
    pub ier: u8,
    /// FIFO control register as written.
    pub fcr: u8,
    /// Line control register.
    pub lcr: u8,
    /// Modem control register.
    pub mcr: u8,
    /// Line status register. DR, and the FIFO error bit, follow from `receiver` when read.
    pub lsr: u8,
    /// Modem status register.
    pub msr: u8,
    /// Scratch register.
    pub scratch: u8,
    /// The transmitter has run empty since the guest last looked.
    pub thre_pending: bool,
    /// The receiver FIFO (or the one character of the receiver buffer).
    pub receiver: VecDeque<Received>,
    /// Host input that waits for the receiver.
    pub input: VecDeque<Received>,
    /// What the guest has transmitted and the host has not taken.
    pub output: Vec<u8>,
    /// The modem lines from outside as MSR bits 4 to 7, whatever loopback makes of them.
    pub modem: u8,
    /// The driver has taken interrupts for input since the reset. A state that is restored does not
    /// say; the driver shows it again when it opens the port again.
    pub interrupt_driven: bool,
    /// The driver has used the FIFO since the reset; as above.
    pub fifo_used: bool,
    /// The driver reads the port without interrupts; see [`Uart::listens`].
    pub polled: bool,
    /// The register that was read last, if no character was there, and how often in turn.
    pub(crate) looked: Option<(u16, u8)>,
    /// Time slices since a register was written, [`SETTLED`] at most.
    pub(crate) quiet: u16,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            divisor: 0,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            lsr: LSR_THRE | LSR_TEMT,
            msr: 0,
            scratch: 0,
            // Empty from the start: a guest that enables the interrupt gets it.
            thre_pending: true,
            receiver: VecDeque::new(),
            input: VecDeque::new(),
            output: Vec::new(),
            modem: 0,
            interrupt_driven: false,
            fifo_used: false,
            polled: false,
            looked: None,
            quiet: 0,
        }
    }
}

impl Uart {
    /// A master reset (pin MR). Queues and lines outside the chip stay.
    pub fn reset(&mut self) {
        *self = Self {
            divisor: self.divisor,
            scratch: self.scratch,
            msr: self.modem,
            modem: self.modem,
            input: std::mem::take(&mut self.input),
            output: std::mem::take(&mut self.output),
            ..Self::default()
        };
    }

    /// Writes register 0 to 7.
    pub fn write(&mut self, register: u16, value: u8) {
        self.poll();
        (self.looked, self.quiet) = (None, 0);
        match register {
            RBR_THR_DLL if self.dlab() => self.divisor = (self.divisor & 0xff00) | u16::from(value),
            RBR_THR_DLL => self.transmit(value),
            IER_DLM if self.dlab() => self.divisor = (self.divisor & 0x00ff) | u16::from(value) << 8,
            IER_DLM => {
                let enabled = value & !self.ier;
                self.ier = value & IER_MASK;
                // Enabling it with the transmitter empty raises it (the transmitter always is).
                self.thre_pending |= enabled & IER_THRE != 0;
            }
            IIR_FCR => self.write_fcr(value),
            LCR => self.write_lcr(value),
            MCR => {
                self.mcr = value & MCR_MASK;
                self.update_modem_status();
            }
            // LSR is for reading; the factory test bits do nothing here.
            SCR => self.scratch = value,
            _ => {}
        }
        self.interrupt_driven |= self.takes_interrupts() && self.mcr & MCR_OUT2 != 0;
        self.fifo_used |= self.fifo_enabled();
    }

    /// Reads register 0 to 7.
    pub fn read(&mut self, register: u16) -> u8 {
        let looked = self.looked.take();
        match register {
            RBR_THR_DLL if self.dlab() => self.divisor as u8,
            RBR_THR_DLL => {
                self.look(register, looked);
                self.receive()
            }
            IER_DLM if self.dlab() => (self.divisor >> 8) as u8,
            IER_DLM => self.ier,
            IIR_FCR => {
                self.poll();
                let id = self.interrupt_id();
                if id == IIR_THRE {
                    self.thre_pending = false;
                }
                if self.fifo_enabled() { id | IIR_FIFO } else { id }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => {
                self.poll();
                self.look(register, looked);
                let status = self.line_status();
                self.lsr &= !LSR_ERRORS;
                status
            }
            MSR => {
                let status = self.msr;
                self.msr &= !MSR_DELTAS;
                status
            }
            SCR => self.scratch,
            _ => 0xff,
        }
    }

    /// The level of the interrupt line as the board sees it. On a PC's card OUT2 opens a gate in it.
    /// QEMU, Bochs and v86 have no such gate, and drivers that were written on them leave OUT2 low.
    pub fn irq(&self) -> bool {
        self.ier != 0 && self.interrupt_id() != IIR_NONE
    }

    /// The driver looks for a character in a register; `before` is the read before this one. A driver that
    /// only sends reads the line status once for each character.
    fn look(&mut self, register: u16, before: Option<(u16, u8)>) {
        if self.receiver.is_empty() {
            let looks = before.filter(|before| before.0 == register).map_or(0, |before| before.1);
            self.looked = Some((register, looks.saturating_add(1)));
            self.polled |= looks >= POLLING;
        }
    }

    /// Moves input into the receiver. The machine calls this once per time slice: a read of a
    /// character leaves its place empty until then, so that the interrupt line drops in between
    /// for drivers that take one character per interrupt.
    #[inline]
    pub fn poll(&mut self) {
        if !self.input.is_empty() {
            self.move_input();
        }
    }

    fn move_input(&mut self) {
        if self.mcr & MCR_LOOP != 0 {
            return;
        }
        while self.receiver.len() < self.receiver_size() {
            let Some(received) = self.input.pop_front() else { break };
            self.accept(received);
        }
    }

    /// Takes input from the host, as much as there is room for, and gives how many bytes that is.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.input.extend(bytes[..count].iter().map(|&byte| Received { byte, errors: 0 }));
        self.poll();
        count
    }

    /// A break on the line. Gives false if there is no room for it now.
    pub fn push_break(&mut self) -> bool {
        let fits = self.room() > 0;
        if fits {
            self.input.push_back(Received { byte: 0, errors: LSR_BI | LSR_FE });
            self.poll();
        }
        fits
    }

    /// Bytes that [`Uart::push_input`] would take.
    pub fn room(&self) -> usize {
        INPUT_SIZE.saturating_sub(self.input.len())
    }

    /// Bytes that the guest has transmitted since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Drives the modem inputs: clear to send, data set ready, ring indicator, carrier detect.
    pub fn set_modem_inputs(&mut self, cts: bool, dsr: bool, ri: bool, dcd: bool) {
        self.modem = [(cts, MSR_CTS), (dsr, MSR_DSR), (ri, MSR_RI), (dcd, MSR_DCD)]
            .into_iter()
            .fold(0, |bits, (on, bit)| if on { bits | bit } else { bits });
        self.update_modem_status();
    }

    /// The data terminal ready output: a program in the guest has opened the port.
    pub fn dtr(&self) -> bool {
        self.mcr & (MCR_DTR | MCR_LOOP) == MCR_DTR
    }

    /// The request to send output: the guest can take input.
    pub fn rts(&self) -> bool {
        self.mcr & (MCR_RTS | MCR_LOOP) == MCR_RTS
    }

    /// Interrupts for input are enabled.
    fn takes_interrupts(&self) -> bool {
        self.ier & IER_RDA != 0 && self.mcr & MCR_LOOP == 0
    }

    /// The guest is ready for input, and will not throw it away.
    ///
    /// When it looks for the chip, and each time it opens the port, Linux's driver enables all
    /// interrupts for a moment, clears the FIFO and reads the receiver without looking, with RTS
    /// perhaps still raised from the last time. It is ready when interrupts are enabled, OUT2 is
    /// raised and the FIFO is switched on, which comes last and loses what is in the receiver. Any
    /// other driver that enables interrupts is ready when it has left the registers alone for a while.
    ///
    /// A driver that polls says it by RTS, or by looking for a character again where there was none.
    pub fn listens(&self) -> bool {
        let opened = self.mcr & MCR_OUT2 != 0 && (self.fifo_enabled() || !self.fifo_used);
        let interrupts = self.takes_interrupts() && (opened || self.quiet >= SETTLED);
        let polls = !self.interrupt_driven && self.rts() && (self.fifo_enabled() || !self.fifo_used);
        interrupts || polls || self.polled
    }

    /// A time slice is over.
    pub fn slice_over(&mut self) {
        self.quiet = self.quiet.saturating_add(1).min(SETTLED);
    }

    /// The processor has halted, which it seldom does while a driver opens the port.
    pub fn halted(&mut self) {
        self.quiet = self.quiet.saturating_add(HALT).min(SETTLED);
    }

    /// The guest holds its output in the break state.
    pub fn break_sent(&self) -> bool {
        self.lcr & LCR_BREAK != 0 && self.mcr & MCR_LOOP == 0
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn fifo_enabled(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn receiver_size(&self) -> usize {
        if self.fifo_enabled() { FIFO_SIZE } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        if self.fifo_enabled() { TRIGGER_LEVELS[usize::from(self.fcr >> FCR_TRIGGER_SHIFT)] } else { 1 }
    }

    fn line_status(&self) -> u8 {
        let mut status = self.lsr & !(LSR_DR | LSR_FIFO_ERROR);
        if !self.receiver.is_empty() {
            status |= LSR_DR;
        }
        // Errors of the first character stand in LSR already.
        let errors =
            self.lsr & (LSR_PE | LSR_FE | LSR_BI) != 0 || self.receiver.iter().any(|r| r.errors != 0);
        if self.fifo_enabled() && errors {
            status |= LSR_FIFO_ERROR;
        }
        status
    }

    /// The enabled interrupt with the highest priority.
    fn interrupt_id(&self) -> u8 {
        if self.ier == 0 {
            return IIR_NONE;
        }
        let enabled = |bit| self.ier & bit != 0;
        if enabled(IER_RLS) && self.lsr & LSR_ERRORS != 0 {
            IIR_RLS
        } else if enabled(IER_RDA) && self.receiver.len() >= self.trigger_level() {
            IIR_RDA
        } else if enabled(IER_RDA) && !self.receiver.is_empty() {
            // Below the trigger level and no more on the way, for the line takes no time.
            IIR_TIMEOUT
        } else if enabled(IER_THRE) && self.thre_pending {
            IIR_THRE
        } else if enabled(IER_MS) && self.msr & MSR_DELTAS != 0 {
            IIR_MS
        } else {
            IIR_NONE
        }
    }

    fn receive(&mut self) -> u8 {
        let byte = self.receiver.pop_front().unwrap_or_default().byte;
        self.expose_errors();
        byte
    }

    /// Puts a character into the receiver.
    fn accept(&mut self, received: Received) {
        if self.receiver.len() >= self.receiver_size() {
            self.lsr |= LSR_OE;
            if self.fifo_enabled() {
                return; // the FIFO keeps what it has
            }
            self.receiver.clear();
        }
        self.receiver.push_back(received);
        self.expose_errors();
    }

    /// A character's errors come up in LSR with the character.
    fn expose_errors(&mut self) {
        if let Some(first) = self.receiver.front_mut() {
            self.lsr |= std::mem::take(&mut first.errors);
        }
    }

    fn transmit(&mut self, byte: u8) {
        if self.mcr & MCR_LOOP != 0 {
            self.accept(Received { byte, errors: 0 });
        } else {
            self.output.push(byte);
        }
        self.thre_pending = true;
    }

    fn write_fcr(&mut self, value: u8) {
        // The port is opened again, perhaps by another driver.
        self.polled = false;
        let toggled = (value ^ self.fcr) & FCR_ENABLE != 0;
        if toggled || value & FCR_CLEAR_RX != 0 {
            self.receiver.clear();
        }
        // The clear bits clear themselves. The transmitter FIFO is always empty.
        self.fcr = if value & FCR_ENABLE != 0 { value & !(FCR_CLEAR_RX | FCR_CLEAR_TX) } else { 0 };
    }

    fn write_lcr(&mut self, value: u8) {
        let break_begins = value & !self.lcr & LCR_BREAK != 0;
        self.lcr = value;
        if break_begins && self.mcr & MCR_LOOP != 0 {
            self.accept(Received { byte: 0, errors: LSR_BI | LSR_FE });
        }
    }

    /// Sets the lines in MSR, and the delta bits of those that have changed.
    fn update_modem_status(&mut self) {
        let lines = if self.mcr & MCR_LOOP != 0 {
            [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)]
                .into_iter()
                .fold(0, |lines, (out, line)| if self.mcr & out != 0 { lines | line } else { lines })
        } else {
            self.modem
        };
        let mut deltas = (self.msr ^ lines) >> 4;
        if lines & MSR_RI != 0 {
            deltas &= !MSR_TERI; // only the trailing edge of RI counts
        }
        self.msr = (self.msr & !MSR_LINES) | lines | deltas;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Uart {
        let mut uart = Uart::default();
        uart.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
        uart
    }

    fn fifo(trigger: u8) -> Uart {
        let mut uart = open();
        uart.write(IIR_FCR, FCR_ENABLE | trigger << FCR_TRIGGER_SHIFT);
        uart.write(IER_DLM, IER_RDA);
        uart
    }

    fn iir(uart: &mut Uart) -> u8 {
        uart.read(IIR_FCR) & 0x0f
    }

    #[test]
    fn power_on_registers() {
        let mut uart = Uart::default();
        let registers: Vec<u8> = (0..8).map(|r| uart.read(r)).collect();
        assert_eq!(registers, [0, 0, 1, 0, 0, 0x60, 0, 0]);
    }

    #[test]
    fn the_divisor_latch_hides_data_and_enable() {
        let mut uart = open();
        uart.write(LCR, 0x83);
        uart.write(0, 0x0c);
        uart.write(1, 0x01);
        assert_eq!((uart.read(0), uart.read(1), uart.divisor), (0x0c, 0x01, 0x010c));
        uart.write(LCR, 0x03);
        assert_eq!(uart.read(1), 0);
        assert!(uart.output.is_empty());
    }

    #[test]
    fn unimplemented_bits_read_zero() {
        let mut uart = open();
        uart.write(IER_DLM, 0xff);
        uart.write(MCR, 0xef);
        assert_eq!((uart.read(IER_DLM), uart.read(MCR)), (0x0f, 0x0f));
    }

    #[test]
    fn scratch_is_kept() {
        let mut uart = open();
        uart.write(SCR, 0x5a);
        assert_eq!(uart.read(SCR), 0x5a);
    }

    #[test]
    fn transmission_is_immediate() {
        let mut uart = open();
        for &byte in b"hello" {
            uart.write(RBR_THR_DLL, byte);
            assert_eq!(uart.read(LSR) & 0x60, 0x60);
        }
        assert_eq!(uart.take_output(), b"hello");
        assert!(uart.take_output().is_empty());
    }

    #[test]
    fn enabling_thre_interrupts_at_once_and_reading_iir_ends_it() {
        let mut uart = open();
        uart.write(IER_DLM, IER_THRE);
        assert!(uart.irq());
        assert_eq!(iir(&mut uart), IIR_THRE);
        assert!(!uart.irq());
        assert_eq!(iir(&mut uart), IIR_NONE);
    }

    #[test]
    fn each_transmission_raises_thre_again() {
        let mut uart = open();
        uart.write(IER_DLM, IER_THRE);
        iir(&mut uart);
        uart.write(RBR_THR_DLL, b'x');
        assert!(uart.irq());
    }

    #[test]
    fn without_a_fifo_one_character_is_received_at_a_time() {
        let mut uart = open();
        uart.write(IER_DLM, IER_RDA);
        assert_eq!(uart.push_input(b"ab"), 2);
        assert_eq!(iir(&mut uart), IIR_RDA);
        assert_eq!(uart.read(RBR_THR_DLL), b'a');
        // The line drops, so that the next character makes an edge.
        assert!(!uart.irq());
        uart.poll();
        assert!(uart.irq());
        assert_eq!(uart.read(RBR_THR_DLL), b'b');
        assert_eq!(uart.read(LSR) & LSR_DR, 0);
    }

    #[test]
    fn a_polling_reader_sees_all_input() {
        let mut uart = open();
        uart.push_input(b"polled");
        let mut seen = Vec::new();
        while uart.read(LSR) & LSR_DR != 0 {
            seen.push(uart.read(RBR_THR_DLL));
        }
        assert_eq!(seen, b"polled");
    }

    #[test]
    fn the_trigger_level_tells_data_from_timeout() {
        let mut uart = fifo(2);
        uart.push_input(&[0; 7]);
        assert_eq!(iir(&mut uart), IIR_TIMEOUT);
        uart.push_input(&[0; 1]);
        assert_eq!(iir(&mut uart), IIR_RDA);
        uart.read(RBR_THR_DLL);
        assert_eq!(iir(&mut uart), IIR_TIMEOUT);
    }

    #[test]
    fn all_trigger_levels() {
        for (trigger, level) in [(0, 1), (1, 4), (2, 8), (3, 14)] {
            let mut uart = fifo(trigger);
            uart.push_input(&vec![0; level - 1]);
            assert_ne!(iir(&mut uart), IIR_RDA);
            uart.push_input(&[0]);
            assert_eq!(iir(&mut uart), IIR_RDA);
        }
    }

    #[test]
    fn the_fifo_takes_sixteen_and_the_rest_waits() {
        let mut uart = fifo(0);
        assert_eq!(uart.push_input(&[7; 40]), 40);
        assert_eq!((uart.receiver.len(), uart.input.len()), (16, 24));
        for _ in 0..40 {
            assert_eq!(uart.read(LSR) & (LSR_DR | LSR_OE), LSR_DR);
            assert_eq!(uart.read(RBR_THR_DLL), 7);
        }
        assert_eq!(uart.read(LSR) & LSR_DR, 0);
    }

    #[test]
    fn input_is_bounded() {
        let mut uart = open();
        let accepted = uart.push_input(&[0; 10_000]);
        assert_eq!(accepted, INPUT_SIZE);
        assert_eq!(uart.room(), 1); // one went to the receiver
    }

    #[test]
    fn iir_shows_that_fifos_are_on() {
        let mut uart = open();
        assert_eq!(uart.read(IIR_FCR), 0x01);
        uart.write(IIR_FCR, 0x01);
        assert_eq!(uart.read(IIR_FCR), 0xc1);
        uart.write(IIR_FCR, 0x21);
        assert_eq!(uart.read(IIR_FCR), 0xc1); // no 16750
    }

    #[test]
    fn fcr_clears_the_receiver_but_not_the_line() {
        let mut uart = fifo(0);
        uart.push_input(&[1; 20]);
        uart.write(IIR_FCR, FCR_ENABLE | FCR_CLEAR_RX);
        assert!(uart.receiver.is_empty());
        assert_eq!(uart.input.len(), 4);
        assert_eq!(uart.fcr, FCR_ENABLE);
    }

    #[test]
    fn priorities() {
        let mut uart = fifo(0);
        uart.write(IER_DLM, IER_MASK);
        uart.set_modem_inputs(true, false, false, false);
        uart.push_break();
        assert_eq!(iir(&mut uart), IIR_RLS);
        uart.read(LSR);
        assert_eq!(iir(&mut uart), IIR_RDA);
        uart.read(RBR_THR_DLL);
        assert_eq!(iir(&mut uart), IIR_THRE);
        assert_eq!(iir(&mut uart), IIR_MS);
        uart.read(MSR);
        assert_eq!(iir(&mut uart), IIR_NONE);
    }

    #[test]
    fn a_break_comes_with_its_place_in_the_fifo() {
        let mut uart = fifo(0);
        uart.push_input(b"a");
        uart.push_break();
        let status = uart.read(LSR);
        assert_eq!(status & (LSR_BI | LSR_FIFO_ERROR), LSR_FIFO_ERROR);
        assert_eq!(uart.read(RBR_THR_DLL), b'a');
        let status = uart.read(LSR);
        assert_eq!(status & (LSR_BI | LSR_FE | LSR_FIFO_ERROR), LSR_BI | LSR_FE | LSR_FIFO_ERROR);
        assert_eq!(uart.read(LSR) & (LSR_BI | LSR_FIFO_ERROR), 0);
        assert_eq!(uart.read(RBR_THR_DLL), 0);
    }

    #[test]
    fn modem_lines_leave_deltas_until_read() {
        let mut uart = open();
        uart.write(IER_DLM, IER_MS);
        uart.set_modem_inputs(true, true, false, true);
        assert!(uart.irq());
        assert_eq!(uart.read(MSR), 0xbb);
        assert_eq!(uart.read(MSR), 0xb0);
        assert!(!uart.irq());
    }

    #[test]
    fn only_the_end_of_ringing_is_a_delta() {
        let mut uart = open();
        uart.set_modem_inputs(false, false, true, false);
        assert_eq!(uart.read(MSR), MSR_RI);
        uart.set_modem_inputs(false, false, false, false);
        assert_eq!(uart.read(MSR), MSR_TERI);
    }

    #[test]
    fn loopback_ties_modem_outputs_to_inputs() {
        let mut uart = open();
        uart.write(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
        assert_eq!(uart.read(MSR) & MSR_LINES, MSR_DCD | MSR_CTS);
        uart.write(MCR, MCR_LOOP | MCR_OUT1 | MCR_DTR);
        assert_eq!(uart.read(MSR) & MSR_LINES, MSR_RI | MSR_DSR);
    }

    #[test]
    fn loopback_receives_what_is_transmitted() {
        let mut uart = open();
        uart.write(MCR, MCR_LOOP);
        uart.push_input(b"held");
        uart.write(RBR_THR_DLL, 0xa5);
        assert_eq!(uart.read(RBR_THR_DLL), 0xa5);
        assert!(uart.take_output().is_empty());
        uart.write(MCR, 0);
        uart.poll();
        assert_eq!(uart.read(RBR_THR_DLL), b'h');
    }

    #[test]
    fn loopback_overruns() {
        let mut uart = open();
        uart.write(MCR, MCR_LOOP);
        uart.write(RBR_THR_DLL, 1);
        uart.write(RBR_THR_DLL, 2);
        assert_eq!(uart.read(LSR) & LSR_OE, LSR_OE);
        assert_eq!(uart.read(RBR_THR_DLL), 2);
    }

    #[test]
    fn loopback_returns_a_break() {
        let mut uart = open();
        uart.write(MCR, MCR_LOOP);
        uart.write(LCR, LCR_BREAK);
        assert_eq!(uart.read(LSR) & LSR_BI, LSR_BI);
    }

    #[test]
    fn interrupts_need_no_out2() {
        let mut uart = Uart::default();
        uart.write(IER_DLM, IER_RDA);
        assert!(!uart.irq());
        uart.push_input(b"x");
        assert!(uart.irq());
        assert_eq!(iir(&mut uart), IIR_RDA);
        assert_eq!(uart.read(RBR_THR_DLL), b'x');
        assert!(!uart.irq());
    }

    #[test]
    fn dtr_and_rts_are_seen_outside() {
        let mut uart = open();
        assert!(uart.dtr() && uart.rts());
        uart.write(MCR, MCR_DTR | MCR_LOOP);
        assert!(!uart.dtr() && !uart.rts());
    }

    #[test]
    fn reset_keeps_the_cable() {
        let mut uart = fifo(3);
        uart.set_modem_inputs(true, true, false, true);
        uart.write(RBR_THR_DLL, b'x');
        uart.reset();
        assert_eq!((uart.ier, uart.mcr, uart.fcr, uart.msr), (0, 0, 0, 0xb0));
        assert_eq!(uart.take_output(), b"x");
    }

    #[test]
    fn no_sequence_of_accesses_panics() {
        let mut uart = Uart::default();
        let mut x = 1u32;
        for _ in 0..50_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let register = ((x >> 8) % 9) as u16;
            match x >> 29 {
                0 => {
                    uart.read(register);
                }
                1 => {
                    uart.push_input(&[x as u8; 50]);
                }
                _ => uart.write(register, (x >> 16) as u8),
            }
            assert!(uart.receiver.len() <= FIFO_SIZE);
        }
    }

    #[test]
    fn a_driver_listens_when_it_has_opened_the_port_and_not_while_it_does() {
        let mut uart = Uart::default();
        // One that polls.
        uart.write(MCR, MCR_DTR | MCR_RTS);
        assert!(uart.listens());
        uart.write(MCR, 0);
        // Linux: looks for the chip, and opens the port. RTS stays raised when it closes it.
        for _ in 0..2 {
            for (register, value) in [
                (IIR_FCR, FCR_ENABLE),
                (IIR_FCR, FCR_ENABLE | FCR_CLEAR_RX | FCR_CLEAR_TX),
                (IIR_FCR, 0),
                (MCR, uart.mcr & MCR_RTS | MCR_OUT2),
                (IER_DLM, IER_RDA),
            ] {
                uart.write(register, value);
                assert!(!uart.listens(), "{register} {value:x}");
            }
            uart.write(IIR_FCR, FCR_ENABLE);
            assert!(uart.listens());
            uart.write(MCR, MCR_OUT2 | MCR_DTR | MCR_RTS);
            assert!(uart.listens());
            uart.write(IER_DLM, 0);
            assert!(!uart.listens());
        }
        uart.reset();
        uart.write(MCR, MCR_RTS);
        assert!(uart.listens());
    }

    #[test]
    fn a_driver_that_polls_listens_whatever_mcr_and_the_fifo_are() {
        let mut uart = Uart::default();
        for (register, value) in [(IIR_FCR, FCR_ENABLE), (IIR_FCR, 0), (MCR, 0)] {
            uart.write(register, value);
        }
        for _ in 0..100 {
            assert_eq!(uart.read(LSR) & LSR_THRE, LSR_THRE);
            uart.write(RBR_THR_DLL, b'x');
            assert!(!uart.listens(), "it only sends");
        }
        let mut typed = b"polled".to_vec();
        let mut seen = Vec::new();
        for _ in 0..2 * u32::from(POLLING) {
            if uart.read(LSR) & LSR_DR != 0 {
                seen.push(uart.read(RBR_THR_DLL));
                uart.write(RBR_THR_DLL, b'.');
            }
            if uart.listens() {
                let taken = uart.push_input(&typed);
                typed.drain(..taken);
            }
        }
        assert_eq!(seen, b"polled");
        uart.write(IIR_FCR, FCR_ENABLE);
        assert!(!uart.listens(), "another driver opens the port");
        for _ in 0..POLLING {
            uart.read(RBR_THR_DLL);
            assert!(!uart.listens());
        }
        uart.read(RBR_THR_DLL);
        assert!(uart.listens(), "it reads without looking");
    }

    #[test]
    fn a_driver_with_interrupts_listens_once_it_leaves_the_registers_alone() {
        for fifo in [&[][..], &[FCR_ENABLE], &[FCR_ENABLE, 0]] {
            for mcr in [0, MCR_OUT2] {
                let mut uart = Uart::default();
                fifo.iter().for_each(|value| uart.write(IIR_FCR, *value));
                uart.write(MCR, mcr);
                uart.write(IER_DLM, IER_RDA);
                let mut halted = uart.clone();
                (0..SETTLED / HALT).for_each(|_| halted.halted());
                assert!(halted.listens());
                (0..SETTLED).for_each(|_| uart.slice_over());
                assert!(uart.listens());
                uart.write(IER_DLM, 0);
                assert!(!uart.listens());
            }
        }
    }

    #[test]
    fn linux_looking_for_the_chip_is_no_listener() {
        let mut uart = Uart::default();
        // Its console sends meanwhile, and nothing that is typed may be taken (8250_port.c, autoconfig
        // and serial8250_console_write).
        for _ in 0..50 {
            for (register, value) in [(IER_DLM, 0), (IER_DLM, 0x0f), (IER_DLM, 0), (MCR, MCR_LOOP | 0x0a)] {
                uart.write(register, value);
                uart.slice_over();
                assert!(!uart.listens(), "{register} {value:x}");
            }
            uart.write(MCR, 0);
            for _ in 0..10 {
                uart.read(LSR);
                uart.write(RBR_THR_DLL, b'k');
                assert!(!uart.listens());
            }
            for register in [LSR, IER_DLM, LSR, RBR_THR_DLL, IIR_FCR, MSR] {
                uart.read(register);
                assert!(!uart.listens());
            }
        }
    }
}
