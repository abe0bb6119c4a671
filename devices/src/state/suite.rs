//! The one suite that every chip of the list has to pass. A chip without [`Suite`] does not compile.

use super::chip::{Chip, Moment, State, Writer};
use super::container::Container;
use super::tests::saved_units;
use super::value::Value;
use super::{Plan, StateError, for_each_chip, save};
use crate::board::{BoardConfig, ManualClock, Seeded};
use crate::fs::{Filesystem, NoBlobs};
use crate::ide::{Form, Medium, Units};
use crate::pc::Pc;
use env86_emu::Memory;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the suite knows of a chip.
pub(super) trait Suite: Chip {
    /// Fields of a machine that are in no state, by their names in the chip's `Debug` output.
    const NOT_IN_STATE: &'static [&'static str] = &[];

    /// Every field that the state holds.
    fn fields() -> Vec<Field>;

    /// The chip with all of its fields, as `{:#?}` shows it: what is in no [`Suite::fields`] and not
    /// named in [`Suite::NOT_IN_STATE`] is a field that somebody has forgotten.
    fn show(machine: &mut Pc) -> String;
}

/// A field of a machine that can be changed.
pub(super) struct Field {
    pub name: &'static str,
    pub get: fn(&mut Pc) -> String,
    pub change: fn(&mut Pc, &mut Random),
}

/// Fields: a machine's name, and places in it with functions that make values for them.
macro_rules! fields {
    ($machine:ident: $($place:expr => $value:expr),* $(,)?) => {
        vec![$(
            crate::state::suite::Field {
                name: stringify!($place),
                get: |$machine| format!("{:?}", $place),
                change: |$machine, random| {
                    $place = crate::state::suite::made($value, random);
                },
            }
        ),*]
    };
}
pub(super) use fields;

/// Pseudo-random numbers (xorshift).
pub(super) struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }
}

/// A value of its type, any.
pub(super) trait Any {
    fn any(random: &mut Random) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl Any for $number {
            fn any(random: &mut Random) -> Self {
                (random.number() >> 7) as $number
            }
        }
    )* };
}
numbers!(u8, u16, u32, u64, u128);

impl Any for bool {
    fn any(random: &mut Random) -> Self {
        random.below(2) != 0
    }
}

impl<T: Any, const N: usize> Any for [T; N] {
    fn any(random: &mut Random) -> Self {
        core::array::from_fn(|_| T::any(random))
    }
}

pub(super) fn any<T: Any>(random: &mut Random) -> T {
    T::any(random)
}

/// What a function makes.
pub(super) fn made<T>(make: impl FnOnce(&mut Random) -> T, random: &mut Random) -> T {
    make(random)
}

/// One of these.
pub(super) fn one_of<T: Copy, const N: usize>(values: [T; N]) -> impl Fn(&mut Random) -> T {
    move |random| values[random.below(N)]
}

/// Any number that has no other bits than these.
pub(super) fn bits<T: Any + core::ops::BitAnd<Output = T> + Copy>(mask: T) -> impl Fn(&mut Random) -> T {
    move |random| T::any(random) & mask
}

/// Up to ten bytes or other things in a queue.
pub(super) fn some<C: FromIterator<T>, T: Any>(random: &mut Random) -> C {
    (0..=random.below(10)).map(|_| T::any(random)).collect()
}

const INDEX: &str = r#"{"fsroot": [["a", 70000, 1, 33188, 0, 0, "blob"], ["null", 0, 1, 8630, 0, 0, [1, 3]],
    ["d", 0, 1, 16877, 0, 0, [["l", 0, 1, 41471, 0, 0, "../a"]]]], "size": 9, "version": 3}"#;

/// A small machine that has all devices.
fn machine() -> Pc {
    let config = BoardConfig {
        acpi: true,
        uarts: [true; 4],
        virtio_console: true,
        virtio_balloon: true,
        virtio_shares: true,
        virtio_block: Some(super::virtio_block::suite::medium(100)),
        lpt: true,
        virtio_net: Some(crate::ne2k::MAC),
        vga_memory_size: crate::vga::MIN_MEMORY,
        ide: Units::new(
            Some(Medium::new(vec![1; 100 * 512], Form::Whole)),
            Some(Medium::new(vec![0x5d; 300 * 512], Form::Written)),
            Some(Medium::new(vec![7; 5 * 2048], Form::Whole)),
        ),
        filesystem: Some((Filesystem::from_json(INDEX.as_bytes()).unwrap(), Box::new(NoBlobs))),
        ..BoardConfig::default()
    };
    let clock = ManualClock::default();
    clock.advance(5_000_000_000);
    Pc::new(Memory::new(1 << 20).unwrap(), config, Box::new(clock), Box::new(Seeded(1))).unwrap()
}

fn file_of(machine: &mut Pc) -> Vec<u8> {
    save(machine, &|_| true).unwrap().to_vec()
}

/// A machine as a state wants it built, with its memory, and in no other way in that state.
fn built(plan: &Plan, file: &[u8]) -> Pc {
    let clock = ManualClock::default();
    clock.advance(plan.time);
    let memory = plan.pages().copy(file).unwrap();
    let virtio_block = plan.virtio_disk().map(super::virtio_block::suite::medium);
    let drives = BoardConfig { ide: saved_units(plan, file), virtio_block, ..BoardConfig::default() };
    let config = plan.configure(drives);
    Pc::new(memory, config, Box::new(clock), Box::new(Seeded(1))).unwrap()
}

/// A machine of which one chip is in a state's.
fn with_chip<T: Chip>(file: &[u8]) -> Pc {
    let container = Container::parse(file).unwrap();
    let plan = Plan::read(&container).unwrap();
    let mut machine = built(&plan, file);
    let now = machine.board.time();
    let chip = T::read(&State::new(&container).unwrap()).unwrap();
    chip.apply(&mut machine, &Moment { now, clock_ms: 0.0, file });
    machine
}

/// The values in what `{:#?}` shows, by the names that lead to them; elements of lists have none.
fn values(shown: &str) -> BTreeMap<String, Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in shown.lines().filter(|line| !line.trim_start().starts_with(['}', ']', ')'])) {
        let depth = (line.len() - line.trim_start().len()) / 4;
        let line = line.trim();
        let (name, value) = line.split_once(": ").unwrap_or(("", line));
        names.truncate(depth);
        names.resize(depth, String::new());
        names.push(name.into());
        let path: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        if !path.is_empty() {
            values.entry(path.join(".")).or_default().push(value.into());
        }
    }
    values
}

/// The paths of the values that differ.
fn differences(one: &str, other: &str) -> BTreeSet<String> {
    let (one, other) = (values(one), values(other));
    let paths = one.keys().chain(other.keys());
    paths.filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

fn is_in_state<T: Suite>(path: &str) -> bool {
    !path.split('.').any(|name| T::NOT_IN_STATE.contains(&name))
}

/// Saved and restored is equal, changed and saved differs, and no field is forgotten.
fn travels<T: Suite>() {
    let mut untouched = machine();
    let (shown, original) = (T::show(&mut untouched), file_of(&mut untouched));
    let mut changed = BTreeSet::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for field in T::fields() {
        let mut machine = machine();
        let before = (field.get)(&mut machine);
        let tries = (0..1000).find(|_| {
            (field.change)(&mut machine, &mut random);
            (field.get)(&mut machine) != before
        });
        assert!(tries.is_some(), "{} stays {before}", field.name);
        let file = file_of(&mut machine);
        assert!(file != original, "{} is not in the state", field.name);
        let (wanted, mut restored) = ((field.get)(&mut machine), with_chip::<T>(&file));
        assert_eq!((field.get)(&mut restored), wanted, "{} after a restore", field.name);
        changed.extend(differences(&shown, &T::show(&mut machine)));
    }
    for _ in 0..20 {
        let mut machine = machine();
        for field in T::fields() {
            (field.change)(&mut machine, &mut random);
        }
        let file = file_of(&mut machine);
        let mut restored = with_chip::<T>(&file);
        for field in T::fields() {
            assert_eq!((field.get)(&mut restored), (field.get)(&mut machine), "{}", field.name);
        }
        let differ = differences(&T::show(&mut machine), &T::show(&mut restored));
        let lost: Vec<_> = differ.iter().filter(|path| is_in_state::<T>(path)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }
    let leaf = |list: &[String]| list.iter().any(|value| !value.ends_with(['{', '[', '(']));
    let paths = values(&shown).into_iter().filter(|(_, list)| leaf(list)).map(|(path, _)| path);
    let forgotten: Vec<_> = paths.filter(|path| is_in_state::<T>(path) && !changed.contains(path)).collect();
    assert!(forgotten.is_empty(), "neither changed nor named as not in the state: {forgotten:?}");
}

/// What stands in a place of v86's entries where it should not.
fn extremes(old: &Value, [empty, ones]: [u32; 2]) -> Vec<Value> {
    const NUMBERS: [f64; 12] = [
        -1.0,
        0.0,
        0.5,
        255.0,
        65_536.0,
        -2_147_483_648.0,
        4_294_967_295.0,
        9_007_199_254_740_992.0,
        1e308,
        -1e308,
        f64::NAN,
        f64::INFINITY,
    ];
    let mut values: Vec<Value> = NUMBERS.map(Value::Number).into();
    values.extend([Value::Null, Value::Bool(true), "x".into(), Value::List(Vec::new())]);
    values.extend([Value::Map(Vec::new()), Value::Buffer(super::Kind::U8, u32::MAX)]);
    values.push(Value::Buffer(super::Kind::F64, empty));
    if let Value::Buffer(kind, _) = old {
        values.push(Value::Buffer(*kind, empty));
        values.push(Value::Buffer(*kind, ones));
    }
    if let Value::List(list) = old {
        values.push(Value::List(list[..list.len().saturating_sub(1)].to_vec()));
        values.push(Value::List(list.iter().cycle().take(2 * list.len()).cloned().collect()));
    }
    values
}

/// Every place in a value, as the positions that lead there; of long lists the ends only.
fn places(value: &Value, path: &[usize], all: &mut Vec<Vec<usize>>) {
    const ENDS: usize = 35;
    all.push(path.to_vec());
    if let Value::List(list) = value {
        for (i, value) in list.iter().enumerate() {
            if i < ENDS || i + ENDS >= list.len() {
                places(value, &[path, &[i]].concat(), all);
            }
        }
    }
}

fn place<'v>(value: &'v mut Value, path: &[usize]) -> &'v mut Value {
    match (path, value) {
        ([], value) => value,
        ([first, rest @ ..], Value::List(list)) => place(&mut list[*first], rest),
        _ => unreachable!("a place that was found"),
    }
}

/// Reads a state and runs its machine for a slice, or says why it cannot be.
fn run(container: &Container) -> Result<(), StateError> {
    let plan = Plan::read(container)?;
    let mut machine = built(&plan, container.bytes);
    plan.apply(&mut machine, container.bytes)?;
    machine.run(500);
    save(&mut machine, &|_| true).map(|_| ())
}

/// Every field at its extremes is taken or refused by name, and what is taken runs.
fn extremes_do_no_harm<T: Suite>() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut machine = machine();
    T::fields().iter().for_each(|field| (field.change)(&mut machine, &mut random));
    let file = file_of(&mut machine);
    let mut writer = Writer::new(0, 0, &|_| true);
    T::prepare(&mut machine, &mut writer).unwrap();
    T::write(&machine, &mut writer).unwrap();
    let (entries, ours) = writer.names();
    let mut container = Container::parse(&file).unwrap();
    let mut long = file.clone();
    long.resize(file.len() + (1 << 20), 0xff);
    container.bytes = &long;
    let spare = [file.len()..file.len(), file.len()..long.len()].map(|range| container.add(range));
    for name in &entries {
        let top = super::top::TOP.position(name);
        let mut all = Vec::new();
        places(container.state.at(top), &[top], &mut all);
        for path in all {
            let old = place(&mut container.state, &path).clone();
            for value in extremes(&old, spare) {
                let what = format!("{value:?}");
                *place(&mut container.state, &path) = value;
                // A disk of another size is nobody's here: the machine is another one.
                if let Err(error) = run(&container)
                    && !matches!(error, StateError::OtherMachine(_))
                {
                    let text = error.to_string();
                    assert!(text.contains(name), "{what} at {path:?} of {name} is refused with: {text}");
                }
            }
            *place(&mut container.state, &path) = old;
        }
    }
    for key in &ours {
        ours_do_no_harm(&mut container, &format!("/{key}"));
    }
}

/// The same for our additions, of which nothing is refused.
fn ours_do_no_harm(container: &mut Container, at: &str) {
    let old = container.ours.pointer(at).cloned().unwrap();
    let inner: Vec<String> = match &old {
        Json::Object(map) => map.keys().cloned().collect(),
        Json::Array(list) => (0..list.len().min(8)).map(|i| i.to_string()).collect(),
        _ => Vec::new(),
    };
    for name in inner {
        ours_do_no_harm(container, &format!("{at}/{name}"));
    }
    let long = "f".repeat(10_000);
    for value in [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(0.5),
        json!(255),
        json!(65_535),
        json!(u64::MAX),
        json!(1e308),
        json!(long),
        json!("zz"),
        json!([]),
        json!({}),
        json!([[0, 255, 255], [1, u32::MAX, u32::MAX, u32::MAX], [2, 0, "ff"]]),
    ] {
        let what = value.to_string();
        *container.ours.pointer_mut(at).unwrap() = value;
        if let Err(error) = run(container) {
            panic!("{what} at {at} is refused: {error}");
        }
    }
    *container.ours.pointer_mut(at).unwrap() = old;
}

macro_rules! stamp {
    ($($chip:ident),*) => { $(
        mod $chip {
            type Chip = crate::state::$chip::Saved;

            #[test]
            fn travels() {
                super::travels::<Chip>();
            }

            #[test]
            fn extremes_do_no_harm() {
                super::extremes_do_no_harm::<Chip>();
            }
        }
    )* };
}
for_each_chip!(stamp);

/// The entries that no chip writes: of v86's versions before, and of machines with one IDE channel.
const OF_OLD: [&str; 2] = ["old_cdrom", "old_hda"];

#[test]
fn every_entry_is_some_chips() {
    let mut machine = machine();
    let mut writer = Writer::new(0, 0, &|_| true);
    macro_rules! all {
        ($($chip:ident),*) => { $(
            <super::$chip::Saved as Chip>::prepare(&mut machine, &mut writer).unwrap();
        )* $(
            <super::$chip::Saved as Chip>::write(&machine, &mut writer).unwrap();
        )* };
    }
    for_each_chip!(all);
    let (mut entries, _) = writer.names();
    entries.extend(OF_OLD);
    entries.sort_unstable();
    let mut wanted: Vec<_> = super::top::TOP.fields.iter().copied().filter(|name| !name.is_empty()).collect();
    wanted.sort_unstable();
    assert_eq!(entries, wanted);
}

#[test]
fn a_state_says_which_image_it_needs() {
    let mut machine = machine();
    let (digest, index) = (super::digest(&mut machine).unwrap(), INDEX.as_bytes());
    machine.passengers.image = Some(super::ImageSource::new("/images/debian", index));
    assert_eq!(super::digest(&mut machine).unwrap(), digest, "it is the same machine elsewhere");
    let file = file_of(&mut machine);
    let plan = Plan::read(&Container::parse(&file).unwrap()).unwrap();
    let image = plan.image().unwrap();
    assert_eq!(
        (&*image.path, image.has_index(index), image.has_index(b"{}")),
        ("/images/debian", true, false)
    );
    assert!(plan.needs_image(), "the content of /a is there alone");
}
