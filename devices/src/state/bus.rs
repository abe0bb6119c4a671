//! PCI, DMA, ACPI and the firmware's configuration.

use super::StateError;
use super::container::Buffers;
use super::record::{Entry, Layout, Record};
use super::value::{Kind, Value};
use crate::acpi::Acpi;
use crate::dma::{self, Dma};
use crate::pci::Pci;
use std::collections::BTreeMap;

/// Functions on bus 0.
const FUNCTIONS: usize = 256;
/// Bytes of a configuration space.
pub(super) const SPACE: usize = 256;
/// Behind the functions: what is behind ports CF8h and CFCh.
const ADDRESS: usize = FUNCTIONS;
const VALUE: usize = FUNCTIONS + 1;
const RESPONSE: usize = FUNCTIONS + 2;
const STATUS: usize = FUNCTIONS + 3;
const ENTRIES: usize = FUNCTIONS + 4;
/// v86's status of a function that answers.
const ANSWERS: u32 = 1 << 31;

/// The bus of a state: CONFIG_ADDRESS, and the configuration spaces by devfn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SavedPci {
    pub address: u32,
    pub spaces: BTreeMap<u8, [u8; SPACE]>,
}

pub(super) fn read_pci(top: &Record) -> Result<SavedPci, StateError> {
    let entries = top.list("pci")?;
    if entries.len() < ENTRIES {
        let problem = format!("has {} elements where {ENTRIES} are needed", entries.len());
        return Err(top.wrong("pci", problem));
    }
    let buffer = |at: usize, len: usize| -> Result<Option<&[u8]>, StateError> {
        match &entries[at] {
            Value::Null => Ok(None),
            Value::Buffer(_, id) => match top.container.buffer(*id)? {
                bytes if bytes.len() >= len => Ok(Some(&bytes[..len])),
                bytes => Err(top.wrong("pci", format!("{at} has {} bytes, not {len}", bytes.len()))),
            },
            other => Err(top.wrong("pci", format!("{at} is {}", other.what()))),
        }
    };
    let mut pci = SavedPci::default();
    for devfn in 0..=255u8 {
        if let Some(bytes) = buffer(devfn.into(), SPACE)? {
            pci.spaces.insert(devfn, bytes.try_into().unwrap_or([0; SPACE]));
        }
    }
    pci.address = buffer(ADDRESS, 4)?.map_or(0, |bytes| Kind::U32.number(bytes) as u32);
    Ok(pci)
}

pub(super) fn write_pci(pci: &Pci, others: &BTreeMap<u8, [u8; SPACE]>, buffers: &mut Buffers) -> Value {
    let mut entries = vec![Value::Null; ENTRIES];
    let mut response = (u32::MAX, 0);
    let present = pci.functions().map(|(devfn, space)| (devfn, space.bytes()));
    let absent = others.iter().filter(|(devfn, _)| pci.function(**devfn).is_none());
    let mut spaces: Vec<_> = present.chain(absent.map(|(devfn, space)| (*devfn, space))).collect();
    spaces.sort_by_key(|(devfn, _)| *devfn);
    for (devfn, bytes) in spaces {
        entries[usize::from(devfn)] = buffers.add(Kind::I32, bytes.to_vec());
        if pci.address >> 8 & 0xffff == u32::from(devfn) {
            let at = (pci.address & 0xfc) as usize;
            response = (Kind::U32.number(&bytes[at..]) as u32, ANSWERS);
        }
    }
    entries[ADDRESS] = buffers.u8s(&pci.address.to_le_bytes());
    entries[VALUE] = buffers.u8s(&[0; 4]);
    entries[RESPONSE] = buffers.u8s(&response.0.to_le_bytes());
    entries[STATUS] = buffers.u8s(&response.1.to_le_bytes());
    Value::List(entries)
}

pub(super) const DMA: Layout = Layout {
    name: "dma",
    fields: &[
        "page",
        "page_high",
        "address",
        "base_address",
        "count",
        "base_count",
        "mask",
        "mode",
        "flip_flop",
    ],
};
const CHANNELS: usize = 8;

pub(super) fn read_dma(record: &Record) -> Result<Dma, StateError> {
    let page = record.u8s::<CHANNELS>("page")?;
    let page_high = record.u8s::<CHANNELS>("page_high")?;
    let address = record.u16s::<CHANNELS>("address")?;
    let base_address = record.u16s::<CHANNELS>("base_address")?;
    let count = record.u16s::<CHANNELS>("count")?;
    let base_count = record.u16s::<CHANNELS>("base_count")?;
    let mask = record.u8s::<CHANNELS>("mask")?;
    let mode = record.u8s::<CHANNELS>("mode")?;
    Ok(Dma {
        channels: core::array::from_fn(|i| dma::Channel {
            page: page[i],
            page_high: page_high[i],
            address: address[i],
            base_address: base_address[i],
            count: count[i],
            base_count: base_count[i],
            masked: mask[i] != 0,
            mode: mode[i],
        }),
        flip_flop: record.bool("flip_flop")?,
        ..Dma::default()
    })
}

pub(super) fn write_dma(dma: &Dma, buffers: &mut Buffers) -> Value {
    let channels = &dma.channels;
    Entry::new(&DMA)
        .set("page", buffers.u8s(&channels.each_ref().map(|c| c.page)))
        .set("page_high", buffers.u8s(&channels.each_ref().map(|c| c.page_high)))
        .set("address", buffers.u16s(channels.each_ref().map(|c| c.address)))
        .set("base_address", buffers.u16s(channels.each_ref().map(|c| c.base_address)))
        .set("count", buffers.u16s(channels.each_ref().map(|c| c.count)))
        .set("base_count", buffers.u16s(channels.each_ref().map(|c| c.base_count)))
        .set("mask", buffers.u8s(&channels.each_ref().map(|c| c.masked.into())))
        .set("mode", buffers.u8s(&channels.each_ref().map(|c| c.mode)))
        .set("flip_flop", u8::from(dma.flip_flop))
        .value()
}

pub(super) const ACPI: Layout =
    Layout { name: "acpi", fields: &["pm1_control", "pm1_status", "pm1_enable", "gpe"] };

pub(super) fn read_acpi(record: &Record) -> Result<Acpi, StateError> {
    let mut acpi = Acpi::default();
    acpi.pm1_control = record.u16("pm1_control")?;
    acpi.pm1_status = record.u16("pm1_status")?;
    acpi.pm1_enable = record.u16("pm1_enable")?;
    acpi.gpe0 = record.u8s("gpe")?;
    Ok(acpi)
}

pub(super) fn write_acpi(acpi: &Acpi, buffers: &mut Buffers) -> Value {
    Entry::new(&ACPI)
        .set("pm1_control", acpi.pm1_control)
        .set("pm1_status", acpi.pm1_status)
        .set("pm1_enable", acpi.pm1_enable)
        .set("gpe", buffers.u8s(&acpi.gpe0))
        .value()
}

/// The most bytes of a selected item of the firmware's configuration.
const MAX_ITEM: usize = 64 << 20;

pub(super) fn read_fw_value(top: &Record) -> Result<Vec<u8>, StateError> {
    match top.get("fw_value") {
        Value::Null => Ok(Vec::new()),
        Value::List(list) => {
            Ok(list.iter().map(|v| if let Value::Number(n) = v { *n as u8 } else { 0 }).collect())
        }
        _ => match top.bytes("fw_value", 0)? {
            bytes if bytes.len() <= MAX_ITEM => Ok(bytes.to_vec()),
            bytes => Err(top.wrong("fw_value", format!("has {} bytes", bytes.len()))),
        },
    }
}
