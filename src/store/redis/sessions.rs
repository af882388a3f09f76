//! Sessions, between our types and what the scripts take and give.

use super::log::expiry;
use super::reply::{Arguments, Reply};
use crate::clock::Timestamp;
use crate::revocation::{DenialKey, Entry, EntryKind, StoreError};
use crate::session::record::SessionRecord;
use crate::session::store::{CreateOutcome, Created, ListCursor, NewSession, Updated};
use crate::token::SessionId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A record as it was read, and the counter that tells whether it still is.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) record: SessionRecord,
    pub(super) counter: String,
}

pub(super) fn login(new: &NewSession) -> Result<Arguments, StoreError> {
    let arguments = Arguments::default()
        .bytes(new.id.as_bytes())
        .key(new.session_key)
        .key(new.subject_key)
        .key(new.issuer_key)
        .text(&new.issuer)
        .text(&new.subject)
        .text(&new.policy)
        .text(&new.client_id)
        .text(&json(&new.device)?)
        .text(&json(&new.attributes)?)
        .span(new.idle)
        .span(new.absolute)
        .text(&new.generation.to_string());
    let arguments = match new.limit {
        Some(limit) => arguments.number(u64::from(limit.sessions)).flag(limit.evict_oldest),
        None => arguments.nothing().nothing(),
    };
    Ok(arguments.flag(new.recorded))
}

pub(super) fn created(mut reply: Reply, new: &NewSession) -> Result<CreateOutcome, StoreError> {
    let revision = reply.revision()?;
    if reply.left() == 0 {
        return Ok(CreateOutcome::LimitReached);
    }
    let created_at = reply.at()?;
    let mut evicted = Vec::new();
    for ended in reply.array("sessions ended at the limit")?.arrays() {
        let mut ended = ended?;
        let id = SessionId::from_bytes(ended.raw()?);
        let key = ended.key()?;
        evicted.push((id, Entry { kind: EntryKind::Session, key, expires_at: expiry(&mut ended)? }));
    }
    let record = new.record(created_at);
    Ok(CreateOutcome::Created(Box::new(Created { record, evicted, revision })))
}

/// Which session, and where the page before ended.
pub(super) fn listing(subject: DenialKey, after: Option<ListCursor>, limit: u32) -> Arguments {
    let arguments = Arguments::default().key(subject);
    let arguments = match after {
        Some((created, id)) => arguments.at(created).bytes(id.as_bytes()),
        None => arguments.nothing().nothing(),
    };
    arguments.number(u64::from(limit))
}

pub(super) fn listed(mut reply: Reply) -> Result<Vec<SessionRecord>, StoreError> {
    reply.revision()?;
    let found = reply.array("a subject's sessions")?.arrays().map(|item| {
        let mut item = item?;
        let id = SessionId::from_bytes(item.raw()?);
        Ok(record(item.array("a session")?, id)?.record)
    });
    found.collect()
}

pub(super) fn updated(
    mut reply: Reply,
    id: SessionId,
    session_key: DenialKey,
) -> Result<Option<Updated>, StoreError> {
    let revision = reply.revision()?;
    let Some(fields) = reply.optional("a session")? else { return Ok(None) };
    let record = record(fields, id)?.record;
    let kind = EntryKind::ClaimsBefore { version: reply.number()? };
    let entry = Entry { kind, key: session_key, expires_at: expiry(&mut reply)? };
    Ok(Some(Updated { record, entry, revision }))
}

/// The fields in the order that the scripts read them.
pub(super) fn record(mut fields: Reply, id: SessionId) -> Result<Looked, StoreError> {
    for _key in ["session", "subject", "issuer"] {
        fields.key()?;
    }
    let issuer = fields.text()?;
    let record = SessionRecord {
        id,
        issuer: issuer.into(),
        subject: fields.text()?,
        policy: fields.text()?,
        client_id: fields.text()?,
        device: parse(&fields.text()?, "a session's device")?,
        attributes: parse(&fields.text()?, "a session's attributes")?,
        attributes_version: fields.number()?,
        created_at: fields.at()?,
        last_active_at: fields.at()?,
        idle: Duration::from_millis(fields.number()?),
        absolute_end: fields.at()?,
        generation: fields.number()?,
        generation_began_at: fields.at()?,
    };
    Ok(Looked { record, counter: fields.text()? })
}

/// What to write when a record as it was read is to have this generation from now on; `None`: used twice, it ends.
pub(super) fn turn(looked: &Looked, generation: Option<u64>, now: Timestamp) -> Arguments {
    let arguments = Arguments::default().bytes(looked.record.id.as_bytes()).text(&looked.counter);
    match generation {
        // Never counted with there, so never rounded.
        Some(generation) => arguments.text(&generation.to_string()).at(now),
        None => arguments.nothing().nothing(),
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(error.into()))
}

fn parse<T: DeserializeOwned>(text: &str, place: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(place))
}
