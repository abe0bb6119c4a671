//! Virtio over PCI (virtio 1.1, 4.1), modern only: what all virtio devices of the board share.
//!
//! The registers are four ranges of ports: the common configuration, the notifications, the
//! interrupt status and the device's own configuration. A device owns a [`Transport`], hands it the
//! accesses to the first three, and acts on the [`Action`]s that come of them.

pub mod balloon;
pub mod block;
pub mod console;
pub mod net;
pub mod p9;
pub mod queue;
pub mod shares;
#[cfg(test)]
mod testing;

use crate::pci::{COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace};
use env86_emu::{Memory, Width};
use queue::{Chain, Features, Queue};
use tracing::{trace, warn};

/// Base address of the common configuration: 64 ports.
pub const BAR_COMMON: usize = 0;
/// Base address of the notifications: 16 ports, two to an offset.
pub const BAR_NOTIFY: usize = 1;
/// Base address of the interrupt status: 16 ports.
pub const BAR_ISR: usize = 2;
/// Base address of the device's own configuration.
pub const BAR_DEVICE: usize = 3;

/// All of them, for the board.
pub(crate) const BARS: [u8; 4] = [BAR_COMMON as u8, BAR_NOTIFY as u8, BAR_ISR as u8, BAR_DEVICE as u8];

/// Device status (2.1): the driver has seen the device.
pub const STATUS_ACKNOWLEDGE: u8 = 1;
/// Device status: the driver knows how to drive it.
pub const STATUS_DRIVER: u8 = 2;
/// Device status: the driver is ready.
pub const STATUS_DRIVER_OK: u8 = 4;
/// Device status: the features are agreed on.
pub const STATUS_FEATURES_OK: u8 = 8;
/// Device status: the driver has done something impossible, nothing goes on before a reset.
pub const STATUS_NEEDS_RESET: u8 = 64;

/// Interrupt status: a queue has something for the driver.
pub const ISR_QUEUE: u8 = 1;
/// Interrupt status: the device's configuration has changed.
pub const ISR_CONFIG: u8 = 2;

/// Feature bit 28: descriptors may point at tables.
pub const F_INDIRECT_DESC: u32 = 1 << 28;
/// Feature bit 29: interrupts and notifications at an index.
pub const F_EVENT_IDX: u32 = 1 << 29;
/// Feature bit 32, in the second word: virtio 1.
pub const F_VERSION_1: u32 = 1;

const VENDOR: u16 = 0x1af4;
/// Added to the number of the device type.
const DEVICE_BASE: u16 = 0x1040;
/// What v86's machine shows: nothing that a class stands for.
const CLASS: u32 = 0x00_0200;
const REVISION: u8 = 1;
const COMMAND_SERR: u16 = 1 << 8;
/// Bytes of the common configuration, in [`BAR_COMMON_SIZE`] ports.
const COMMON_LENGTH: u32 = 56;
const BAR_COMMON_SIZE: u16 = 64;
const BAR_SMALL_SIZE: u16 = 16;
const NOTIFY_MULTIPLIER: u32 = 2;

/// Offsets of the fields of the common configuration (4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u16 = 0;
    pub const DEVICE_FEATURE: u16 = 4;
    pub const DRIVER_FEATURE_SELECT: u16 = 8;
    pub const DRIVER_FEATURE: u16 = 12;
    pub const MSIX_CONFIG: u16 = 16;
    pub const NUM_QUEUES: u16 = 18;
    pub const DEVICE_STATUS: u16 = 20;
    pub const CONFIG_GENERATION: u16 = 21;
    pub const QUEUE_SELECT: u16 = 22;
    pub const QUEUE_SIZE: u16 = 24;
    pub const QUEUE_MSIX_VECTOR: u16 = 26;
    pub const QUEUE_ENABLE: u16 = 28;
    pub const QUEUE_NOTIFY_OFF: u16 = 30;
    pub const QUEUE_DESC: u16 = 32;
    pub const QUEUE_DESC_HIGH: u16 = 36;
    pub const QUEUE_AVAIL: u16 = 40;
    pub const QUEUE_AVAIL_HIGH: u16 = 44;
    pub const QUEUE_USED: u16 = 48;
    pub const QUEUE_USED_HIGH: u16 = 52;
}
use common::*;

/// The fields of the common configuration: offset and bytes.
const FIELDS: [(u16, u16); 19] = [
    (DEVICE_FEATURE_SELECT, 4),
    (DEVICE_FEATURE, 4),
    (DRIVER_FEATURE_SELECT, 4),
    (DRIVER_FEATURE, 4),
    (MSIX_CONFIG, 2),
    (NUM_QUEUES, 2),
    (DEVICE_STATUS, 1),
    (CONFIG_GENERATION, 1),
    (QUEUE_SELECT, 2),
    (QUEUE_SIZE, 2),
    (QUEUE_MSIX_VECTOR, 2),
    (QUEUE_ENABLE, 2),
    (QUEUE_NOTIFY_OFF, 2),
    (QUEUE_DESC, 4),
    (QUEUE_DESC_HIGH, 4),
    (QUEUE_AVAIL, 4),
    (QUEUE_AVAIL_HIGH, 4),
    (QUEUE_USED, 4),
    (QUEUE_USED_HIGH, 4),
];

/// No vector: there is no MSI-X.
const NO_VECTOR: u32 = 0xffff;

/// What a driver's write means for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Everything is as at power-up.
    Reset,
    /// The driver is ready.
    DriverOk,
    /// There may be requests in this queue.
    Notify(usize),
}

/// The registers that all virtio devices have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The word of [`Self::device_feature`] that the driver looks at.
    pub device_feature_select: u32,
    /// The word of [`Self::driver_feature`] that the driver looks at.
    pub driver_feature_select: u32,
    /// The features offered.
    pub device_feature: [u32; 4],
    /// The features accepted; all of them until the driver says otherwise.
    pub driver_feature: [u32; 4],
    /// The driver has accepted nothing that was not offered.
    pub features_ok: bool,
    /// The driver's progress: `STATUS_*`.
    pub device_status: u8,
    /// The device's configuration is another one than at the last look at the generation.
    pub config_has_changed: bool,
    /// Counts the changes of the device's configuration.
    pub config_generation: u8,
    /// Reasons of the interrupt: `ISR_*`.
    pub isr_status: u8,
    /// The queue that the driver looks at.
    pub queue_select: u16,
    /// The queues.
    pub queues: Vec<Queue>,
}

impl Transport {
    /// A transport that offers features and queues, each a size and a notify offset.
    pub fn new(features: [u32; 4], queues: &[(u16, u16)]) -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            device_feature: features,
            driver_feature: features,
            features_ok: true,
            device_status: 0,
            config_has_changed: false,
            config_generation: 0,
            isr_status: 0,
            queue_select: 0,
            queues: queues.iter().map(|&(size, notify_offset)| Queue::new(size, notify_offset)).collect(),
        }
    }

    /// The level of the interrupt pin.
    pub fn irq(&self) -> bool {
        self.isr_status != 0
    }

    /// Whether the driver is ready and has done nothing impossible.
    pub fn is_running(&self) -> bool {
        self.device_status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
    }

    /// Whether the driver has accepted a feature, by its bit in the first word.
    pub fn has_feature(&self, bit: u32) -> bool {
        self.driver_feature[0] & self.device_feature[0] & bit != 0
    }

    fn features(&self) -> Features {
        Features { indirect: self.has_feature(F_INDIRECT_DESC), event_idx: self.has_feature(F_EVENT_IDX) }
    }

    /// The driver starts anew.
    pub fn reset(&mut self) {
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_feature = self.device_feature;
        self.features_ok = true;
        self.device_status = 0;
        self.config_has_changed = false;
        self.config_generation = 0;
        self.isr_status = 0;
        self.queue_select = 0;
        self.queues.iter_mut().for_each(Queue::reset);
    }

    /// Reads a port of one of the base addresses; `device` is the device's own configuration. Ports
    /// without a register read all ones.
    pub fn port_read(&mut self, device: &[u8], bar: usize, offset: u16, width: Width) -> u32 {
        (0..width.bytes() as u16).rev().fold(0, |value, i| {
            let at = offset.wrapping_add(i);
            let byte = match bar {
                BAR_COMMON => self.read_common(at),
                BAR_ISR if at == 0 => std::mem::take(&mut self.isr_status),
                BAR_DEVICE => device.get(usize::from(at)).copied().unwrap_or(0xff),
                _ => 0xff,
            };
            value << 8 | u32::from(byte)
        })
    }

    /// Writes a port of one of the base addresses.
    pub fn port_write(&mut self, bar: usize, offset: u16, width: Width, value: u32) -> Action {
        match bar {
            BAR_COMMON => self.write_common(offset, width, value),
            BAR_NOTIFY => Action::Notify(usize::from(value as u16)),
            _ => Action::None,
        }
    }

    /// One byte of the common configuration.
    fn read_common(&mut self, at: u16) -> u8 {
        if at == CONFIG_GENERATION && std::mem::take(&mut self.config_has_changed) {
            self.config_generation = self.config_generation.wrapping_add(1);
        }
        let field = FIELDS.iter().find(|(start, len)| (*start..start + len).contains(&at));
        field.map_or(0xff, |&(start, _)| (self.field(start) >> (8 * (at - start))) as u8)
    }

    /// Writes the fields that the bytes of an access are in. One that is hit in part keeps the rest.
    fn write_common(&mut self, offset: u16, width: Width, value: u32) -> Action {
        let mut event = Action::None;
        let end = offset.saturating_add(width.bytes() as u16);
        for (start, len) in FIELDS.into_iter().filter(|(start, len)| *start < end && offset < start + len) {
            let mut bytes = self.field(start).to_le_bytes();
            for at in offset.max(start)..end.min(start + len) {
                bytes[usize::from(at - start)] = (value >> (8 * (at - offset))) as u8;
            }
            match self.set_field(start, u32::from_le_bytes(bytes)) {
                Action::None => {}
                other => event = other,
            }
        }
        event
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn field(&self, start: u16) -> u32 {
        let word = |words: &[u32; 4], select: u32| words.get(select as usize).copied().unwrap_or(0);
        let queue = |get: fn(&Queue) -> u32| self.queue().map_or(0, get);
        match start {
            DEVICE_FEATURE_SELECT => self.device_feature_select,
            DEVICE_FEATURE => word(&self.device_feature, self.device_feature_select),
            DRIVER_FEATURE_SELECT => self.driver_feature_select,
            DRIVER_FEATURE => word(&self.driver_feature, self.driver_feature_select),
            MSIX_CONFIG | QUEUE_MSIX_VECTOR => NO_VECTOR,
            NUM_QUEUES => self.queues.len() as u32,
            DEVICE_STATUS => self.device_status.into(),
            CONFIG_GENERATION => self.config_generation.into(),
            QUEUE_SELECT => self.queue_select.into(),
            QUEUE_SIZE => queue(|q| q.size.into()),
            QUEUE_ENABLE => queue(|q| q.enabled.into()),
            QUEUE_NOTIFY_OFF => queue(|q| q.notify_offset.into()),
            QUEUE_DESC => queue(|q| q.desc_addr),
            QUEUE_AVAIL => queue(|q| q.avail_addr),
            QUEUE_USED => queue(|q| q.used_addr),
            // The high halves of addresses: there is no RAM above 4 GiB.
            _ => 0,
        }
    }

    fn set_field(&mut self, start: u16, value: u32) -> Action {
        match start {
            DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            DRIVER_FEATURE => self.accept_features(value),
            DEVICE_STATUS => return self.set_status(value as u8),
            QUEUE_SELECT => self.queue_select = value as u16,
            QUEUE_SIZE..=QUEUE_USED_HIGH => self.set_queue_field(start, value),
            _ => {}
        }
        Action::None
    }

    fn accept_features(&mut self, value: u32) {
        let select = self.driver_feature_select as usize;
        let offered = self.device_feature.get(select).copied().unwrap_or(0);
        if let Some(word) = self.driver_feature.get_mut(select) {
            *word = value & offered;
        }
        self.features_ok &= value & !offered == 0;
    }

    fn set_status(&mut self, value: u8) -> Action {
        if value == 0 {
            self.reset();
            return Action::Reset;
        }
        let refused = if self.features_ok { 0 } else { STATUS_FEATURES_OK };
        let before = self.device_status;
        self.device_status = value & !refused | before & STATUS_NEEDS_RESET;
        trace!(target: "virtio", status = self.device_status, "device status");
        if self.device_status & !before & STATUS_DRIVER_OK != 0 { Action::DriverOk } else { Action::None }
    }

    fn set_queue_field(&mut self, start: u16, value: u32) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        match start {
            QUEUE_ENABLE => {
                let placed = [queue.desc_addr, queue.avail_addr, queue.used_addr].iter().all(|a| *a != 0);
                queue.enabled |= value == 1 && placed;
            }
            _ if queue.enabled => {}
            QUEUE_SIZE => queue.set_size(value as u16),
            QUEUE_DESC => queue.desc_addr = value,
            QUEUE_AVAIL => queue.avail_addr = value,
            QUEUE_USED => queue.used_addr = value,
            _ => {}
        }
    }

    /// The device's configuration has changed: tells the driver.
    pub fn config_changed(&mut self) {
        self.config_has_changed = true;
        if self.device_status & STATUS_DRIVER_OK != 0 {
            self.isr_status |= ISR_CONFIG;
        }
    }

    /// Takes the next request of a queue.
    pub fn pop(&mut self, mem: &mut Memory, queue: usize) -> Option<Chain> {
        let (running, features) = (self.is_running(), self.features());
        let popped = self.queues.get_mut(queue).filter(|q| running && q.enabled)?.pop(mem, features);
        self.checked(popped)?
    }

    /// Requests in a queue that have not been taken.
    pub fn waiting(&self, mem: &Memory, queue: usize) -> u16 {
        let running = self.is_running();
        self.queues.get(queue).filter(|q| running && q.enabled).map_or(0, |q| q.waiting(mem))
    }

    /// The buffers of a request that was taken earlier.
    pub fn chain(&mut self, mem: &Memory, queue: usize, head: u16) -> Option<Chain> {
        let (running, features) = (self.is_running(), self.features());
        let chain = self.queues.get(queue).filter(|q| running && q.enabled)?.chain(mem, head, features);
        self.checked(chain)
    }

    /// After what a driver cannot have meant, the device stands still until it is reset.
    fn checked<T>(&mut self, result: Result<T, queue::QueueError>) -> Option<T> {
        result
            .inspect_err(|error| {
                warn!(target: "virtio", %error, "The driver's queue is broken");
                self.device_status |= STATUS_NEEDS_RESET;
                self.config_changed();
            })
            .ok()
    }

    /// Makes the last requests that were taken from a queue the next ones again.
    pub fn put_back(&mut self, queue: usize, count: u16) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.avail_last_idx = queue.avail_last_idx.wrapping_sub(count);
        }
    }

    /// Gives a request back with the number of bytes written into it.
    pub fn complete(&mut self, mem: &mut Memory, queue: usize, head: u16, written: u32) {
        self.give_back(mem, queue, &[(head, written)]);
    }

    /// Gives requests back, all at once, each with the number of bytes written into it.
    pub fn give_back(&mut self, mem: &mut Memory, queue: usize, requests: &[(u16, u32)]) {
        let features = self.features();
        let Some(queue) = self.queues.get_mut(queue) else { return };
        requests.iter().for_each(|(head, written)| queue.push(mem, *head, *written));
        if queue.flush(mem, features) {
            self.isr_status |= ISR_QUEUE;
        }
    }

    /// The configuration space of a device: the number of its type, the ports of its base addresses
    /// at power-up, and the bytes of its own configuration.
    pub fn config_space(&self, device_type: u16, ports: [u16; 4], device_length: u16) -> ConfigSpace {
        let device_size = device_length.next_power_of_two().max(BAR_SMALL_SIZE);
        let notify_end = self.queues.iter().map(|q| q.notify_offset + 1).max().unwrap_or(0);
        let capability = |next: u8, cfg_type: u8, bar: usize, length: u32, extra: Option<u32>| {
            let size = if extra.is_some() { 20 } else { 16 };
            let mut bytes = vec![0x09, next, size, cfg_type, bar as u8, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(length.to_le_bytes());
            bytes.extend(extra.into_iter().flat_map(u32::to_le_bytes));
            bytes
        };
        let notify_length = u32::from(notify_end) * NOTIFY_MULTIPLIER;
        ConfigSpace::new(VENDOR, DEVICE_BASE + device_type, CLASS, REVISION)
            .with_subsystem(VENDOR, device_type)
            .with_command(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_SERR)
            .with_interrupt(1, 0)
            .with_io_bar(BAR_COMMON, ports[BAR_COMMON], BAR_COMMON_SIZE)
            .with_io_bar(BAR_NOTIFY, ports[BAR_NOTIFY], BAR_SMALL_SIZE)
            .with_io_bar(BAR_ISR, ports[BAR_ISR], BAR_SMALL_SIZE)
            .with_io_bar(BAR_DEVICE, ports[BAR_DEVICE], device_size)
            .with_capabilities(0x40)
            .with_bytes(0x40, &capability(0x50, 1, BAR_COMMON, COMMON_LENGTH, None))
            .with_bytes(0x50, &capability(0x64, 2, BAR_NOTIFY, notify_length, Some(NOTIFY_MULTIPLIER)))
            .with_bytes(0x64, &capability(0x74, 3, BAR_ISR, 1, None))
            .with_bytes(0x74, &capability(0x84, 4, BAR_DEVICE, device_length.into(), None))
            .with_bytes(0x84, &capability(0, 5, BAR_COMMON, 0, Some(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Driver;
    use super::*;

    fn transport() -> Transport {
        Transport::new([F_INDIRECT_DESC | F_EVENT_IDX | 1, F_VERSION_1, 0, 0], &[(32, 0), (8, 1)])
    }

    fn read(t: &mut Transport, offset: u16, width: Width) -> u32 {
        t.port_read(&[], BAR_COMMON, offset, width)
    }

    fn write(t: &mut Transport, offset: u16, width: Width, value: u32) -> Action {
        t.port_write(BAR_COMMON, offset, width, value)
    }

    #[test]
    fn features_by_word() {
        let mut t = transport();
        assert_eq!(read(&mut t, DEVICE_FEATURE, Width::Dword), 0x3000_0001);
        write(&mut t, DEVICE_FEATURE_SELECT, Width::Dword, 1);
        assert_eq!(read(&mut t, DEVICE_FEATURE, Width::Dword), 1);
        write(&mut t, DEVICE_FEATURE_SELECT, Width::Dword, 0xffff_ffff);
        assert_eq!(read(&mut t, DEVICE_FEATURE, Width::Dword), 0);
        write(&mut t, DRIVER_FEATURE, Width::Dword, 1);
        assert_eq!((t.driver_feature, t.features_ok), ([1, 1, 0, 0], true));
        write(&mut t, DEVICE_STATUS, Width::Byte, 0xb);
        assert_eq!(read(&mut t, DEVICE_STATUS, Width::Byte), 0xb);
        write(&mut t, DRIVER_FEATURE, Width::Dword, 2);
        write(&mut t, DEVICE_STATUS, Width::Byte, 0xb);
        assert_eq!(read(&mut t, DEVICE_STATUS, Width::Byte), 3, "features refused");
        t.driver_feature_select = 9;
        write(&mut t, DRIVER_FEATURE, Width::Dword, 0);
        assert_eq!(write(&mut t, DEVICE_STATUS, Width::Byte, 0), Action::Reset);
        assert_eq!(t, transport());
    }

    #[test]
    fn queues_are_set_up_once() {
        let mut t = transport();
        assert_eq!(read(&mut t, NUM_QUEUES, Width::Word), 2);
        write(&mut t, QUEUE_SELECT, Width::Word, 1);
        assert_eq!(read(&mut t, QUEUE_SIZE, Width::Word), 8);
        assert_eq!(read(&mut t, QUEUE_NOTIFY_OFF, Width::Word), 1);
        assert_eq!(read(&mut t, QUEUE_MSIX_VECTOR, Width::Word), 0xffff);
        write(&mut t, QUEUE_ENABLE, Width::Word, 1);
        assert_eq!(read(&mut t, QUEUE_ENABLE, Width::Word), 0, "no addresses");
        for (field, addr) in [(QUEUE_DESC, 0x1000), (QUEUE_AVAIL, 0x2000), (QUEUE_USED, 0x3000)] {
            write(&mut t, field, Width::Dword, addr);
            write(&mut t, field + 4, Width::Dword, 7);
            assert_eq!(read(&mut t, field, Width::Dword), addr);
            assert_eq!(read(&mut t, field + 4, Width::Dword), 0);
        }
        write(&mut t, QUEUE_ENABLE, Width::Word, 1);
        write(&mut t, QUEUE_DESC, Width::Dword, 0x5000);
        write(&mut t, QUEUE_ENABLE, Width::Word, 0);
        assert_eq!((t.queues[1].enabled, t.queues[1].desc_addr), (true, 0x1000));
        write(&mut t, QUEUE_SELECT, Width::Word, 2);
        assert_eq!(read(&mut t, QUEUE_SIZE, Width::Word), 0, "no such queue");
        write(&mut t, QUEUE_SIZE, Width::Word, 4);
    }

    #[test]
    fn odd_widths_reach_the_fields() {
        let mut t = transport();
        write(&mut t, DEVICE_STATUS, Width::Word, 0x0203);
        assert_eq!(t.device_status, 3);
        write(&mut t, QUEUE_DESC + 1, Width::Byte, 0x12);
        write(&mut t, QUEUE_DESC + 2, Width::Dword, 0xffff_5678);
        assert_eq!(t.queues[0].desc_addr, 0x5678_1200);
        assert_eq!(read(&mut t, MSIX_CONFIG, Width::Dword), 0x0002_ffff);
        assert_eq!(read(&mut t, 60, Width::Dword), 0xffff_ffff);
        write(&mut t, 0xffff, Width::Dword, 0);
        read(&mut t, 0xffff, Width::Dword);
    }

    #[test]
    fn reading_the_interrupt_status_lowers_the_pin() {
        let mut t = transport();
        t.device_status = STATUS_DRIVER_OK;
        t.config_changed();
        assert!(t.irq());
        assert_eq!(t.port_read(&[], BAR_ISR, 0, Width::Byte), 2);
        assert!(!t.irq());
        assert_eq!(read(&mut t, CONFIG_GENERATION, Width::Byte), 1);
        assert_eq!(read(&mut t, CONFIG_GENERATION, Width::Byte), 1);
    }

    #[test]
    fn a_broken_queue_asks_for_a_reset() {
        let mut t = transport();
        let mut mem = Memory::new(1 << 20).unwrap();
        Driver::new(0x1000, 32).place(&mut t.queues[0]);
        t.device_status = STATUS_DRIVER_OK;
        mem.write_u16(t.queues[0].avail_addr + 2, 1000);
        assert_eq!(t.pop(&mut mem, 0), None);
        assert_eq!((t.is_running(), t.isr_status), (false, ISR_CONFIG));
        write(&mut t, DEVICE_STATUS, Width::Byte, 0xf);
        assert_eq!(t.device_status, 0xf | STATUS_NEEDS_RESET);
        assert_eq!(t.pop(&mut mem, 77), None);
    }

    #[test]
    fn the_configuration_space_is_v86s() {
        let space = transport().config_space(9, [0xa800, 0xa900, 0xa700, 0xa600], 256);
        let dword = |at: u8| space.read(at, Width::Dword);
        assert_eq!((dword(0), dword(8), dword(0x2c)), (0x1049_1af4, 0x0002_0001, 0x0009_1af4));
        assert_eq!([0, 1, 2, 3].map(|i| space.bar_size(i)), [64, 16, 16, 256]);
        assert_eq!([0, 1, 2, 3].map(|i| space.bar(i)), [0xa800, 0xa900, 0xa700, 0xa600].map(Some));
        let mut at = space.read(0x34, Width::Byte) as u8;
        let mut list = Vec::new();
        while at != 0 {
            list.push((at, dword(at), dword(at + 4) & 0xff, dword(at + 12)));
            at = (dword(at) >> 8) as u8;
        }
        assert_eq!(
            list,
            [
                (0x40, 0x0110_5009, 0, 56),
                (0x50, 0x0214_6409, 1, 4),
                (0x64, 0x0310_7409, 2, 1),
                (0x74, 0x0410_8409, 3, 256),
                (0x84, 0x0514_0009, 0, 0),
            ]
        );
        assert_eq!(dword(0x60), 2);
    }
}
