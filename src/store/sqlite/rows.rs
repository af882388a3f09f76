//! Between our types and SQLite's: integers are signed, and what can't be read is said by name.

use crate::clock::Timestamp;
use crate::revocation::{DenialKey, StoreError};
use rusqlite::{Error, ErrorCode};
use std::time::Duration;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let odd_row = matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows
        );
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::NotWritable(error.into())
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt("the database file"),
            None if odd_row => Self::Corrupt("a row"),
            Some(_) | None => Self::Unavailable(error.into()),
        }
    }
}

/// Tells each of a batch what went wrong with the whole.
pub(super) fn same_failure(error: &StoreError) -> StoreError {
    let told = |source: &(dyn std::error::Error + Send + Sync)| source.to_string().into();
    match error {
        StoreError::Unavailable(source) => StoreError::Unavailable(told(source.as_ref())),
        StoreError::NotWritable(source) => StoreError::NotWritable(told(source.as_ref())),
        StoreError::Corrupt(place) => StoreError::Corrupt(place),
    }
}

/// Saturates: the end of time stays far away.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn at(instant: Timestamp) -> i64 {
    signed(instant.as_millis())
}

pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64, place: &'static str) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt(place))
}

pub(super) fn instant(value: i64, place: &'static str) -> Result<Timestamp, StoreError> {
    unsigned(value, place).map(Timestamp::from_millis)
}

/// A key's bytes, empty for none.
pub(super) fn optional_key(key: Option<DenialKey>) -> Vec<u8> {
    key.map_or_else(Vec::new, |key| key.to_bytes().to_vec())
}

pub(super) fn read_optional_key(
    bytes: Vec<u8>,
    place: &'static str,
) -> Result<Option<DenialKey>, StoreError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt(place))?;
    Ok(Some(DenialKey::from_bytes(bytes)))
}
