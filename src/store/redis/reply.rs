//! Between our types and a script's: numbers are doubles there, keys raw bytes, and what can't be read is said by name.

use crate::clock::Timestamp;
use crate::revocation::{DenialKey, StoreError};
use crate::token::Revision;
use redis::Value;
use std::time::Duration;

/// Larger numbers are not whole in Lua; an instant this late is the end of time.
const MOST: u64 = (1 << 53) - 1;

/// A script's arguments after the five that each takes.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<Vec<u8>>);

impl Arguments {
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.push(bytes.to_vec());
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// At most 2^53 - 1.
    pub(super) fn number(self, number: u64) -> Self {
        self.text(&number.min(MOST).to_string())
    }

    pub(super) fn at(self, at: Timestamp) -> Self {
        self.number(at.as_millis())
    }

    pub(super) fn span(self, span: Duration) -> Self {
        self.number(u64::try_from(span.as_millis()).unwrap_or(MOST))
    }

    pub(super) fn key(self, key: DenialKey) -> Self {
        self.bytes(&key.to_bytes())
    }

    pub(super) fn nothing(self) -> Self {
        self.bytes(&[])
    }

    pub(super) fn flag(self, flag: bool) -> Self {
        self.text(if flag { "1" } else { "" })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

/// An array that a script answered with, read from its beginning.
#[derive(Debug)]
pub(super) struct Reply {
    values: std::vec::IntoIter<Value>,
    place: &'static str,
}

impl Reply {
    pub(super) fn new(value: Value, place: &'static str) -> Result<Self, StoreError> {
        let Value::Array(values) = value else { return Err(StoreError::Corrupt(place)) };
        Ok(Self { values: values.into_iter(), place })
    }

    pub(super) fn odd(&self) -> StoreError {
        StoreError::Corrupt(self.place)
    }

    fn next(&mut self) -> Result<Value, StoreError> {
        self.values.next().ok_or(StoreError::Corrupt(self.place))
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let value = self.next()?;
        let number = if let Value::Int(number) = value {
            u64::try_from(number).ok()
        } else if let Value::BulkString(bytes) = value {
            std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok())
        } else {
            None
        };
        number.ok_or_else(|| self.odd())
    }

    pub(super) fn at(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(instant)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        let Value::BulkString(bytes) = self.next()? else { return Err(self.odd()) };
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| self.odd())
    }

    pub(super) fn raw<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| self.odd())
    }

    pub(super) fn key(&mut self) -> Result<DenialKey, StoreError> {
        self.raw().map(DenialKey::from_bytes)
    }

    /// Epoch and number: how every answer begins.
    pub(super) fn revision(&mut self) -> Result<Revision, StoreError> {
        let epoch = self.epoch()?;
        Ok(Revision { epoch, seq: self.number()? })
    }

    pub(super) fn epoch(&mut self) -> Result<u64, StoreError> {
        let text = self.text()?;
        u64::from_str_radix(&text, 16).map_err(|_| self.odd())
    }

    pub(super) fn array(&mut self, place: &'static str) -> Result<Self, StoreError> {
        Self::new(self.next()?, place)
    }

    /// An array, or nothing.
    pub(super) fn optional(&mut self, place: &'static str) -> Result<Option<Self>, StoreError> {
        let value = self.next()?;
        if value == Value::Nil { Ok(None) } else { Self::new(value, place).map(Some) }
    }

    pub(super) fn arrays(mut self) -> impl Iterator<Item = Result<Self, StoreError>> {
        let place = self.place;
        std::iter::from_fn(move || self.values.next()).map(move |value| Self::new(value, place))
    }

    /// How many values are left.
    pub(super) fn left(&self) -> usize {
        self.values.len()
    }
}

pub(super) fn instant(millis: u64) -> Timestamp {
    if millis >= MOST { Timestamp::MAX } else { Timestamp::from_millis(millis) }
}

/// An epoch as scripts keep it.
pub(super) fn hexadecimal(epoch: u64) -> String {
    format!("{epoch:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_time_survives() {
        let mut sent = Vec::new();
        let arguments =
            Arguments::default().at(Timestamp::MAX).at(Timestamp::from_millis(MOST - 1)).number(u64::MAX);
        for argument in arguments.iter() {
            sent.push(Value::BulkString(argument.to_vec()));
        }
        let mut reply = Reply::new(Value::Array(sent), "a test").unwrap();
        assert_eq!(reply.at().unwrap(), Timestamp::MAX);
        assert_eq!(reply.at().unwrap(), Timestamp::from_millis(MOST - 1));
        assert_eq!(reply.number().unwrap(), MOST);
        assert!(reply.number().is_err(), "there is no more");
    }

    #[test]
    fn what_no_script_answers_is_said_by_name() {
        assert!(matches!(Reply::new(Value::Nil, "place"), Err(StoreError::Corrupt("place"))));
        for odd in [Value::Nil, Value::Int(-1), Value::BulkString(b"1x".to_vec()), Value::Array(Vec::new())] {
            let mut reply = Reply::new(Value::Array(vec![odd]), "place").unwrap();
            assert!(matches!(reply.number(), Err(StoreError::Corrupt("place"))));
        }
    }
}
