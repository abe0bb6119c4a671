//! The serial ports.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::ours::{hex, unhex};
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::uart::{FIFO_SIZE, INPUT_SIZE, IRQS, Received, Uart};
use serde_json::{Value as Json, json};

const UART: Layout = Layout {
    name: "uart",
    fields: &["pending", "divisor", "lcr", "lsr", "fcr", "ier", "iir", "mcr", "msr", "scratch", "irq"],
};
/// Reasons of interrupts, as bits by v86's numbers of them.
const PENDING_MODEM: u8 = 1 << 0;
const PENDING_THRE: u8 = 1 << 2;
const IIR_NONE: u8 = 1;
const IIR_THRE: u8 = 2;
const IIR_MODEM: u8 = 0;
const IER_THRE: u8 = 2;
const IER_MODEM: u8 = 8;
const MSR_DELTAS: u8 = 0x0f;
const MSR_LINES: u8 = 0xf0;
const MCR_LOOP: u8 = 0x10;
/// Line status: the transmitter is empty, which it always is; data ready follows from the queue.
const LSR_EMPTY: u8 = 0x60;
const LSR_KEPT: u8 = 0x1e;

/// The ports that are fitted.
pub(super) type Saved = [Option<Uart>; 4];

const NAMES: [&str; 4] = ["uart0", "uart1", "uart2", "uart3"];

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut uarts = [const { None }; 4];
        for (i, (uart, name)) in uarts.iter_mut().zip(NAMES).enumerate() {
            let Some(record) = state.optional(&UART, name)? else { continue };
            let uart = uart.insert(read(&record)?);
            let bytes = unhex(&state.ours("uarts")[i]["input"], INPUT_SIZE + FIFO_SIZE);
            uart.input.extend(bytes.into_iter().map(|byte| Received { byte, errors: 0 }));
        }
        Ok(uarts)
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { uarts: self.each_ref().map(Option::is_some), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        let fitted = |uarts: &Self| uarts.each_ref().map(Option::is_some);
        if fitted(&machine.board.uarts) != fitted(self) {
            return Err(StateError::OtherMachine("it has other serial ports".into()));
        }
        Ok(())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.board.uarts = self;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let uarts = &machine.board.uarts;
        for (port, (uart, name)) in uarts.iter().zip(NAMES).enumerate() {
            writer.set(name, uart.as_ref().map(|uart| write(uart, port)).unwrap_or_default());
        }
        let ours = |uart: &Uart| {
            let bytes = uart.receiver.iter().chain(&uart.input).map(|r| r.byte);
            json!({ "input": hex(bytes) })
        };
        writer.add("uarts", uarts.iter().map(|u| u.as_ref().map_or(Json::Null, ours)).collect());
        Ok(())
    }
}

fn read(r: &Record) -> Result<Uart, StateError> {
    let mcr = r.u8("mcr")? & 0x1f;
    let msr = r.u8("msr")?;
    Ok(Uart {
        divisor: r.u16("divisor")?,
        ier: r.u8("ier")? & 0x0f,
        fcr: r.u8("fcr")?,
        lcr: r.u8("lcr")?,
        mcr,
        lsr: LSR_EMPTY | r.u8("lsr")? & LSR_KEPT,
        msr,
        scratch: r.u8("scratch")?,
        thre_pending: r.u8("pending")? & PENDING_THRE != 0,
        modem: if mcr & MCR_LOOP == 0 { msr & MSR_LINES } else { 0 },
        ..Uart::default()
    })
}

fn write(uart: &Uart, port: usize) -> Value {
    let modem = uart.msr & MSR_DELTAS != 0;
    let thre = uart.thre_pending;
    let pending = if modem { PENDING_MODEM } else { 0 } | if thre { PENDING_THRE } else { 0 };
    let iir = if uart.ier & IER_THRE != 0 && thre {
        IIR_THRE
    } else if uart.ier & IER_MODEM != 0 && modem {
        IIR_MODEM
    } else {
        IIR_NONE
    };
    Entry::new(&UART)
        .set("pending", pending)
        .set("divisor", uart.divisor)
        .set("lcr", uart.lcr)
        .set("lsr", LSR_EMPTY | uart.lsr & LSR_KEPT)
        .set("fcr", uart.fcr)
        .set("ier", uart.ier)
        .set("iir", iir)
        .set("mcr", uart.mcr)
        .set("msr", uart.msr)
        .set("scratch", uart.scratch)
        .set("irq", IRQS.get(port).copied().unwrap_or_default())
        .value()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, some};
    use super::*;
    use std::collections::VecDeque;

    /// Bytes without errors: v86 has no place for those.
    fn typed(random: &mut Random) -> VecDeque<Received> {
        let bytes: Vec<u8> = some(random);
        bytes.into_iter().map(|byte| Received { byte, errors: 0 }).collect()
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &[
            "receiver",
            "output",
            "modem",
            "interrupt_driven",
            "fifo_used",
            "looked",
            "polled",
            "quiet",
            "errors",
        ];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.uarts[0].as_mut().unwrap().divisor => any,
                m.board.uarts[0].as_mut().unwrap().fcr => any,
                m.board.uarts[0].as_mut().unwrap().lcr => any,
                m.board.uarts[0].as_mut().unwrap().scratch => any,
                m.board.uarts[0].as_mut().unwrap().thre_pending => any,
                m.board.uarts[0].as_mut().unwrap().ier => bits(0x0f),
                m.board.uarts[0].as_mut().unwrap().mcr => bits(0x0f),
                m.board.uarts[0].as_mut().unwrap().msr => bits(MSR_DELTAS),
                m.board.uarts[0].as_mut().unwrap().lsr => |r: &mut Random| LSR_EMPTY | bits(LSR_KEPT)(r),
                m.board.uarts[0].as_mut().unwrap().input => typed,
                m.board.uarts[3].as_mut().unwrap().divisor => any,
                m.board.uarts[3].as_mut().unwrap().fcr => any,
                m.board.uarts[3].as_mut().unwrap().lcr => any,
                m.board.uarts[3].as_mut().unwrap().scratch => any,
                m.board.uarts[3].as_mut().unwrap().thre_pending => any,
                m.board.uarts[3].as_mut().unwrap().ier => bits(0x0f),
                m.board.uarts[3].as_mut().unwrap().mcr => bits(0x0f),
                m.board.uarts[3].as_mut().unwrap().msr => bits(MSR_DELTAS),
                m.board.uarts[3].as_mut().unwrap().lsr => |r: &mut Random| LSR_EMPTY | bits(LSR_KEPT)(r),
                m.board.uarts[3].as_mut().unwrap().input => typed,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.uarts)
        }
    }
}
