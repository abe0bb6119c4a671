//! What virtio devices have in common.

use super::StateError;
use super::container::Buffers;
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::virtio::Transport;
use crate::virtio::queue::Queue;
use serde_json::Value as Json;

/// The registers; the queues follow from [`FIRST_QUEUE`] on.
pub(super) const TRANSPORT: Layout = Layout {
    name: "virtio",
    fields: &[
        "device_feature_select",
        "driver_feature_select",
        "device_feature",
        "driver_feature",
        "features_ok",
        "device_status",
        "config_has_changed",
        "config_generation",
        "isr_status",
        "queue_select",
    ],
};
const FIRST_QUEUE: usize = TRANSPORT.fields.len();

const QUEUE: Layout = Layout {
    name: "queue",
    fields: &[
        "size",
        "size_supported",
        "enabled",
        "notify_offset",
        "desc_addr",
        "avail_addr",
        "avail_last_idx",
        "used_addr",
        "num_staged_replies",
        "free_running",
    ],
};

/// Reads registers into a device's own: what it offers is what it has.
pub(super) fn read_transport(r: &Record, own: &Transport) -> Result<Transport, StateError> {
    let mut transport = own.clone();
    let offered: [u32; 4] = r.u32s("device_feature")?;
    let accepted: [u32; 4] = r.u32s("driver_feature")?;
    let running = r.u8("device_status")? != 0;
    for (accepted, own) in accepted.iter().zip(own.device_feature) {
        if running && accepted & !own != 0 {
            return Err(StateError::Unsupported(format!(
                "the driver of {} uses features {accepted:#x} of which only {own:#x} are known here",
                r.path()
            )));
        }
    }
    // The driver has seen what was offered.
    transport.device_feature = core::array::from_fn(|i| offered[i] & own.device_feature[i]);
    transport.driver_feature = core::array::from_fn(|i| accepted[i] & own.device_feature[i]);
    transport.device_feature_select = r.u32("device_feature_select")?;
    transport.driver_feature_select = r.u32("driver_feature_select")?;
    transport.features_ok = r.bool("features_ok")?;
    transport.device_status = r.u8("device_status")?;
    transport.config_has_changed = r.bool("config_has_changed")?;
    transport.config_generation = r.u8("config_generation")?;
    transport.isr_status = r.u8("isr_status")? & 3;
    transport.queue_select = r.u16("queue_select")?;
    let queues = r.fields.get(FIRST_QUEUE..).unwrap_or_default();
    if queues.len() > own.queues.len() {
        return Err(StateError::Unsupported(format!(
            "{} has {} queues, and here it has {}",
            r.path(),
            queues.len(),
            own.queues.len()
        )));
    }
    for (i, (queue, saved)) in transport.queues.iter_mut().zip(queues).enumerate() {
        let record = Record::new(&QUEUE, saved, r.container, format!("{}, queue {i}", r.path()))?;
        *queue = read_queue(&record, queue)?;
    }
    Ok(transport)
}

fn read_queue(r: &Record, own: &Queue) -> Result<Queue, StateError> {
    let size = r.u16("size")?;
    if !size.is_power_of_two() || size > own.size_supported {
        let problem = format!("is {size}, not a power of two up to {}", own.size_supported);
        return Err(r.wrong("size", problem));
    }
    Ok(Queue {
        size,
        size_supported: own.size_supported,
        enabled: r.bool("enabled")?,
        notify_offset: own.notify_offset,
        desc_addr: r.u32("desc_addr")?,
        avail_addr: r.u32("avail_addr")?,
        used_addr: r.u32("used_addr")?,
        avail_last_idx: r.u16("avail_last_idx")?,
        num_staged_replies: r.u16("num_staged_replies")?,
        masked_idx: r.u32_or("free_running", 0)? != 1,
    })
}

/// A value as a part of our additions.
pub(super) fn json_of(value: &Value) -> Json {
    let mut text = String::new();
    value.write(&mut text);
    serde_json::from_str(&text).unwrap_or_default()
}

pub(super) fn write_transport(t: &Transport, buffers: &mut Buffers) -> Value {
    let entry = Entry::new(&TRANSPORT)
        .set("device_feature_select", t.device_feature_select)
        .set("driver_feature_select", t.driver_feature_select)
        .set("device_feature", buffers.u32s(t.device_feature))
        .set("driver_feature", buffers.u32s(t.driver_feature))
        .set("features_ok", t.features_ok)
        .set("device_status", t.device_status)
        .set("config_has_changed", t.config_has_changed)
        .set("config_generation", t.config_generation)
        .set("isr_status", t.isr_status)
        .set("queue_select", t.queue_select);
    let Value::List(mut fields) = entry.value() else { return Value::Null };
    fields.extend(t.queues.iter().map(write_queue));
    Value::List(fields)
}

fn write_queue(queue: &Queue) -> Value {
    Entry::new(&QUEUE)
        .set("size", queue.size)
        .set("size_supported", queue.size_supported)
        .set("enabled", queue.enabled)
        .set("notify_offset", queue.notify_offset)
        .set("desc_addr", queue.desc_addr as i32)
        .set("avail_addr", queue.avail_addr as i32)
        .set("avail_last_idx", queue.avail_last_idx)
        .set("used_addr", queue.used_addr as i32)
        .set("num_staged_replies", queue.num_staged_replies)
        .set("free_running", u8::from(!queue.masked_idx))
        .value()
}
