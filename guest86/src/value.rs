//! Values on a channel: a big-endian word of length, then one item of CBOR (RFC 8949).

use ciborium::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Bytes that a value may have. Files in one value have to fit; larger ones are streamed.
pub const MAX_VALUE: usize = 256 << 20;
/// Values in values.
const MAX_DEPTH: usize = 32;

/// Why a channel's bytes are no value.
#[derive(Debug, Error)]
pub enum ValueError {
    /// It says that it is longer than any may be.
    #[error("a value of {0} bytes is too large")]
    TooLarge(usize),
    /// It is not CBOR, or not of the wanted shape.
    #[error("{0}")]
    Malformed(String),
}

impl<T: std::fmt::Display> From<ciborium::de::Error<T>> for ValueError {
    fn from(error: ciborium::de::Error<T>) -> Self {
        Self::Malformed(match error {
            ciborium::de::Error::Io(_) => "cbor: unexpected end".into(),
            ciborium::de::Error::Syntax(at) => format!("cbor: malformed at byte {at}"),
            ciborium::de::Error::Semantic(_, text) => format!("cbor: {text}"),
            ciborium::de::Error::RecursionLimitExceeded => "cbor: too many levels".into(),
        })
    }
}

/// Appends a value, with its length, to a channel's bytes.
///
/// # Panics
/// If the value's `Serialize` fails, which none here does: memory takes all bytes.
pub fn encode(value: &impl Serialize, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    ciborium::into_writer(value, &mut *bytes).expect("a value can be written to memory");
    let len = (bytes.len() - start - 4) as u32;
    bytes[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// A value with its length.
pub fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    bytes
}

/// Makes values of a channel's bytes, in whatever pieces they come.
#[derive(Debug, Default)]
pub struct Values {
    bytes: Vec<u8>,
    /// Bytes at the front that have been dealt with.
    done: usize,
}

impl Values {
    /// Takes bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.done > 0 {
            self.bytes.drain(..self.done);
            self.done = 0;
        }
        self.bytes.extend(bytes);
    }

    /// The next value, with the count of bytes that it took, if all of it is there.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<(T, usize)>, ValueError> {
        let Some(item) = self.item()? else { return Ok(None) };
        let (value, len) = (decode(item)?, item.len());
        self.done += 4 + len;
        Ok(Some((value, 4 + len)))
    }

    /// The next value as it came: for those that are not worth a copy. It stays the next one until [`Values::skip`].
    pub fn item(&self) -> Result<Option<&[u8]>, ValueError> {
        let Some((head, rest)) = self.bytes[self.done..].split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        if len > MAX_VALUE {
            return Err(ValueError::TooLarge(len));
        }
        Ok(rest.get(..len))
    }

    /// Has dealt with the next value, of so many bytes.
    pub fn skip(&mut self, len: usize) {
        self.done = (self.done + 4 + len).min(self.bytes.len());
    }

    /// Bytes that have come and are not a whole value yet.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.done
    }

    /// What has come and was no value: of a channel that now carries plain bytes.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.done);
        *self = Self::default();
        rest
    }
}

/// Reads one item of CBOR.
fn decode<T: DeserializeOwned>(item: &[u8]) -> Result<T, ValueError> {
    let mut left = item;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut left, MAX_DEPTH)?;
    if !left.is_empty() {
        return Err(ValueError::Malformed(format!("cbor: {} bytes too many", left.len())));
    }
    Ok(value)
}

/// The positional arguments of a call, as the function that is called wants them.
pub fn arguments<T: DeserializeOwned>(value: Value, count: usize) -> Result<T, ValueError> {
    let list = match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list,
        _ => return Err(ValueError::Malformed("fn: args: not an array".into())),
    };
    if list.len() != count {
        return Err(ValueError::Malformed(format!("fn: expected {count} params, got {}", list.len())));
    }
    Value::Array(list).deserialized().map_err(|error| ValueError::Malformed(format!("fn: args: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Pair {
        a: Option<u32>,
        b: String,
    }

    #[test]
    fn values_come_in_pieces_and_several_at_once() {
        let pairs = [Pair { a: None, b: "x".into() }, Pair { a: Some(70_000), b: String::new() }];
        let mut bytes = Vec::new();
        pairs.iter().for_each(|pair| encode(pair, &mut bytes));
        for len in 1..=bytes.len() {
            let (mut values, mut seen) = (Values::default(), Vec::new());
            for piece in bytes.chunks(len) {
                values.feed(piece);
                while let Some((pair, _)) = values.read::<Pair>().unwrap() {
                    seen.push(pair);
                }
            }
            assert_eq!(seen, pairs);
        }
    }

    #[test]
    fn what_browsers_and_others_write_is_read() {
        let read = |item: &[u8]| {
            let mut values = Values::default();
            values.feed(&(item.len() as u32).to_be_bytes());
            values.feed(item);
            values.read::<Pair>().map(|pair| pair.unwrap().0)
        };
        // A count in 16 bits and undefined; an unknown key; no keys; indefinite lengths.
        let pairs: [&[u8]; 4] = [
            b"\xb9\x00\x02\x61a\xf7\x61b\x61x",
            b"\xa3\x61z\x80\x61a\xf6\x61b\x61x",
            b"\xa1\x61b\x61x",
            b"\xbf\x61b\x7f\x61x\xff\xff",
        ];
        for item in pairs {
            assert_eq!(read(item).unwrap(), Pair { a: None, b: "x".into() }, "{item:x?}");
        }
        for item in [&b"\xa1"[..], b"\xa0\xa0", b"\x61x", &[0x81; 100]] {
            assert!(read(item).is_err(), "{item:x?}");
        }
    }

    #[test]
    fn a_value_without_bounds_is_refused() {
        let mut values = Values::default();
        values.feed(&[0xff; 8]);
        assert!(matches!(values.read::<Pair>(), Err(ValueError::TooLarge(0xffff_ffff))));
    }

    #[test]
    fn arguments_are_counted() {
        let list = Value::Array(vec!["x".into(), 5.into()]);
        assert_eq!(arguments::<(String, u8)>(list.clone(), 2).unwrap(), ("x".into(), 5));
        let error = arguments::<(String,)>(list, 1).unwrap_err();
        assert_eq!(error.to_string(), "fn: expected 1 params, got 2");
        assert!(arguments::<[u8; 0]>(Value::Null, 0).is_ok());
        assert!(arguments::<(String,)>("x".into(), 1).is_err());
    }
}
