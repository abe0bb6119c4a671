//! The processor's part of the state: the numbers at the top level.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::ours::{take_bool, take_u8};
use super::record::{Record, bits, flag, signed};
use super::value::Value;
use crate::pc::Pc;
use env86_emu::cpu::CR0_PE;
use env86_emu::state::{FpuState, TableRegister};
use env86_emu::{ArchState, Segment};
use serde_json::json;

/// Segments in the state's order: ES CS SS DS FS GS TR LDTR.
const SEGMENTS: usize = 8;
const CS: usize = 1;
const TR: usize = 6;
const LDTR: usize = 7;

const CF: u32 = 0x001;
const PF: u32 = 0x004;
const AF: u32 = 0x010;
const ZF: u32 = 0x040;
const SF: u32 = 0x080;
const OF: u32 = 0x800;
/// In `flags_changed`: the last operation was a subtraction.
const SUBTRACTION: u32 = 1 << 31;
/// EFLAGS bit 1, which is always set.
const ALWAYS: u32 = 2;
const VM: u32 = 1 << 17;

const CR0_PG: u32 = 1 << 31;
const CR4_PAE: u32 = 1 << 5;
const MXCSR_DEFAULT: u32 = 0x1f80;
/// The bits of MXCSR that exist.
const MXCSR_BITS: u32 = 0xffff;
/// Status word: TOP.
const FPU_TOP: u16 = 0x3800;

/// v86 does not load the entries `last_result`, `fpu_status` and `mxcsr`: it goes on with its own
/// and writes the array that it was given, unchanged, when it saves again. A second element with
/// this value tells us later that the first is not to be believed.
const STALE_MARK: u32 = 0x3638_7665;

/// Access bytes that the state of v86 does not keep right: TSS, 32 and 16 bits, busy; LDT.
const ACCESS_TSS32: u8 = 0x8b;
const ACCESS_TSS16: u8 = 0x83;
const ACCESS_LDT: u8 = 0x82;
/// What old states without access bytes are taken to have: data and code of ring 3.
const OLD_ACCESS: u8 = 0xf2;
const OLD_ACCESS_CODE: u8 = 0xfa;
/// Access byte: a segment of memory, and not a gate or a table.
const ACCESS_MEMORY: u8 = 0x10;

/// The processor of a state.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    arch: ArchState,
    /// The time stamp counter.
    pub tsc: u64,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut arch = read(&state.top)?;
        let ours = state.ours("cpu");
        take_bool(&ours["interrupt_shadow"], &mut arch.interrupt_shadow);
        for (i, segment) in arch.seg.iter_mut().enumerate() {
            take_bool(&ours["big"][i], &mut segment.big);
        }
        take_u8(&ours["tr_access"], &mut arch.tr.access);
        take_u8(&ours["ldtr_access"], &mut arch.ldtr.access);
        Ok(Self { arch, tsc: tsc(&state.top)? })
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        let mut arch = self.arch;
        arch.tsc_offset = self.tsc.wrapping_sub(moment.now);
        if uses_pdpte(&arch) && arch.pdpte == [0; 4] {
            let table = arch.cr3 & !0x1f;
            arch.pdpte =
                core::array::from_fn(|i| machine.cpu.mem().read_u64(table.wrapping_add(8 * i as u32)));
        }
        machine.cpu.set_state(&arch);
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let arch = machine.cpu.state();
        write(&arch, writer);
        let ours = json!({
            "interrupt_shadow": arch.interrupt_shadow,
            "big": arch.seg.map(|segment| segment.big),
            "tr_access": arch.tr.access,
            "ldtr_access": arch.ldtr.access,
        });
        writer.add("cpu", ours);
        Ok(())
    }
}

/// The time stamp counter of a state.
pub(super) fn tsc(top: &Record) -> Result<u64, StateError> {
    let [low, high] = top.u32s("tsc")?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

fn read(top: &Record) -> Result<ArchState, StateError> {
    if top.u32_or("prefixes", 0)? != 0 {
        return Err(top.wrong("prefixes", "shows a processor in the middle of an instruction"));
    }
    let segments = segments(top)?;
    let base = segments[CS].base;
    let [cr0, _, cr2, cr3, cr4, ..] = top.u32s::<8>("cr")?;
    let [es, cs, ss, ds, fs, gs, tr, ldtr] = segments;
    let (result, status, mxcsr) = unloaded(top)?;
    let eflags = eflags(top, result)?;
    let pdpte: [u32; 8] = if top.get("pdpte").is_null() { [0; 8] } else { top.u32s("pdpte")? };
    if cr0 & CR0_PG != 0 && cr0 & CR0_PE == 0 {
        return Err(top.wrong("cr", "has paging without protected mode"));
    }
    let xmm: [u32; 32] = top.u32s("xmm")?;
    Ok(ArchState {
        gpr: top.u32s("reg32")?,
        eip: top.u32("instruction_pointer")?.wrapping_sub(base),
        eflags,
        seg: [es, cs, ss, ds, fs, gs],
        tr,
        ldtr,
        gdtr: TableRegister { base: top.u32("gdtr_base")?, limit: top.u16("gdtr_limit")? },
        idtr: TableRegister { base: top.u32("idtr_base")?, limit: top.u16("idtr_limit")? },
        cr0,
        cr2,
        cr3,
        cr4,
        pdpte: core::array::from_fn(|i| u64::from(pdpte[2 * i + 1]) << 32 | u64::from(pdpte[2 * i])),
        dr: top.u32s("dreg")?,
        cpl: top.u8("cpl")? & 3,
        halted: top.bool("in_hlt")?,
        interrupt_shadow: false,
        sysenter_cs: top.u32("sysenter_cs")?,
        sysenter_esp: top.u32("sysenter_esp")?,
        sysenter_eip: top.u32("sysenter_eip")?,
        tsc_offset: 0,
        fpu: fpu(top, status)?,
        xmm: core::array::from_fn(|i| (0..4).rev().fold(0, |x, k| x << 32 | u128::from(xmm[4 * i + k]))),
        mxcsr,
    })
}

/// Whether the processor walks the page directory pointers, which then have to be known.
fn uses_pdpte(state: &ArchState) -> bool {
    state.cr0 & CR0_PG != 0 && state.cr4 & CR4_PAE != 0
}

/// Result, x87 status and MXCSR: what v86 does not load itself. See [`STALE_MARK`].
fn unloaded(top: &Record) -> Result<(u32, u16, u32), StateError> {
    let number = |field| -> Result<u32, StateError> {
        match top.get(field) {
            Value::Null => Ok(0),
            Value::Number(n) => Ok(bits(*n).unwrap_or(0)),
            _ => Ok(top.u32s::<1>(field)?[0]),
        }
    };
    let result = number("last_result")?;
    let stale = matches!(top.get("last_result"), Value::Buffer(..))
        && top.u32s::<2>("last_result").is_ok_and(|[_, mark]| mark == STALE_MARK);
    if stale && top.container.ours.is_null() {
        // v86 has run on with the registers of a machine that was switched on.
        return Ok((result, 0, MXCSR_DEFAULT));
    }
    let mxcsr = number("mxcsr")?;
    let plausible = mxcsr != 0 && mxcsr & !MXCSR_BITS == 0;
    Ok((result, number("fpu_status")? as u16, if plausible { mxcsr } else { MXCSR_DEFAULT }))
}

fn segments(top: &Record) -> Result<[Segment; SEGMENTS], StateError> {
    let selectors: [u16; SEGMENTS] = top.u16s("sreg")?;
    let bases: [u32; SEGMENTS] = top.u32s("segment_bases")?;
    let limits: [u32; SEGMENTS] = top.u32s("segment_limits")?;
    let shapes = top.bytes("segment_access", SEGMENTS)?;
    let (is_32, stack_32) = (top.bool("is_32")?, top.bool("stack_32")?);
    let mut segments = core::array::from_fn(|i| {
        let old = if i == CS { OLD_ACCESS_CODE } else { OLD_ACCESS };
        let access = shapes.get(SEGMENTS + i).copied().unwrap_or(old);
        Segment {
            selector: selectors[i],
            base: bases[i],
            limit: limits[i],
            // v86 keeps an access byte of zero for segments that were never loaded.
            access: if access & ACCESS_MEMORY == 0 { old } else { access },
            big: match i {
                1 => is_32,
                2 => stack_32,
                // Matters for segments that grow down only.
                _ => is_32 || limits[i] > 0xffff,
            },
            null: shapes[i] != 0,
        }
    });
    segments[TR].access = if top.u32_or("tss_32", 1)? != 0 { ACCESS_TSS32 } else { ACCESS_TSS16 };
    segments[LDTR].access = ACCESS_LDT;
    for table in [TR, LDTR] {
        segments[table].null = top.bool("protected_mode")? && selectors[table] & !3 == 0;
        segments[table].big = false;
    }
    Ok(segments)
}

/// EFLAGS with the arithmetic flags computed that v86 has left for later.
fn eflags(top: &Record, result: u32) -> Result<u32, StateError> {
    let mut flags = top.u32("flags")? | ALWAYS;
    let changed = top.u32("flags_changed")?;
    let size = top.u32_or("last_op_size", 31)?;
    if changed & (CF | PF | AF | ZF | SF | OF) == 0 {
        return Ok(flags);
    }
    if !matches!(size, 7 | 15 | 31) {
        return Err(top.wrong("last_op_size", format!("is {size}, not 7, 15 or 31")));
    }
    let mask = u32::MAX >> (31 - size);
    let subtraction = changed & SUBTRACTION != 0;
    let (a, r) = (top.u32_or("last_op1", 0)? & mask, result & mask);
    let b = if subtraction { a.wrapping_sub(r) } else { r.wrapping_sub(a) };
    let overflow = if subtraction { (a ^ b) & (a ^ r) } else { (a ^ r) & (b ^ r) };
    let lazy = [
        (CF, if subtraction { a < r } else { r < a }),
        (PF, (r as u8).count_ones().is_multiple_of(2)),
        (AF, (a ^ b ^ r) & 0x10 != 0),
        (ZF, r == 0),
        (SF, r >> size & 1 != 0),
        (OF, overflow >> size & 1 != 0),
    ];
    for (bit, set) in lazy.into_iter().filter(|(bit, _)| changed & bit != 0) {
        flags = if set { flags | bit } else { flags & !bit };
    }
    Ok(flags)
}

fn fpu(top: &Record, status: u16) -> Result<FpuState, StateError> {
    let registers: [u32; 32] = top.u32s("fpu_registers")?;
    let register = |i: usize| {
        let slot = &registers[4 * i..4 * i + 4];
        (u64::from(slot[1]) << 32 | u64::from(slot[0]), slot[2] as u16)
    };
    let stack = (top.u16("fpu_top")? & 7) << 11;
    Ok(FpuState {
        regs: core::array::from_fn(register),
        empty: top.u8("fpu_empty")?,
        control: top.u16("fpu_control")?,
        status: status & !FPU_TOP | stack,
        ip: top.u32("fpu_ip")?,
        cs: top.u16("fpu_cs")?,
        dp: top.u32("fpu_dp")?,
        ds: top.u16("fpu_ds")?,
        opcode: top.u16("fpu_opcode")? & 0x7ff,
    })
}

/// Sets the processor's entries.
fn write(s: &ArchState, writer: &mut Writer) {
    let tsc = writer.now.wrapping_add(s.tsc_offset);
    let [es, cs, ss, ds, fs, gs] = s.seg;
    let segments = [es, cs, ss, ds, fs, gs, s.tr, s.ldtr];
    let mut shapes: Vec<u8> = segments.iter().map(|segment| segment.null.into()).collect();
    shapes.extend(segments.iter().map(|segment| segment.access));
    // As v86 leaves those of tables.
    shapes[SEGMENTS + TR..].fill(0x92);
    let linear_eip = cs.base.wrapping_add(s.eip);
    let pdpte = s.pdpte.into_iter().flat_map(|entry| [entry as u32, (entry >> 32) as u32]);
    let slots = s.fpu.regs.into_iter().flat_map(|(significand, sign_exponent)| {
        [significand as u32, (significand >> 32) as u32, sign_exponent.into(), 0]
    });
    let xmm = s.xmm.into_iter().flat_map(|x| (0..4).map(move |k| (x >> (32 * k)) as u32));
    let value = writer.buffers.u8s(&shapes);
    writer.set("segment_access", value);
    let value = writer.buffers.i32s(segments.map(|segment| segment.base));
    writer.set("segment_bases", value);
    let value = writer.buffers.u32s(segments.map(|segment| segment.limit));
    writer.set("segment_limits", value);
    writer.set("protected_mode", flag(s.cr0 & CR0_PE != 0));
    writer.set("idtr_base", signed(s.idtr.base));
    writer.set("idtr_limit", s.idtr.limit);
    writer.set("gdtr_base", signed(s.gdtr.base));
    writer.set("gdtr_limit", s.gdtr.limit);
    let value = writer.buffers.i32s([s.cr0, 0, s.cr2, s.cr3, s.cr4, 0, 0, 0]);
    writer.set("cr", value);
    writer.set("cpl", s.cpl);
    writer.set("is_32", flag(cs.big && s.eflags & VM == 0));
    writer.set("stack_32", flag(ss.big && s.eflags & VM == 0));
    writer.set("in_hlt", flag(s.halted));
    writer.set("last_virt_eip", -1);
    writer.set("eip_phys", 0);
    writer.set("sysenter_cs", signed(s.sysenter_cs));
    writer.set("sysenter_eip", signed(s.sysenter_eip));
    writer.set("sysenter_esp", signed(s.sysenter_esp));
    writer.set("prefixes", 0);
    writer.set("flags", signed(s.eflags));
    writer.set("flags_changed", 0);
    writer.set("last_op1", 0);
    writer.set("last_op_size", 31);
    writer.set("instruction_pointer", signed(linear_eip));
    writer.set("previous_ip", signed(linear_eip));
    let value = writer.buffers.i32s(s.gpr);
    writer.set("reg32", value);
    let value = writer.buffers.u16s(segments.map(|segment| segment.selector));
    writer.set("sreg", value);
    let value = writer.buffers.i32s(s.dr);
    writer.set("dreg", value);
    let value = writer.buffers.i32s(pdpte);
    writer.set("pdpte", value);
    let value = writer.buffers.u32s([tsc as u32, (tsc >> 32) as u32]);
    writer.set("tsc", value);
    writer.set("tss_32", flag(s.tr.access & 8 != 0));
    let value = writer.buffers.i32s(xmm);
    writer.set("xmm", value);
    let value = writer.buffers.i32s(slots);
    writer.set("fpu_registers", value);
    writer.set("fpu_empty", s.fpu.empty);
    writer.set("fpu_top", (s.fpu.status & FPU_TOP) >> 11);
    writer.set("fpu_control", s.fpu.control);
    writer.set("fpu_ip", signed(s.fpu.ip));
    writer.set("fpu_cs", s.fpu.cs);
    writer.set("fpu_dp", signed(s.fpu.dp));
    writer.set("fpu_ds", s.fpu.ds);
    writer.set("fpu_opcode", s.fpu.opcode);
    let value = writer.buffers.i32s([0, STALE_MARK]);
    writer.set("last_result", value);
    let value = writer.buffers.u16s([s.fpu.status & !FPU_TOP]);
    writer.set("fpu_status", value);
    let value = writer.buffers.i32s([s.mxcsr]);
    writer.set("mxcsr", value);
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, made, one_of};
    use super::*;

    /// Fields of the processor, which gives and takes its state as a whole.
    macro_rules! fields {
        ($($($place:tt).+ $([$at:literal] $(. $of:ident)?)? => $value:expr),* $(,)?) => {
            vec![$(
                Field {
                    name: stringify!($($place).+ $([$at] $(. $of)?)?),
                    get: |m| format!("{:?}", m.cpu.state().$($place).+ $([$at] $(. $of)?)?),
                    change: |m, random| {
                        let mut arch = m.cpu.state();
                        arch.$($place).+ $([$at] $(. $of)?)? = made($value, random);
                        m.cpu.set_state(&arch);
                    },
                }
            ),*]
        };
    }

    impl Suite for Saved {
        /// What the processor derives from its other registers.
        const NOT_IN_STATE: &'static [&'static str] = &["null", "big"];

        fn fields() -> Vec<Field> {
            fields!(
                gpr => any,
                seg[0].selector => any,
                seg[0].base => any,
                seg[0].limit => any,
                seg[0].big => any,
                seg[1].selector => any,
                seg[1].base => any,
                seg[1].limit => any,
                seg[1].big => any,
                seg[2].selector => any,
                seg[2].base => any,
                seg[2].limit => any,
                seg[2].big => any,
                seg[3].access => |r: &mut Random| any::<u8>(r) | ACCESS_MEMORY,
                seg[4].null => any,
                tr.selector => any,
                tr.base => any,
                ldtr.limit => any,
                ldtr.base => any,
                ldtr.selector => any,
                tr.limit => any,
                tr.access => any,
                ldtr.access => any,
                eip => any,
                cr2 => any,
                cr3 => any,
                dr => any,
                cpl => bits(3),
                halted => any,
                interrupt_shadow => any,
                sysenter_cs => any,
                sysenter_esp => any,
                sysenter_eip => any,
                tsc_offset => any,
                xmm => any,
                gdtr.base => any,
                gdtr.limit => any,
                idtr.base => any,
                idtr.limit => any,
                mxcsr => bits(0xffbf),
                fpu.control => any,
                fpu.ip => any,
                fpu.cs => any,
                fpu.dp => any,
                fpu.ds => any,
                fpu.opcode => bits(0x7ff),
                fpu.status => any,
                fpu.empty => any,
                eflags => |r: &mut Random| any::<u32>(r) & 0x24_0dd5 | ALWAYS,
                fpu.regs => |r: &mut Random| core::array::from_fn(|_| (any(r), any(r))),
                cr0 => one_of([0x11, 0x10, 0x8000_0011, 0x31]),
                cr4 => one_of([0, 0x10, 0x20, 0x200]),
                pdpte => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.cpu.state())
        }
    }
}
