//! What each chip's file of this folder gives, and what it is given.

use super::container::{Buffers, Container};
use super::record::{Entry, Layout, Record};
use super::top::{self, TOP};
use super::value::Value;
use super::{Saved, StateError};
use crate::board::BoardConfig;
use crate::fs::Ino;
use crate::pc::Pc;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// The version of our additions to v86's format.
const VERSION: u64 = 1;

/// One chip's part of a state, as it is after reading: checked, and ready to be applied.
///
/// [`Chip::read`] refuses what the chip cannot be. From [`Chip::apply`] on nothing can fail. Our
/// additions refine what v86's entries say; one that is missing or not understood leaves that as it is.
pub(super) trait Chip: Clone + Debug {
    /// Reads the chip out of a state.
    fn read(state: &State) -> Result<Self, StateError>;

    /// Makes a board's configuration that of the state.
    fn configure(&self, config: BoardConfig) -> BoardConfig {
        config
    }

    /// Says why a machine cannot be put into this state.
    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        _ = machine;
        Ok(())
    }

    /// Puts a machine's chip into the state; it fits.
    fn apply(self, machine: &mut Pc, moment: &Moment);

    /// Fetches what [`Chip::write`] needs and cannot fetch from a machine that is borrowed.
    fn prepare(machine: &mut Pc, writer: &mut Writer) -> Result<(), StateError> {
        _ = (machine, writer);
        Ok(())
    }

    /// Writes a machine's chip.
    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError>;
}

/// A state that is being read.
pub(super) struct State<'a> {
    pub container: &'a Container<'a>,
    /// v86's entries.
    pub top: Record<'a>,
    ours: &'a Json,
}

impl<'a> State<'a> {
    /// The additions of a newer version are not understood, and ignored.
    pub fn new(container: &'a Container<'a>) -> Result<Self, StateError> {
        let known = container.ours.get("version").and_then(Json::as_u64) == Some(VERSION);
        let ours = if known { &container.ours } else { &Json::Null };
        Ok(Self { container, top: Record::new(&TOP, &container.state, container, "")?, ours })
    }

    /// The entry at the top level with this name.
    pub fn entry(&self, layout: &'static Layout, name: &'static str) -> Result<Record<'a>, StateError> {
        Record::new(layout, self.top.get(name), self.container, top::path(name))
    }

    /// The same for a device that not every machine has.
    pub fn optional(
        &self,
        layout: &'static Layout,
        name: &'static str,
    ) -> Result<Option<Record<'a>>, StateError> {
        if self.top.get(name).is_null() { Ok(None) } else { self.entry(layout, name).map(Some) }
    }

    /// Our addition under this key; `null` where there is none.
    pub fn ours(&self, key: &str) -> &'a Json {
        &self.ours[key]
    }

    /// Guest time in nanoseconds at the save, if we have written it.
    pub fn guest_time(&self) -> Option<u64> {
        self.ours("guest_time_ns").as_u64()
    }
}

/// When a machine is put into a state.
pub(super) struct Moment<'a> {
    /// The machine's guest time in nanoseconds.
    pub now: u64,
    /// What v86's clock showed at the save, in milliseconds. We write times as if it was zero.
    pub clock_ms: f64,
    /// The state's file.
    pub file: &'a [u8],
}

/// How late a timer may have been at the save, in milliseconds, for its start to be believed.
const LATE_MS: f64 = 200.0;

impl Moment<'_> {
    /// The part of a period that has passed at the save, in nanoseconds, when it began at `since` in
    /// milliseconds on v86's clock. That may have been another clock: then nothing has passed.
    pub fn elapsed_ns(&self, since: f64, period_ms: f64) -> u64 {
        let passed = self.clock_ms - since;
        if (0.0..=period_ms + LATE_MS).contains(&passed) { (passed * 1e6) as u64 } else { 0 }
    }
}

/// A state that is being written, of a machine that is borrowed for `'m`.
pub(super) struct Writer<'w, 'm> {
    /// Guest time in nanoseconds.
    pub now: u64,
    /// Wall time in milliseconds since 1970.
    pub unix_ms: i64,
    /// Whether a page of memory, by number, can hold anything but zeros.
    pub touched: &'w dyn Fn(usize) -> bool,
    /// Contents of the files that are saved as a whole.
    pub files: BTreeMap<Ino, Vec<u8>>,
    pub buffers: Buffers<'m>,
    top: Entry,
    ours: Map<String, Json>,
    #[cfg(test)]
    entries: Vec<&'static str>,
}

impl<'w, 'm> Writer<'w, 'm> {
    pub fn new(now: u64, unix_ms: i64, touched: &'w dyn Fn(usize) -> bool) -> Self {
        let mut ours = Map::new();
        ours.insert("version".into(), json!(VERSION));
        ours.insert("writer".into(), json!(concat!("env86 ", env!("CARGO_PKG_VERSION"))));
        ours.insert("guest_time_ns".into(), json!(now));
        let (files, buffers, top) = (BTreeMap::new(), Buffers::default(), Entry::new(&TOP));
        Self {
            now,
            unix_ms,
            touched,
            files,
            buffers,
            top,
            ours,
            #[cfg(test)]
            entries: Vec::new(),
        }
    }

    /// Sets one of v86's entries.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        #[cfg(test)]
        self.entries.push(name);
        self.top.put(name, value);
    }

    /// Sets one of our additions.
    pub fn add(&mut self, key: &str, value: Json) {
        self.ours.insert(key.into(), value);
    }

    /// What has been set so far: names of entries, and keys of our additions.
    #[cfg(test)]
    pub fn names(&self) -> (Vec<&'static str>, Vec<String>) {
        let every_state = ["version", "writer", "guest_time_ns"];
        let ours = self.ours.keys().filter(|key| !every_state.contains(&key.as_str()));
        (self.entries.clone(), ours.cloned().collect())
    }

    /// The state.
    pub fn finish(self) -> Result<Saved<'m>, StateError> {
        Saved::new(&self.top.value(), self.buffers, self.ours)
    }
}

/// Refuses a machine that has something else than the state's has.
pub(super) fn same(what: &str, has: u64, wanted: u64) -> Result<(), StateError> {
    if has == wanted {
        return Ok(());
    }
    Err(StateError::OtherMachine(format!("it has {wanted} of {what}, and this has {has}")))
}
