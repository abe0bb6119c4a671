//! An entry of the state as fields with names. The layouts are the only place that knows positions.

use super::StateError;
use super::container::Container;
use super::top;
use super::value::Value;
use std::borrow::Cow;
use std::ops::Range;

/// Elements of the arrays that are read number by number at most.
const MAX_NUMBERS: usize = 4096;

/// The fields of an entry in the order of their positions; `""` is a position that v86 leaves empty.
#[derive(Debug)]
pub(super) struct Layout {
    pub name: &'static str,
    pub fields: &'static [&'static str],
}

impl Layout {
    /// Where a field is.
    pub fn position(&self, field: &str) -> usize {
        let found = self.fields.iter().position(|name| *name == field);
        debug_assert!(found.is_some(), "{} has no field {field}", self.name);
        found.unwrap_or(usize::MAX)
    }
}

/// An entry that is being read.
#[derive(Clone)]
pub(super) struct Record<'a> {
    pub layout: &'static Layout,
    pub fields: &'a [Value],
    pub container: &'a Container<'a>,
    /// Where the entry is, for messages.
    path: Cow<'static, str>,
}

impl<'a> Record<'a> {
    /// The entry in a value, which has to be a list.
    pub fn new(
        layout: &'static Layout,
        value: &'a Value,
        container: &'a Container<'a>,
        path: impl Into<Cow<'static, str>>,
    ) -> Result<Self, StateError> {
        let path = path.into();
        match value.list() {
            Some(fields) => Ok(Self { layout, fields, container, path }),
            None => Err(StateError::Entry { path: path.into(), problem: format!("is {}", value.what()) }),
        }
    }

    /// Where the entry is, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of a field; `null` where it is missing.
    pub fn get(&self, field: &str) -> &'a Value {
        static NULL: Value = Value::Null;
        self.fields.get(self.layout.position(field)).unwrap_or(&NULL)
    }

    /// What is wrong with a field.
    pub fn wrong(&self, field: &str, problem: impl Into<String>) -> StateError {
        StateError::Entry { path: self.path_of(field), problem: problem.into() }
    }

    /// Where a field is: the top level has none, and its fields are the entries.
    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { top::path(field) } else { format!("{}, {field}", self.path) }
    }

    fn unexpected<T>(&self, field: &str, value: &Value) -> Result<T, StateError> {
        Err(self.wrong(field, format!("is {}", value.what())))
    }

    /// A number.
    pub fn f64(&self, field: &str) -> Result<f64, StateError> {
        match self.get(field) {
            Value::Number(n) if n.is_finite() => Ok(*n),
            other => self.unexpected(field, other),
        }
    }

    /// A number, or `null` for zero: JSON has no other way to write what is not finite.
    pub fn f64_or_zero(&self, field: &str) -> Result<f64, StateError> {
        if self.get(field).is_null() { Ok(0.0) } else { self.f64(field) }
    }

    /// A 32-bit number, signed or not.
    pub fn u32(&self, field: &str) -> Result<u32, StateError> {
        match self.get(field) {
            Value::Bool(value) => Ok((*value).into()),
            Value::Number(n) => {
                bits(*n).ok_or_else(|| self.wrong(field, format!("is {n}, not a whole number of 32 bits")))
            }
            other => self.unexpected(field, other),
        }
    }

    /// The same, with a value for a state that does not have the field.
    pub fn u32_or(&self, field: &str, default: u32) -> Result<u32, StateError> {
        if self.get(field).is_null() { Ok(default) } else { self.u32(field) }
    }

    /// The low 16 bits of a number.
    pub fn u16(&self, field: &str) -> Result<u16, StateError> {
        Ok(self.u32(field)? as u16)
    }

    /// The low 8 bits of a number.
    pub fn u8(&self, field: &str) -> Result<u8, StateError> {
        Ok(self.u32(field)? as u8)
    }

    /// A boolean, or a number that is zero or not.
    pub fn bool(&self, field: &str) -> Result<bool, StateError> {
        match self.get(field) {
            Value::Bool(value) => Ok(*value),
            Value::Number(n) => Ok(*n != 0.0),
            other => self.unexpected(field, other),
        }
    }

    /// The same, false in a state that does not have the field.
    pub fn bool_or_false(&self, field: &str) -> Result<bool, StateError> {
        if self.get(field).is_null() { Ok(false) } else { self.bool(field) }
    }

    /// A whole number that is not negative, of up to 53 bits.
    pub fn u64(&self, field: &str) -> Result<u64, StateError> {
        let n = self.f64(field)?;
        whole(n).ok_or_else(|| self.wrong(field, format!("is {n}, not a whole number")))
    }

    /// The list in a field.
    pub fn list(&self, field: &str) -> Result<&'a [Value], StateError> {
        let value = self.get(field);
        value.list().map_or_else(|| self.unexpected(field, value), Ok)
    }

    /// The entry in a field.
    pub fn record(&self, layout: &'static Layout, field: &str) -> Result<Record<'a>, StateError> {
        Record::new(layout, self.get(field), self.container, self.path_of(field))
    }

    /// Where a typed array is in the file.
    pub fn range(&self, field: &str) -> Result<Range<usize>, StateError> {
        match self.get(field) {
            Value::Buffer(_, id) => self.container.range(*id).map_err(|e| self.wrong(field, e.to_string())),
            other => self.unexpected(field, other),
        }
    }

    /// The bytes of a typed array of at least `least` bytes.
    pub fn bytes(&self, field: &str, least: usize) -> Result<&'a [u8], StateError> {
        let bytes = &self.container.bytes[self.range(field)?];
        if bytes.len() < least {
            let problem = format!("has {} bytes where {least} are needed", bytes.len());
            return Err(self.wrong(field, problem));
        }
        Ok(bytes)
    }

    /// The numbers of a typed array or a list, of which there have to be `N`.
    fn numbers<const N: usize>(&self, field: &str) -> Result<[f64; N], StateError> {
        debug_assert!(N <= MAX_NUMBERS);
        let mut numbers = [0.0; N];
        let have = match self.get(field) {
            Value::Buffer(kind, id) => {
                let buffer = self.container.buffer(*id).map_err(|e| self.wrong(field, e.to_string()))?;
                let elements = buffer.chunks_exact(kind.bytes());
                numbers.iter_mut().zip(elements).map(|(n, e)| *n = kind.number(e)).count()
            }
            Value::List(list) => {
                let elements = list.iter().map(|v| if let Value::Number(n) = v { *n } else { 0.0 });
                numbers.iter_mut().zip(elements).map(|(n, e)| *n = e).count()
            }
            other => return self.unexpected(field, other),
        };
        if have < N {
            return Err(self.wrong(field, format!("has {have} elements where {N} are needed")));
        }
        Ok(numbers)
    }

    /// An array of 32-bit numbers.
    pub fn u32s<const N: usize>(&self, field: &str) -> Result<[u32; N], StateError> {
        Ok(self.numbers::<N>(field)?.map(|n| bits(n).unwrap_or(0)))
    }

    /// An array of 16-bit numbers.
    pub fn u16s<const N: usize>(&self, field: &str) -> Result<[u16; N], StateError> {
        Ok(self.u32s::<N>(field)?.map(|n| n as u16))
    }

    /// An array of bytes.
    pub fn u8s<const N: usize>(&self, field: &str) -> Result<[u8; N], StateError> {
        Ok(self.u32s::<N>(field)?.map(|n| n as u8))
    }

    /// An array of finite floating point numbers.
    pub fn f64s<const N: usize>(&self, field: &str) -> Result<[f64; N], StateError> {
        Ok(self.numbers::<N>(field)?.map(|n| if n.is_finite() { n } else { 0.0 }))
    }
}

/// The 32 bits of a number that is whole and signed or unsigned.
pub(super) fn bits(n: f64) -> Option<u32> {
    let range = -2_147_483_648.0..=4_294_967_295.0;
    (range.contains(&n) && n.fract() == 0.0).then_some(n as i64 as u32)
}

/// A whole number that is not negative, as far as doubles are exact.
pub(super) fn whole(n: f64) -> Option<u64> {
    ((0.0..=9_007_199_254_740_992.0).contains(&n) && n.fract() == 0.0).then_some(n as u64)
}

/// An entry that is being written.
pub(super) struct Entry {
    layout: &'static Layout,
    fields: Vec<Value>,
}

impl Entry {
    /// An entry of which nothing is set.
    pub fn new(layout: &'static Layout) -> Self {
        Self { layout, fields: vec![Value::Null; layout.fields.len()] }
    }

    /// Sets a field.
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.put(field, value);
        self
    }

    /// Sets a field of an entry that stays where it is.
    pub fn put(&mut self, field: &str, value: impl Into<Value>) {
        let at = self.layout.position(field);
        if let Some(slot) = self.fields.get_mut(at) {
            *slot = value.into();
        }
    }

    /// The entry.
    pub fn value(self) -> Value {
        Value::List(self.fields)
    }
}

/// A 32-bit value as v86 has most of its registers: signed.
pub(super) fn signed(value: u32) -> Value {
    Value::from(value as i32)
}

/// A truth as v86's processor and interrupt controllers have it.
pub(super) fn flag(value: bool) -> Value {
    Value::from(u8::from(value))
}
