//! The graphics card.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::container::Buffers;
use super::ours::{take_u8, take_u16};
use super::record::{Entry, Layout, Record};
use super::value::{Kind, Value};
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::vga::registers::{Attribute, attribute, crtc, graphics, sequencer};
use crate::vga::{MAX_MEMORY, MIN_MEMORY, PLANE_SIZE, Vga};
use env86_emu::memory::{Memory, PAGE_SIZE, Region};
use serde_json::{Value as Json, json};
use std::ops::Range;

const VGA: Layout = Layout {
    name: "vga",
    fields: &[
        "vga_memory_size",
        "cursor_address",
        "cursor_start",
        "cursor_end",
        "max_cols",
        "max_rows",
        "vga_memory",
        "dac_state",
        "start_address",
        "graphical_mode",
        "palette",
        "latch",
        "color_compare",
        "color_dont_care",
        "miscellaneous_graphics",
        "svga_width",
        "svga_height",
        "crtc_mode",
        "svga_enabled",
        "svga_bpp",
        "svga_bank_offset",
        "svga_offset",
        "index_crtc",
        "dac_write",
        "dac_read",
        "dac_map",
        "sequencer_index",
        "plane_write",
        "sequencer_memory_mode",
        "graphics_index",
        "plane_read",
        "planar_mode",
        "planar_rotate",
        "planar_bitmap",
        "max_scan_line",
        "miscellaneous_output",
        "port_3da",
        "dispi_index",
        "dispi_enable",
        "svga_memory",
        "",
        "attribute_index",
        "offset_register_old",
        "set_reset",
        "set_reset_enable",
        "start_address_latched",
        "crtc",
        "horizontal_display_end",
        "horizontal_blank_start",
        "vertical_display_end",
        "vertical_blank_start",
        "underline_location",
        "preset_row_scan",
        "offset_register",
        "palette_source",
        "attribute_mode",
        "color_plane_enable",
        "horizontal_panning",
        "color_select",
        "clocking_mode",
        "line_compare",
        "pixel_buffer",
        "dac_mask",
        "character_map_select",
        "font_page_ab",
    ],
};

const PALETTE: usize = 256;
const ATTRIBUTE_PALETTE: usize = 16;
/// The bits of the attribute controller's index.
const INDEX_BITS: u8 = attribute::INDEX_PALETTE_SOURCE | 0x1f;
/// v86's index for "the next write is an index", and for registers that were never chosen.
const NO_INDEX: u32 = u32::MAX;

// Bits of the overflow register.
const VERTICAL_TOTAL_8: u8 = 1 << 0;
const VERTICAL_DISPLAY_END_8: u8 = 1 << 1;
const VERTICAL_RETRACE_8: u8 = 1 << 2;
const VERTICAL_BLANK_8: u8 = 1 << 3;
const LINE_COMPARE_8: u8 = 1 << 4;
const VERTICAL_TOTAL_9: u8 = 1 << 5;
const VERTICAL_DISPLAY_END_9: u8 = 1 << 6;
const VERTICAL_RETRACE_9: u8 = 1 << 7;
/// The bits that v86 keeps, in registers of their own.
const KEPT_OVERFLOW: u8 = VERTICAL_DISPLAY_END_8 | VERTICAL_BLANK_8 | LINE_COMPARE_8 | VERTICAL_DISPLAY_END_9;

/// The card of a state. Its memory's contents stay in the file until it is applied.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    vga: Vga,
    /// Bytes of the linear frame buffer.
    pub memory_size: u32,
    /// Where the planes and the frame buffer are in the file.
    planes: Range<usize>,
    framebuffer: Range<usize>,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let record = state.entry(&VGA, "vga")?;
        let mut vga = read(&record)?;
        refine(&mut vga, state.ours("vga"));
        let memory_size = memory_size(&record)?;
        let (planes, framebuffer) = (record.range("vga_memory")?, record.range("svga_memory")?);
        Ok(Self { vga, memory_size, planes, framebuffer })
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { vga_memory_size: self.memory_size, ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("video memory", machine.board.vga.memory.framebuffer.size().into(), self.memory_size.into())
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        let (planes, framebuffer) = (&moment.file[self.planes], &moment.file[self.framebuffer]);
        load(&mut machine.board.vga, machine.cpu.mem_mut(), self.vga, planes, framebuffer);
    }

    fn prepare(machine: &mut Pc, _: &mut Writer) -> Result<(), StateError> {
        machine.board.vga.settle(machine.cpu.mem_mut());
        Ok(())
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let vga = &machine.board.vga;
        let value = write(vga, machine.cpu.mem(), &mut writer.buffers);
        writer.set("vga", value);
        writer.add("vga", write_ours(vga));
        Ok(())
    }
}

fn refine(vga: &mut Vga, saved: &Json) {
    // v86 forgets it while the next write is an index.
    take_u8(&saved["attribute_index"], &mut vga.attribute.index);
    vga.attribute.index &= INDEX_BITS;
    take_u8(&saved["feature"], &mut vga.feature);
    take_u8(&saved["enable"], &mut vga.enable);
    take_u8(&saved["overscan"], &mut vga.attribute.registers[attribute::OVERSCAN]);
    take_u8(&saved["sequencer_reset"], &mut vga.sequencer.registers[0]);
    take_u16(&saved["vbe_id"], &mut vga.vbe.id);
    take_u16(&saved["virtual_width"], &mut vga.vbe.virtual_width);
    take_u16(&saved["x_offset"], &mut vga.vbe.x_offset);
    take_u16(&saved["y_offset"], &mut vga.vbe.y_offset);
}

fn write_ours(vga: &Vga) -> Json {
    json!({
        "attribute_index": vga.attribute.index,
        "feature": vga.feature,
        "enable": vga.enable,
        "overscan": vga.attribute.registers[attribute::OVERSCAN],
        "sequencer_reset": vga.sequencer.registers[0],
        "vbe_id": vga.vbe.id,
        "virtual_width": vga.vbe.virtual_width,
        "x_offset": vga.vbe.x_offset,
        "y_offset": vga.vbe.y_offset,
    })
}

/// The bytes of video memory that a state needs.
fn memory_size(record: &Record) -> Result<u32, StateError> {
    let size = record.u32("vga_memory_size")?;
    if !size.is_power_of_two() || !(MIN_MEMORY..=MAX_MEMORY).contains(&size) {
        return Err(
            record.wrong("vga_memory_size", format!("is {size}, not a power of two of 256 KiB to 256 MiB"))
        );
    }
    Ok(size)
}

/// Reads the card. The memory's contents stay in the file until [`load`].
fn read(record: &Record) -> Result<Vga, StateError> {
    let mut vga = Vga::default();
    record.bytes("vga_memory", 4 * PLANE_SIZE)?;
    let framebuffer = record.bytes("svga_memory", 0)?;
    if framebuffer.len() > memory_size(record)? as usize {
        return Err(record.wrong("svga_memory", "is larger than vga_memory_size"));
    }
    read_crtc(&mut vga, record)?;
    vga.sequencer.index = index(record.u32("sequencer_index")?);
    let registers = &mut vga.sequencer.registers;
    registers[0] = 3;
    registers[sequencer::CLOCKING_MODE] = record.u8("clocking_mode")?;
    registers[sequencer::MAP_MASK] = record.u8("plane_write")?;
    registers[sequencer::CHARACTER_MAP_SELECT] = record.u32_or("character_map_select", 0)? as u8;
    registers[sequencer::MEMORY_MODE] = record.u8("sequencer_memory_mode")?;
    vga.graphics.index = index(record.u32("graphics_index")?);
    let registers = &mut vga.graphics.registers;
    registers[graphics::SET_RESET] = record.u8("set_reset")?;
    registers[graphics::ENABLE_SET_RESET] = record.u8("set_reset_enable")?;
    registers[graphics::COLOR_COMPARE] = record.u8("color_compare")?;
    registers[graphics::DATA_ROTATE] = record.u8("planar_rotate")?;
    registers[graphics::READ_MAP_SELECT] = record.u8("plane_read")? & 3;
    registers[graphics::MODE] = record.u8("planar_mode")?;
    registers[graphics::MISCELLANEOUS] = record.u8("miscellaneous_graphics")?;
    registers[graphics::COLOR_DONT_CARE] = record.u8("color_dont_care")?;
    registers[graphics::BIT_MASK] = record.u8("planar_bitmap")?;
    vga.attribute = read_attribute(record)?;
    vga.dac.palette = Box::new(record.u32s::<PALETTE>("palette")?);
    vga.dac.mask = record.u32_or("dac_mask", 0xff)? as u8;
    vga.dac.write_position = record.u16("dac_write")? % (3 * PALETTE as u16);
    vga.dac.read_position = record.u16("dac_read")? % (3 * PALETTE as u16);
    vga.dac.state = record.u8("dac_state")?;
    vga.miscellaneous = record.u8("miscellaneous_output")?;
    vga.latch = record.u32("latch")?;
    read_vbe(&mut vga, record)?;
    Ok(vga)
}

fn index(value: u32) -> u8 {
    if value == NO_INDEX { 0 } else { value as u8 }
}

fn read_crtc(vga: &mut Vga, record: &Record) -> Result<(), StateError> {
    let mut registers = record.u8s::<{ crtc::COUNT }>("crtc")?;
    let [cursor_low, cursor_high] = record.u16("cursor_address")?.to_le_bytes();
    let [start_low, start_high] = record.u16("start_address")?.to_le_bytes();
    let display_end = record.u16("vertical_display_end")?;
    let blank_start = record.u16("vertical_blank_start")?;
    let line_compare = record.u16("line_compare")?;
    let low = |value: u16| value as u8;
    let bit = |value: u16, shift: u32, bit: u8| if value >> shift & 1 != 0 { bit } else { 0 };
    let mut overflow = bit(display_end, 8, VERTICAL_DISPLAY_END_8)
        | bit(display_end, 9, VERTICAL_DISPLAY_END_9)
        | bit(blank_start, 8, VERTICAL_BLANK_8)
        | bit(line_compare, 8, LINE_COMPARE_8);
    if registers[crtc::OVERFLOW] & KEPT_OVERFLOW == overflow
        && (registers[crtc::OVERFLOW] != 0 || display_end == 0)
    {
        // Written by us; v86 leaves it alone.
        overflow = registers[crtc::OVERFLOW];
    } else {
        // v86 drops the high bits of the frame's length and of the retrace: they lie behind the
        // last line, so the smallest that do are those.
        let behind = |register: usize| {
            let low = u16::from(registers[register]);
            (0..4).find(|high| low | high << 8 > display_end).unwrap_or(3)
        };
        let (total, retrace) = (behind(crtc::VERTICAL_TOTAL), behind(crtc::VERTICAL_RETRACE_START));
        overflow |= bit(total, 0, VERTICAL_TOTAL_8) | bit(total, 1, VERTICAL_TOTAL_9);
        overflow |= bit(retrace, 0, VERTICAL_RETRACE_8) | bit(retrace, 1, VERTICAL_RETRACE_9);
    }
    for (register, value) in [
        (crtc::OVERFLOW, overflow),
        (crtc::HORIZONTAL_DISPLAY_END, record.u8("horizontal_display_end")?),
        (crtc::HORIZONTAL_BLANK_START, record.u8("horizontal_blank_start")?),
        (crtc::PRESET_ROW_SCAN, record.u8("preset_row_scan")?),
        (crtc::MAXIMUM_SCAN_LINE, record.u8("max_scan_line")?),
        (crtc::CURSOR_START, record.u8("cursor_start")?),
        (crtc::CURSOR_END, record.u8("cursor_end")?),
        (crtc::START_ADDRESS_HIGH, start_high),
        (crtc::START_ADDRESS_LOW, start_low),
        (crtc::CURSOR_LOCATION_HIGH, cursor_high),
        (crtc::CURSOR_LOCATION_LOW, cursor_low),
        (crtc::VERTICAL_DISPLAY_END, low(display_end)),
        (crtc::OFFSET, record.u8("offset_register")?),
        (crtc::UNDERLINE_LOCATION, record.u8("underline_location")?),
        (crtc::VERTICAL_BLANK_START, low(blank_start)),
        (crtc::MODE_CONTROL, record.u8("crtc_mode")?),
        (crtc::LINE_COMPARE, low(line_compare)),
    ] {
        registers[register] = value;
    }
    vga.crtc.registers = registers;
    vga.crtc.index = index(record.u32("index_crtc")?);
    Ok(())
}

fn read_attribute(record: &Record) -> Result<Attribute, StateError> {
    let mut registers = [0; attribute::COUNT];
    registers[..ATTRIBUTE_PALETTE].copy_from_slice(&record.u8s::<ATTRIBUTE_PALETTE>("dac_map")?);
    registers[attribute::MODE_CONTROL] = record.u8("attribute_mode")?;
    registers[attribute::COLOR_PLANE_ENABLE] = record.u8("color_plane_enable")?;
    registers[attribute::HORIZONTAL_PANNING] = record.u8("horizontal_panning")?;
    registers[attribute::COLOR_SELECT] = record.u8("color_select")?;
    let chosen = record.u32("attribute_index")?;
    let source = record.u8("palette_source")? & attribute::INDEX_PALETTE_SOURCE;
    Ok(Attribute { index: source | index(chosen) & 0x1f, data_next: chosen != NO_INDEX, registers })
}

fn read_vbe(vga: &mut Vga, record: &Record) -> Result<(), StateError> {
    let size = memory_size(record)?;
    let vbe = &mut vga.vbe;
    vbe.index = record.u16("dispi_index")?;
    vbe.width = record.u16("svga_width")?;
    vbe.height = record.u16("svga_height")?;
    vbe.bpp = match record.u16("svga_bpp")? {
        bpp @ (4 | 8 | 15 | 16 | 24 | 32) => bpp,
        other => return Err(record.wrong("svga_bpp", format!("is {other}, not 4, 8, 15, 16, 24 or 32"))),
    };
    vbe.enable = record.u16("dispi_enable")?;
    vbe.active = record.bool("svga_enabled")? && vbe.fits(size);
    vbe.bank = (record.u32("svga_bank_offset")? >> 16) as u16;
    vbe.virtual_width = vbe.width;
    let pixels = record.u32("svga_offset")?;
    let width = u32::from(vbe.width.max(1));
    (vbe.x_offset, vbe.y_offset) = ((pixels % width) as u16, (pixels / width) as u16);
    Ok(())
}

/// Puts a card with memory of the right size into the state that was read, and copies the memory's
/// contents out of the file. What is the same already is not touched: memory that is zero on both
/// sides takes none of the host's.
fn load(vga: &mut Vga, mem: &mut Memory, saved: Vga, planes: &[u8], framebuffer: &[u8]) {
    const ZEROS: [u8; PAGE_SIZE as usize] = [0; _];
    let mut copy = |region: Region, from: &[u8]| {
        for start in (0..region.size()).step_by(PAGE_SIZE as usize) {
            let from = from.get(start as usize..).unwrap_or_default();
            let from = &from[..from.len().min(ZEROS.len())];
            if *from == ZEROS[..from.len()] && mem.is_fresh(region, start) {
                continue;
            }
            let mut page = ZEROS;
            page[..from.len()].copy_from_slice(from);
            if mem.region(region)[start as usize..][..page.len()] != page {
                mem.region_mut(region, start..start + PAGE_SIZE).copy_from_slice(&page);
            }
        }
    };
    copy(vga.memory.planes, planes);
    copy(vga.memory.framebuffer, framebuffer);
    vga.resume(mem, saved);
}

fn write<'m>(vga: &'m Vga, mem: &'m Memory, buffers: &mut Buffers<'m>) -> Value {
    let c = &vga.crtc.registers;
    let (s, g, a) = (&vga.sequencer.registers, &vga.graphics.registers, &vga.attribute.registers);
    let vbe = &vga.vbe;
    let columns = (u32::from(c[crtc::HORIZONTAL_DISPLAY_END]) + 1).clamp(1, 256);
    let rows = ((vga.crtc.vertical_display_end() + 1) / vga.crtc.character_height()).clamp(1, 128);
    let (columns, rows) = if c[crtc::HORIZONTAL_DISPLAY_END] == 0 { (80, 25) } else { (columns, rows) };
    let pan = u32::from(vbe.y_offset) * u32::from(vbe.virtual_width) + u32::from(vbe.x_offset);
    let next = if vga.attribute.data_next { Value::from(vga.attribute.index & 0x1f) } else { (-1).into() };
    Entry::new(&VGA)
        .set("vga_memory_size", vga.memory.framebuffer.size())
        .set("cursor_address", vga.crtc.cursor_location())
        .set("cursor_start", c[crtc::CURSOR_START])
        .set("cursor_end", c[crtc::CURSOR_END])
        .set("max_cols", columns)
        .set("max_rows", rows)
        .set("vga_memory", buffers.add(Kind::U8, mem.region(vga.memory.planes)))
        .set("dac_state", vga.dac.state)
        .set("start_address", vga.crtc.start_address())
        .set("graphical_mode", vga.graphics_shown())
        .set("palette", buffers.i32s(*vga.dac.palette))
        .set("latch", vga.latch as i32)
        .set("color_compare", g[graphics::COLOR_COMPARE])
        .set("color_dont_care", g[graphics::COLOR_DONT_CARE])
        .set("miscellaneous_graphics", g[graphics::MISCELLANEOUS])
        .set("svga_width", vbe.width)
        .set("svga_height", vbe.height)
        .set("crtc_mode", c[crtc::MODE_CONTROL])
        .set("svga_enabled", vbe.active)
        .set("svga_bpp", vbe.bpp)
        .set("svga_bank_offset", u32::from(vbe.bank) << 16)
        .set("svga_offset", pan)
        .set("index_crtc", vga.crtc.index)
        .set("dac_write", vga.dac.write_position)
        .set("dac_read", vga.dac.read_position)
        .set("dac_map", buffers.u8s(&a[..ATTRIBUTE_PALETTE]))
        .set("sequencer_index", vga.sequencer.index)
        .set("plane_write", s[sequencer::MAP_MASK])
        .set("sequencer_memory_mode", s[sequencer::MEMORY_MODE])
        .set("graphics_index", vga.graphics.index)
        .set("plane_read", g[graphics::READ_MAP_SELECT])
        .set("planar_mode", g[graphics::MODE])
        .set("planar_rotate", g[graphics::DATA_ROTATE])
        .set("planar_bitmap", g[graphics::BIT_MASK])
        .set("max_scan_line", c[crtc::MAXIMUM_SCAN_LINE])
        .set("miscellaneous_output", vga.miscellaneous)
        .set("port_3da", 0xff)
        .set("dispi_index", vbe.index)
        .set("dispi_enable", vbe.enable)
        .set("svga_memory", buffers.add(Kind::U8, mem.region(vga.memory.framebuffer)))
        .set("attribute_index", next)
        .set("offset_register_old", c[crtc::OFFSET])
        .set("set_reset", g[graphics::SET_RESET])
        .set("set_reset_enable", g[graphics::ENABLE_SET_RESET])
        .set("start_address_latched", vga.crtc.start_address())
        .set("crtc", buffers.u8s(c))
        .set("horizontal_display_end", c[crtc::HORIZONTAL_DISPLAY_END])
        .set("horizontal_blank_start", c[crtc::HORIZONTAL_BLANK_START])
        .set("vertical_display_end", vga.crtc.vertical_display_end())
        .set("vertical_blank_start", vga.crtc.vertical_blank_start())
        .set("underline_location", c[crtc::UNDERLINE_LOCATION])
        .set("preset_row_scan", c[crtc::PRESET_ROW_SCAN])
        .set("offset_register", c[crtc::OFFSET])
        .set("palette_source", vga.attribute.index & attribute::INDEX_PALETTE_SOURCE)
        .set("attribute_mode", a[attribute::MODE_CONTROL])
        .set("color_plane_enable", a[attribute::COLOR_PLANE_ENABLE])
        .set("horizontal_panning", a[attribute::HORIZONTAL_PANNING])
        .set("color_select", a[attribute::COLOR_SELECT])
        .set("clocking_mode", s[sequencer::CLOCKING_MODE])
        .set("line_compare", vga.crtc.line_compare())
        .set("pixel_buffer", Value::Null)
        .set("dac_mask", vga.dac.mask)
        .set("character_map_select", s[sequencer::CHARACTER_MAP_SELECT])
        .set("font_page_ab", false)
        .value()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["memory", "changed", "chained", "raster", "active"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.vga.crtc.index => any,
                m.board.vga.sequencer.index => any,
                m.board.vga.graphics.index => any,
                m.board.vga.attribute.index => bits(0x3f),
                m.board.vga.attribute.data_next => any,
                m.board.vga.dac.palette => |r: &mut Random| Box::new(any(r)),
                m.board.vga.dac.mask => any,
                m.board.vga.dac.write_position => |r: &mut Random| r.below(768) as u16,
                m.board.vga.dac.read_position => |r: &mut Random| r.below(768) as u16,
                m.board.vga.dac.state => any,
                m.board.vga.miscellaneous => any,
                m.board.vga.feature => any,
                m.board.vga.enable => any,
                m.board.vga.latch => any,
                m.board.vga.vbe.index => any,
                m.board.vga.vbe.id => any,
                m.board.vga.vbe.width => |r: &mut Random| 1 + r.below(0x3ff) as u16,
                m.board.vga.vbe.height => any,
                m.board.vga.vbe.bpp => one_of([4, 8, 15, 16, 24, 32]),
                m.board.vga.vbe.enable => any,
                m.board.vga.vbe.bank => any,
                m.board.vga.vbe.virtual_width => any,
                m.board.vga.vbe.x_offset => any,
                m.board.vga.vbe.y_offset => any,
                m.board.vga.crtc.registers[crtc::OFFSET] => any,
                m.board.vga.crtc.registers[crtc::CURSOR_START] => any,
                m.board.vga.sequencer.registers[sequencer::MAP_MASK] => any,
                m.board.vga.graphics.registers[graphics::BIT_MASK] => any,
                m.board.vga.attribute.registers[attribute::OVERSCAN] => any,
                m.board.vga.attribute.registers[3] => any,
                m.cpu.mem_mut().region_mut(m.board.vga.memory.planes, 5..6)[0] => any,
                m.cpu.mem_mut().region_mut(m.board.vga.memory.framebuffer, 0..1)[0] => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.vga)
        }
    }
}
