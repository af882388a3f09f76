//! Between our types and Postgres': integers are signed, and what can't be read is said by name.

use super::failed::Failed;
use crate::clock::Timestamp;
use crate::revocation::entry::expiry_from_secs;
use crate::revocation::{DenialKey, Entry, EntryKind, StoreError};
use crate::session::record::SessionRecord;
use crate::token::{Revision, SessionId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

/// The columns of a session's record, in the order that [`record`] reads them.
macro_rules! record_columns {
    () => {
        "s.id, s.issuer, s.subject, s.policy, s.client_id, s.device, s.attributes, s.attributes_version, \
         s.created_at, s.last_active_at, s.idle, s.absolute_end, s.generation, s.generation_began"
    };
}

/// The server's clock in ms.
macro_rules! clock {
    () => {
        "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// That no cut-off of its issuer hits the session `s`.
macro_rules! not_cut_off {
    () => {
        "NOT EXISTS (SELECT FROM stamp t WHERE t.key = s.issuer_key AND t.cutoff >= s.created_at)"
    };
}

pub(super) use {clock, not_cut_off, record_columns};

/// Saturates: the end of time stays far away.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn at(instant: Timestamp) -> i64 {
    signed(instant.as_millis())
}

/// Saturates where a sum with an instant can't overflow.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

pub(super) fn column<'a, T: FromSql<'a>>(
    row: &'a Row,
    place: usize,
    name: &'static str,
) -> Result<T, Failed> {
    row.try_get(place).map_err(|_| corrupt(name))
}

pub(super) fn unsigned(row: &Row, place: usize, name: &'static str) -> Result<u64, Failed> {
    u64::try_from(column::<i64>(row, place, name)?).map_err(|_| corrupt(name))
}

pub(super) fn instant(row: &Row, place: usize, name: &'static str) -> Result<Timestamp, Failed> {
    unsigned(row, place, name).map(Timestamp::from_millis)
}

/// 16 bytes.
pub(super) fn sixteen(row: &Row, place: usize, name: &'static str) -> Result<[u8; 16], Failed> {
    column::<&[u8]>(row, place, name)?.try_into().map_err(|_| corrupt(name))
}

/// `epoch, seq` at the row's beginning.
pub(super) fn revision(row: &Row) -> Result<Revision, Failed> {
    Ok(Revision { epoch: unsigned(row, 0, "head.epoch")?, seq: unsigned(row, 1, "head.seq")? })
}

/// An entry as the log's columns have it, its expiry rounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) kind: i16,
    pub(super) key: Vec<u8>,
    pub(super) except: Vec<u8>,
    pub(super) instant: i64,
    pub(super) expires: i64,
}

impl Columns {
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.kind, &self.key, &self.except, &self.instant, &self.expires]
    }

    /// Whether this hits as much as the other, for as long.
    fn covers(&self, other: &Self) -> bool {
        (self.kind, &self.key, &self.except) == (other.kind, &other.key, &other.except)
            && self.instant >= other.instant
            && self.expires >= other.expires
    }
}

/// Many entries, as arrays, without those that another of them covers.
#[derive(Debug, Default)]
pub(super) struct Many {
    kinds: Vec<i16>,
    keys: Vec<Vec<u8>>,
    excepts: Vec<Vec<u8>>,
    instants: Vec<i64>,
    expiries: Vec<i64>,
}

impl Many {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut kept: HashMap<_, Vec<Columns>> = HashMap::new();
        let all: Vec<_> = entries.iter().map(columns).collect();
        for one in &all {
            let alike = kept.entry((one.kind, one.key.clone(), one.except.clone())).or_default();
            if !alike.iter().any(|other| other.covers(one)) {
                alike.retain(|other| !one.covers(other));
                alike.push(one.clone());
            }
        }
        let mut many = Self::default();
        for one in all {
            let Some(alike) = kept.get_mut(&(one.kind, one.key.clone(), one.except.clone())) else {
                continue;
            };
            let Some(place) = alike.iter().position(|other| *other == one) else { continue };
            alike.swap_remove(place);
            many.kinds.push(one.kind);
            many.keys.push(one.key);
            many.excepts.push(one.except);
            many.instants.push(one.instant);
            many.expiries.push(one.expires);
        }
        many
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.kinds, &self.keys, &self.excepts, &self.instants, &self.expiries]
    }
}

pub(super) fn columns(entry: &Entry) -> Columns {
    let (kind, except, instant) = match entry.kind {
        EntryKind::Token => (1, None, 0),
        EntryKind::Session => (2, None, 0),
        EntryKind::SubjectBefore { cutoff, except } => (3, except, at(cutoff)),
        EntryKind::IssuerBefore { cutoff } => (4, None, at(cutoff)),
        EntryKind::ClaimsBefore { version } => (5, None, signed(version)),
    };
    Columns {
        kind,
        key: entry.key.to_bytes().to_vec(),
        except: optional_key(except),
        instant,
        expires: i64::from(entry.expiry_secs()),
    }
}

/// `kind, key, except_key, instant, expires` from this place on.
pub(super) fn entry(row: &Row, place: usize) -> Result<Entry, Failed> {
    let kind: i16 = column(row, place, "log.kind")?;
    let key = DenialKey::from_bytes(sixteen(row, place + 1, "log.key")?);
    let except: &[u8] = column(row, place + 2, "log.except_key")?;
    let except = match except {
        [] => None,
        bytes => Some(DenialKey::from_bytes(bytes.try_into().map_err(|_| corrupt("log.except_key"))?)),
    };
    let at = unsigned(row, place + 3, "log.instant")?;
    let cutoff = Timestamp::from_millis(at);
    let kind = match kind {
        1 => EntryKind::Token,
        2 => EntryKind::Session,
        3 => EntryKind::SubjectBefore { cutoff, except },
        4 => EntryKind::IssuerBefore { cutoff },
        5 => EntryKind::ClaimsBefore { version: at },
        _ => return Err(corrupt("log.kind")),
    };
    let expires = unsigned(row, place + 4, "log.expires")?;
    let expires = u32::try_from(expires).map_err(|_| corrupt("log.expires"))?;
    Ok(Entry { kind, key, expires_at: expiry_from_secs(expires) })
}

/// [`record_columns`] from this place on.
pub(super) fn record(row: &Row, place: usize) -> Result<SessionRecord, Failed> {
    let text = |offset: usize, name| column::<&str>(row, place + offset, name);
    Ok(SessionRecord {
        id: SessionId::from_bytes(sixteen(row, place, "session.id")?),
        issuer: text(1, "session.issuer")?.into(),
        subject: text(2, "session.subject")?.to_owned(),
        policy: text(3, "session.policy")?.to_owned(),
        client_id: text(4, "session.client_id")?.to_owned(),
        device: parse(text(5, "session.device")?, "session.device")?,
        attributes: parse(text(6, "session.attributes")?, "session.attributes")?,
        attributes_version: unsigned(row, place + 7, "session.attributes_version")?,
        created_at: instant(row, place + 8, "session.created_at")?,
        last_active_at: instant(row, place + 9, "session.last_active_at")?,
        idle: Duration::from_millis(unsigned(row, place + 10, "session.idle")?),
        absolute_end: instant(row, place + 11, "session.absolute_end")?,
        generation: unsigned(row, place + 12, "session.generation")?,
        generation_began_at: instant(row, place + 13, "session.generation_began")?,
    })
}

/// A key's bytes, empty for none.
pub(super) fn optional_key(key: Option<DenialKey>) -> Vec<u8> {
    key.map_or_else(Vec::new, |key| key.to_bytes().to_vec())
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Failed> {
    serde_json::to_string(value).map_err(|error| Failed::Store(StoreError::Unavailable(error.into())))
}

fn parse<T: DeserializeOwned>(text: &str, name: &'static str) -> Result<T, Failed> {
    serde_json::from_str(text).map_err(|_| corrupt(name))
}

pub(super) fn corrupt(name: &'static str) -> Failed {
    Failed::Store(StoreError::Corrupt(name))
}
