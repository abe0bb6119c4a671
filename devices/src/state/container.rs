//! The container: a header, JSON, and buffers behind it.
//!
//! ```text
//! 0   i32  magic 86768676h
//! 4   i32  version 6
//! 8   i32  length of the file
//! 12  i32  length of the JSON
//! 16       JSON: {"env86": ..., "buffer_infos": [{"offset", "length"}...], "state": [...]}
//!          buffers, each at a multiple of 4; the first one at a multiple of the page size
//! ```
//!
//! The key `env86` is ours: v86 does not look at it, and drops it when it saves again. It begins with
//! a checksum over the header and all of the JSON behind it, and holds one for each buffer.

use super::StateError;
use super::value::{Kind, Value};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: u32 = 0x8676_8676;
const VERSION: u32 = 6;
/// The first word of a zstd frame.
const ZSTD_MAGIC: u32 = 0xfd2f_b528;
const HEADER: usize = 16;
/// The most bytes of JSON: an inode takes about 150, a hundred thousand files 15 MB.
const MAX_INFO: usize = 256 << 20;
/// The most buffers: one for each file and each piece of a disk that the guest has written, and some
/// fifty more.
const MAX_BUFFERS: usize = 1 << 22;
/// What the JSON of ours begins with; the checksum's 16 digits follow.
const CHECKED: &[u8] = br#"{"env86":{"checksum":""#;
const DIGITS: usize = 16;
/// Where the first buffer begins is a multiple of this, so that memory can be mapped from the file.
pub const PAGE: usize = 4096;

/// Whether these are the first bytes of a compressed state.
pub fn is_compressed(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|first| u32::from_le_bytes(*first) == ZSTD_MAGIC)
}

/// A state that has been taken apart, but not understood.
#[derive(Debug)]
pub struct Container<'a> {
    /// The machine: v86's array.
    pub state: Value,
    /// What v86's format does not hold, if env86 wrote the state.
    pub ours: serde_json::Value,
    /// All of the file.
    pub bytes: &'a [u8],
    /// Where the buffers are in the file.
    buffers: Vec<Range<usize>>,
}

/// What a state's buffers are to be like: where each is in the file, and the digits of its checksum.
#[derive(Debug, Default)]
pub struct Checksums(Vec<(Range<usize>, String)>);

impl Checksums {
    /// Compares them with the bytes of the file that they are of.
    pub fn check(&self, bytes: &[u8]) -> Result<(), StateError> {
        for (id, (range, sum)) in self.0.iter().enumerate() {
            let buffer = bytes.get(range.clone()).unwrap_or_default();
            if *sum != hex(xxh3_64(buffer)) {
                return Err(StateError::Checksum(format!("buffer {id}")));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct BufferInfo {
    offset: u32,
    length: u32,
}

struct Info {
    buffers: Vec<BufferInfo>,
    state: Value,
    ours: serde_json::Value,
}

impl<'a> Container<'a> {
    /// Takes a state apart and checks that it is whole. Everything in it may be hostile.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StateError> {
        let (container, checksums) = Self::open(bytes)?;
        checksums.check(bytes)?;
        Ok(container)
    }

    /// Takes a state apart and checks its JSON. Its buffers, which are nearly all of it, are yet to be compared with
    /// the checksums, perhaps while the machine is being built.
    pub fn open(bytes: &'a [u8]) -> Result<(Self, Checksums), StateError> {
        let (info, area) = header(bytes)?;
        let text = &bytes[info];
        let info: Info = serde_json::from_slice(text).map_err(StateError::Json)?;
        let mut buffers = Vec::with_capacity(info.buffers.len());
        for (id, &BufferInfo { offset, length }) in info.buffers.iter().enumerate() {
            let range = area + offset as usize..area + offset as usize + length as usize;
            if range.end > bytes.len() {
                return Err(StateError::Buffer { id, problem: "ends behind the file's end".into() });
            }
            buffers.push(range);
        }
        let container = Self { state: info.state, ours: info.ours, bytes, buffers };
        let checksums = container.checksums(text)?;
        Ok((container, checksums))
    }

    /// The checksums that env86 has written; the one of the JSON is right.
    fn checksums(&self, text: &[u8]) -> Result<Checksums, StateError> {
        let Some(digits) = text.strip_prefix(CHECKED).and_then(|rest| rest.get(..DIGITS)) else {
            return Ok(Checksums::default()); // v86 wrote it
        };
        if std::str::from_utf8(digits) != Ok(&checksum_of_info(&self.bytes[..HEADER], text)) {
            return Err(StateError::Checksum("the list of the machine's registers".into()));
        }
        let sums = self.ours.get("buffers").and_then(|sums| sums.as_array());
        let sums = sums.map_or(&[][..], Vec::as_slice);
        let digits = |sum: &serde_json::Value| sum.as_str().unwrap_or_default().to_owned();
        Ok(Checksums(self.buffers.iter().cloned().zip(sums.iter().map(digits)).collect()))
    }

    /// Adds a buffer.
    #[cfg(test)]
    pub fn add(&mut self, range: Range<usize>) -> u32 {
        self.buffers.push(range);
        self.buffers.len() as u32 - 1
    }

    /// Where a buffer is in the file.
    pub fn range(&self, id: u32) -> Result<Range<usize>, StateError> {
        self.buffers.get(id as usize).cloned().ok_or_else(|| StateError::Buffer {
            id: id as usize,
            problem: "is used and does not exist".into(),
        })
    }

    /// A buffer.
    pub fn buffer(&self, id: u32) -> Result<&'a [u8], StateError> {
        Ok(&self.bytes[self.range(id)?])
    }
}

/// Checks the header; gives the ranges of the JSON and of the buffers.
fn header(bytes: &[u8]) -> Result<(Range<usize>, usize), StateError> {
    let words: Option<&[u8; HEADER]> = bytes.first_chunk();
    let words = words.ok_or(StateError::Truncated { have: bytes.len() as u64, want: HEADER as u64 })?;
    let word = |i: usize| u32::from_le_bytes([words[i], words[i + 1], words[i + 2], words[i + 3]]);
    if word(0) != MAGIC {
        return Err(if is_compressed(bytes) { StateError::Compressed } else { StateError::NoState });
    }
    if word(4) != VERSION {
        return Err(StateError::Version(word(4)));
    }
    let (total, info) = (word(8) as usize, word(12) as usize);
    if total != bytes.len() {
        let (have, want) = (bytes.len() as u64, total as u64);
        return Err(if have < want { StateError::Truncated { have, want } } else { StateError::Header });
    }
    if info > MAX_INFO || info > total - HEADER {
        return Err(StateError::Header);
    }
    let area = align4(HEADER + info);
    if area > total { Err(StateError::Header) } else { Ok((HEADER..HEADER + info, area)) }
}

fn align4(n: usize) -> usize {
    n.next_multiple_of(4)
}

fn hex(sum: u64) -> String {
    format!("{sum:016x}")
}

/// Over the header and what stands behind the checksum's digits in the JSON.
fn checksum_of_info(header: &[u8], text: &[u8]) -> String {
    let mut hasher = Xxh3::new();
    hasher.update(header);
    hasher.update(text.get(CHECKED.len() + DIGITS..).unwrap_or_default());
    hex(hasher.digest())
}

/// A part of a file to be written.
#[derive(Clone, Debug)]
pub struct Buffer<'a>(pub Vec<Cow<'a, [u8]>>);

impl Buffer<'_> {
    fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    fn checksum(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.0.iter().for_each(|part| hasher.update(part));
        hasher.digest()
    }
}

/// Buffers as they gather for a state to be written.
#[derive(Debug, Default)]
pub struct Buffers<'a>(Vec<Buffer<'a>>);

impl<'a> Buffers<'a> {
    /// Adds a buffer; gives the value that stands for it.
    pub fn add(&mut self, kind: Kind, bytes: impl Into<Cow<'a, [u8]>>) -> Value {
        self.add_parts(kind, vec![bytes.into()])
    }

    /// Adds a buffer that lies in pieces.
    pub fn add_parts(&mut self, kind: Kind, parts: Vec<Cow<'a, [u8]>>) -> Value {
        self.0.push(Buffer(parts));
        Value::Buffer(kind, self.0.len() as u32 - 1)
    }

    /// Adds bytes.
    pub fn u8s(&mut self, bytes: &[u8]) -> Value {
        self.add(Kind::U8, bytes.to_vec())
    }

    /// Adds 16-bit numbers.
    pub fn u16s(&mut self, numbers: impl IntoIterator<Item = u16>) -> Value {
        self.add(Kind::U16, numbers.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
    }

    /// Adds 32-bit numbers.
    pub fn u32s(&mut self, numbers: impl IntoIterator<Item = u32>) -> Value {
        self.add(Kind::U32, numbers.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>())
    }

    /// Adds 32-bit numbers that v86 has as signed ones.
    pub fn i32s(&mut self, numbers: impl IntoIterator<Item = u32>) -> Value {
        self.add(Kind::I32, numbers.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>())
    }

    /// Adds floating point numbers.
    pub fn f64s(&mut self, numbers: impl IntoIterator<Item = f64>) -> Value {
        self.add(Kind::F64, numbers.into_iter().flat_map(f64::to_le_bytes).collect::<Vec<_>>())
    }
}

/// A state that is ready to be written.
#[derive(Debug)]
pub struct Saved<'a> {
    head: Vec<u8>,
    buffers: Vec<Buffer<'a>>,
}

impl<'a> Saved<'a> {
    /// Puts a state together. The first buffer comes to lie at a multiple of [`PAGE`].
    pub fn new(
        state: &Value,
        buffers: Buffers<'a>,
        ours: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, StateError> {
        use fmt::Write;
        let Buffers(buffers) = buffers;
        let mut text = String::from_utf8_lossy(CHECKED).into_owned();
        text.extend(std::iter::repeat_n('0', DIGITS));
        text.push('"');
        for (key, value) in &ours {
            _ = write!(text, ",{}:{value}", serde_json::Value::from(key.as_str()));
        }
        text.push_str(",\"buffers\":[");
        for (i, buffer) in buffers.iter().enumerate() {
            _ = write!(text, "{}\"{}\"", if i == 0 { "" } else { "," }, hex(buffer.checksum()));
        }
        text.push_str("]},\"buffer_infos\":[");
        let mut offset = 0;
        for (i, buffer) in buffers.iter().enumerate() {
            let (comma, length) = (if i == 0 { "" } else { "," }, buffer.len());
            _ = write!(text, "{comma}{{\"offset\":{offset},\"length\":{length}}}");
            offset = align4(offset + length);
        }
        text.push_str("],\"state\":");
        state.write(&mut text);
        text.push('}');
        if text.len() > MAX_INFO - PAGE || buffers.len() > MAX_BUFFERS {
            return Err(StateError::TooManyPieces(buffers.len()));
        }
        let area = (HEADER + text.len()).next_multiple_of(PAGE);
        text.extend(std::iter::repeat_n(' ', area - HEADER - text.len()));
        let total = area + offset;
        if total > i32::MAX as usize {
            return Err(StateError::TooLarge(total as u64));
        }
        let mut head = Vec::with_capacity(area);
        for word in [MAGIC, VERSION, total as u32, text.len() as u32] {
            head.extend(word.to_le_bytes());
        }
        let sum = checksum_of_info(&head, text.as_bytes());
        head.extend(text.into_bytes());
        let digits = HEADER + CHECKED.len();
        head[digits..digits + DIGITS].copy_from_slice(sum.as_bytes());
        Ok(Self { head, buffers })
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// Whether there is nothing, which cannot be.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The file's bytes from the beginning to the end, in pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        const ZEROS: [u8; 3] = [0; 3];
        let buffers = self.buffers.iter().flat_map(|buffer| {
            let padding = align4(buffer.len()) - buffer.len();
            buffer.0.iter().map(|part| &**part).chain([&ZEROS[..padding]])
        });
        std::iter::once(&self.head[..]).chain(buffers)
    }

    /// The whole file in memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Info;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with buffer_infos and state")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Info, A::Error> {
                use serde::de::Error;
                let (mut buffers, mut state, mut ours) = (None, None, serde_json::Value::Null);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "buffer_infos" => buffers = Some(map.next_value::<Vec<BufferInfo>>()?),
                        "state" => state = Some(map.next_value()?),
                        "env86" => ours = map.next_value()?,
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                let buffers = buffers.ok_or_else(|| A::Error::missing_field("buffer_infos"))?;
                if buffers.len() > MAX_BUFFERS {
                    return Err(A::Error::custom(format_args!("more than {MAX_BUFFERS} buffers")));
                }
                let state = state.ok_or_else(|| A::Error::missing_field("state"))?;
                Ok(Info { buffers, state, ours })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl<'de> Deserialize<'de> for BufferInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = BufferInfo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with offset and length")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BufferInfo, A::Error> {
                use serde::de::Error;
                let (mut offset, mut length) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "offset" => offset = Some(map.next_value()?),
                        "length" => length = Some(map.next_value()?),
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(BufferInfo {
                    offset: offset.ok_or_else(|| A::Error::missing_field("offset"))?,
                    length: length.ok_or_else(|| A::Error::missing_field("length"))?,
                })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut buffers = Buffers::default();
        let memory = buffers.add(Kind::U8, vec![7; 5]);
        let numbers = buffers.i32s([1, u32::MAX]);
        let state = Value::from(vec![memory, numbers, Value::from("x")]);
        let ours = serde_json::from_str(r#"{"version":1}"#).unwrap();
        Saved::new(&state, buffers, ours).unwrap().to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample();
        assert_eq!(bytes.len() % PAGE, 16);
        let container = Container::parse(&bytes).unwrap();
        assert_eq!(container.state.at(2), &Value::from("x"));
        assert_eq!(container.range(0).unwrap().start % PAGE, 0);
        assert_eq!(container.buffer(0).unwrap(), [7; 5]);
        assert_eq!(container.buffer(1).unwrap(), [1, 0, 0, 0, 255, 255, 255, 255]);
        assert!(container.buffer(2).is_err());
        assert_eq!(container.ours["version"], 1);
    }

    #[test]
    fn every_flipped_bit_is_seen_or_harmless() {
        let good = sample();
        let state = Container::parse(&good).unwrap().state;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            if let Ok(container) = Container::parse(&bad) {
                assert_eq!(container.state, state, "byte {at}");
                let same = (0..2).all(|id| {
                    container.buffer(id).unwrap() == {
                        let range = container.range(id).unwrap();
                        &good[range]
                    }
                });
                assert!(same, "byte {at}");
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let good = sample();
        for len in 0..good.len() {
            assert!(Container::parse(&good[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn what_is_no_state_is_said() {
        assert!(matches!(Container::parse(&[0; 20]), Err(StateError::NoState)));
        let compressed = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(Container::parse(&compressed), Err(StateError::Compressed)));
        let mut old = sample();
        old[4] = 5;
        assert!(matches!(Container::parse(&old), Err(StateError::Version(5))));
        let mut huge = sample();
        huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Container::parse(&huge), Err(StateError::Header)));
    }
}
