//! The values of a state's JSON: numbers, lists, and references to buffers.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The element type of a buffer, by the name of its JavaScript array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Uint8Array`.
    U8,
    /// `Int8Array`.
    I8,
    /// `Uint16Array`.
    U16,
    /// `Int16Array`.
    I16,
    /// `Uint32Array`.
    U32,
    /// `Int32Array`.
    I32,
    /// `Float32Array`.
    F32,
    /// `Float64Array`.
    F64,
}

impl Kind {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::U8, "Uint8Array"),
        (Self::I8, "Int8Array"),
        (Self::U16, "Uint16Array"),
        (Self::I16, "Int16Array"),
        (Self::U32, "Uint32Array"),
        (Self::I32, "Int32Array"),
        (Self::F32, "Float32Array"),
        (Self::F64, "Float64Array"),
    ];

    /// The kind of a JavaScript array's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(_, n)| *n == name).map(|(kind, _)| kind)
    }

    /// The name of the JavaScript array.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// Bytes in an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// An element from its bytes; missing ones are zero.
    pub fn number(self, bytes: &[u8]) -> f64 {
        let mut raw = [0; 8];
        let n = bytes.len().min(self.bytes());
        raw[..n].copy_from_slice(&bytes[..n]);
        let bits = u64::from_le_bytes(raw);
        match self {
            Self::U8 | Self::U16 | Self::U32 => bits as f64,
            Self::I8 => f64::from(bits as i8),
            Self::I16 => f64::from(bits as i16),
            Self::I32 => f64::from(bits as i32),
            Self::F32 => f64::from(f32::from_bits(bits as u32)),
            Self::F64 => f64::from_bits(bits),
        }
    }
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`: nothing, a hole, no such device.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; all that v86 stores fit a double exactly.
    Number(f64),
    /// A string.
    Text(Box<str>),
    /// A list, which is also how v86 writes an object: its fields by position.
    List(Vec<Value>),
    /// A typed array: element type and number of the buffer.
    Buffer(Kind, u32),
    /// A map: its pairs.
    Map(Vec<Value>),
}

impl Value {
    /// A list's elements; nothing else has any.
    pub fn list(&self) -> Option<&[Value]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The element of a list; `null` where there is none.
    pub fn at(&self, index: usize) -> &Value {
        static NULL: Value = Value::Null;
        self.list().and_then(|list| list.get(index)).unwrap_or(&NULL)
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// What kind of value this is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Buffer(..) => "a typed array",
            Self::Map(_) => "a map",
        }
    }

    /// Appends the value as JSON.
    pub fn write(&self, out: &mut String) {
        use fmt::Write;
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(n) if !n.is_finite() => out.push_str("null"),
            Self::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => _ = write!(out, "{}", *n as i64),
            Self::Number(n) => _ = write!(out, "{n:?}"),
            Self::Text(text) => write_text(text, out),
            Self::List(list) => write_list(list, out),
            Self::Buffer(kind, id) => {
                _ = write!(out, "{{\"__state_type__\":\"{}\",\"buffer_id\":{id}}}", kind.name());
            }
            Self::Map(pairs) => {
                out.push_str("{\"__state_type__\":\"Map\",\"args\":");
                write_list(pairs, out);
                out.push('}');
            }
        }
    }
}

fn write_list(list: &[Value], out: &mut String) {
    out.push('[');
    for (i, value) in list.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        value.write(out);
    }
    out.push(']');
}

fn write_text(text: &str, out: &mut String) {
    use fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\x1f' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            _ => out.push(c),
        }
    }
    out.push('"');
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Self {
        Self::List(value)
    }
}

macro_rules! from_integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::Number(f64::from(value))
            }
        }
    )*};
}
from_integers!(u8, u16, u32, i32);

/// Large integers: exact up to 2^53, which is what v86's own arithmetic has.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Number(value as f64)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(value as f64)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a state")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        list.shrink_to_fit();
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut kind, mut id, mut args) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "__state_type__" => kind = Some(map.next_value::<String>()?),
                "buffer_id" => id = Some(map.next_value::<u32>()?),
                "args" => args = Some(map.next_value::<Vec<Value>>()?),
                _ => return Err(A::Error::custom(format_args!("unknown key `{key}` in an object"))),
            }
        }
        let kind = kind.ok_or_else(|| A::Error::custom("an object without a __state_type__"))?;
        match (Kind::from_name(&kind), id, args) {
            (Some(kind), Some(id), None) => Ok(Value::Buffer(kind, id)),
            (None, None, Some(args)) if kind == "Map" => Ok(Value::Map(args)),
            _ => Err(A::Error::custom(format_args!("unknown type `{kind}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trip() {
        let text = r#"[1,-5,0.9765625,true,null,"a\"\\\u0001é",[],{"__state_type__":"Int32Array","buffer_id":3},{"__state_type__":"Map","args":[[1,2]]}]"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let mut out = String::new();
        value.write(&mut out);
        assert_eq!(out, text);
        assert_eq!(value.at(7), &Value::Buffer(Kind::I32, 3));
        assert!(value.at(99).is_null());
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for text in [
            "{}",
            r#"{"__state_type__":"BigInt64Array","buffer_id":1}"#,
            r#"{"__state_type__":"Uint8Array"}"#,
        ] {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn elements_have_their_signs() {
        assert_eq!(Kind::I32.number(&[0xff; 4]), -1.0);
        assert_eq!(Kind::U16.number(&[0xff; 2]), 65535.0);
        assert_eq!(Kind::F64.number(&1.5f64.to_le_bytes()), 1.5);
    }
}
