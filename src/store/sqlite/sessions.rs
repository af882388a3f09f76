//! Sessions in SQL. Every function runs inside the caller's transaction, so that reading, deciding and writing are one.

use super::log;
use super::rows::{at, instant, optional_key, signed, span, unsigned};
use crate::clock::Timestamp;
use crate::revocation::{Appended, DenialKey, Entry, StoreError};
use crate::session::record::{Attributes, SessionRecord};
use crate::session::rotation::{Decision, Rules, decide};
use crate::session::store::{CreateOutcome, Created, Limit, ListCursor, NewSession, Rotated, Updated};
use crate::token::SessionId;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

const COLUMNS: &str = "id, issuer, subject, policy, client_id, device, attributes, attributes_version, \
     created_at, last_active_at, idle, absolute_end, generation, generation_began";

/// Stamps and records a login.
pub(super) fn create(file: &Connection, new: &NewSession) -> Result<CreateOutcome, StoreError> {
    let created_at = log::stamp_login(file, new.subject_key, new.issuer_key, new.now)?;
    let record = new.record(created_at);
    let mut evicted = Vec::new();
    if new.recorded {
        if let Some(limit) = new.limit {
            match make_room(file, new, limit)? {
                Some(ended) => evicted = ended,
                None => return Ok(CreateOutcome::LimitReached),
            }
        }
        insert(file, new, &record)?;
    }
    Ok(CreateOutcome::Created(Box::new(Created { record, evicted, revision: log::head(file)? })))
}

/// Applies the state machine to the record and writes what it decides.
pub(super) fn rotate(
    file: &Connection,
    id: SessionId,
    session_key: DenialKey,
    presented: u64,
    rules: Rules,
    now: Timestamp,
) -> Result<Rotated, StoreError> {
    let record = find(file, id)?;
    let decision = decide(record.as_ref(), presented, rules, now);
    let mut denied = None;
    let record = match (decision, record) {
        (Decision::Rotate { to } | Decision::FastForward { to }, Some(record)) => {
            Some(begin_generation(file, record, to, now)?)
        }
        (Decision::Reused, Some(record)) => {
            let entry = log::session_entry(session_key, record.absolute_end);
            delete(file, id)?;
            denied = Some(log::append(file, &entry)?.entry);
            None
        }
        (_, record) => record,
    };
    Ok(Rotated { decision, record, denied, revision: log::head(file)? })
}

/// Replaces a live session's attributes.
pub(super) fn update(
    file: &Connection,
    id: SessionId,
    session_key: DenialKey,
    attributes: &Attributes,
    token_life: Duration,
    now: Timestamp,
) -> Result<Option<Updated>, StoreError> {
    let Some(mut record) = find(file, id)?.filter(|record| now < record.ends_at()) else {
        return Ok(None);
    };
    record.attributes = attributes.clone();
    record.attributes_version = record.attributes_version.saturating_add(1);
    let mut change =
        file.prepare_cached("UPDATE session SET attributes = ?2, attributes_version = ?3 WHERE id = ?1")?;
    change.execute(params![id.as_bytes(), json(attributes)?, signed(record.attributes_version)])?;
    let entry = log::claims_entry(session_key, record.attributes_version, token_life, now);
    let Appended { entry, revision } = log::append(file, &entry)?;
    Ok(Some(Updated { record, entry, revision }))
}

/// Notes activity, at most every `update_age`.
pub(super) fn touch(
    file: &Connection,
    id: SessionId,
    update_age: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut change = file.prepare_cached(
        "UPDATE session SET last_active_at = ?2, ends_at = min(?2 + idle, absolute_end) \
         WHERE id = ?1 AND last_active_at <= ?3 AND last_active_at < ?2 AND ends_at > ?2",
    )?;
    change.execute(params![id.as_bytes(), at(now), at(now.before(update_age))])?;
    Ok(())
}

/// A session's record, live or not yet purged.
pub(super) fn find(file: &Connection, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
    let mut select = file.prepare_cached(&format!("SELECT {COLUMNS} FROM session WHERE id = ?1"))?;
    let mut rows = select.query([id.as_bytes()])?;
    rows.next()?.map(read_row).transpose()
}

/// A subject's live sessions, newest first.
pub(super) fn list(
    file: &Connection,
    subject_key: DenialKey,
    after: Option<ListCursor>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<SessionRecord>, StoreError> {
    let mut select = file.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM session WHERE subject_key = ?1 AND ends_at > ?2 \
         AND (created_at, id) < (?3, ?4) ORDER BY created_at DESC, id DESC LIMIT ?5"
    ))?;
    // Before everything: later than any instant, with the longest id.
    let (created, id) = match after {
        Some((created, id)) => (at(created), id.as_bytes().to_vec()),
        None => (i64::MAX, vec![u8::MAX; 17]),
    };
    let mut rows = select.query(params![subject_key.to_bytes(), at(now), created, id, limit])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(read_row(row)?);
    }
    Ok(records)
}

/// Deletes what was over by `now`; how much.
pub(super) fn purge(file: &Connection, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
    let sql = "DELETE FROM session WHERE id IN \
               (SELECT id FROM session WHERE ends_at <= ?1 ORDER BY ends_at LIMIT ?2)";
    let gone = file.prepare_cached(sql)?.execute(params![at(now.before(log::SLACK)), limit])?;
    let gone = u32::try_from(gone).unwrap_or(u32::MAX);
    let more = log::purge(file, now, limit.saturating_sub(gone))?;
    Ok(gone.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)))
}

/// When the session with this key ends at the latest, if it is one of ours.
pub(super) fn absolute_end(file: &Connection, key: DenialKey) -> Result<Option<Timestamp>, StoreError> {
    let mut select = file.prepare_cached("SELECT absolute_end FROM session WHERE session_key = ?1")?;
    let end = select.query_row([key.to_bytes()], |row| row.get(0)).optional()?;
    end.map(|end| instant(end, "session.absolute_end")).transpose()
}

/// Ends one session.
pub(super) fn end(file: &Connection, key: DenialKey) -> Result<(), StoreError> {
    file.prepare_cached("DELETE FROM session WHERE session_key = ?1")?.execute([key.to_bytes()])?;
    Ok(())
}

/// Ends a subject's sessions that were created at or before the cut-off, but for the one spared.
pub(super) fn end_of_subject(
    file: &Connection,
    key: DenialKey,
    cutoff: Timestamp,
    except: Option<DenialKey>,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM session WHERE subject_key = ?1 AND created_at <= ?2 AND session_key <> ?3";
    file.prepare_cached(sql)?.execute(params![key.to_bytes(), at(cutoff), optional_key(except)])?;
    Ok(())
}

/// Ends an issuer's sessions that were created at or before the cut-off.
pub(super) fn end_of_issuer(file: &Connection, key: DenialKey, cutoff: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM session WHERE issuer_key = ?1 AND created_at <= ?2";
    file.prepare_cached(sql)?.execute(params![key.to_bytes(), at(cutoff)])?;
    Ok(())
}

/// Makes a session's attributes version at least this.
pub(super) fn raise_version(file: &Connection, key: DenialKey, version: u64) -> Result<(), StoreError> {
    let sql = "UPDATE session SET attributes_version = ?2 WHERE session_key = ?1 AND attributes_version < ?2";
    file.prepare_cached(sql)?.execute(params![key.to_bytes(), signed(version)])?;
    Ok(())
}

/// Ends the oldest sessions beyond the limit; `None` where the policy says to refuse the new one.
fn make_room(
    file: &Connection,
    new: &NewSession,
    limit: Limit,
) -> Result<Option<Vec<(SessionId, Entry)>>, StoreError> {
    let mut select = file.prepare_cached(
        "SELECT id, session_key, absolute_end FROM session WHERE subject_key = ?1 AND policy = ?2 \
         AND ends_at > ?3 ORDER BY created_at, id",
    )?;
    let mut rows = select.query(params![new.subject_key.to_bytes(), new.policy, at(new.now)])?;
    let mut live = Vec::new();
    while let Some(row) = rows.next()? {
        let end = instant(row.get(2)?, "session.absolute_end")?;
        live.push((SessionId::from_bytes(row.get(0)?), DenialKey::from_bytes(row.get(1)?), end));
    }
    let room = usize::try_from(limit.sessions).unwrap_or(usize::MAX);
    let too_many = live.len().saturating_add(1).saturating_sub(room);
    if too_many > 0 && !limit.evict_oldest {
        return Ok(None);
    }
    let mut evicted = Vec::new();
    for (id, key, end) in live.into_iter().take(too_many) {
        let entry = log::append(file, &log::session_entry(key, end))?.entry;
        evicted.push((id, entry));
    }
    Ok(Some(evicted))
}

fn insert(file: &Connection, new: &NewSession, record: &SessionRecord) -> Result<(), StoreError> {
    let mut insert = file.prepare_cached(
        "INSERT INTO session (id, session_key, subject_key, issuer_key, issuer, subject, policy, client_id, \
         device, attributes, attributes_version, created_at, last_active_at, idle, absolute_end, ends_at, \
         generation, generation_began) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    insert.execute(params![
        record.id.as_bytes(),
        new.session_key.to_bytes(),
        new.subject_key.to_bytes(),
        new.issuer_key.to_bytes(),
        &*record.issuer,
        record.subject,
        record.policy,
        record.client_id,
        json(&record.device)?,
        json(&record.attributes)?,
        signed(record.attributes_version),
        at(record.created_at),
        at(record.last_active_at),
        span(record.idle),
        at(record.absolute_end),
        at(record.ends_at()),
        signed(record.generation),
        at(record.generation_began_at),
    ])?;
    Ok(())
}

/// A refresh is activity: the idle time starts again.
fn begin_generation(
    file: &Connection,
    mut record: SessionRecord,
    generation: u64,
    now: Timestamp,
) -> Result<SessionRecord, StoreError> {
    record.generation = generation;
    record.generation_began_at = now;
    record.last_active_at = record.last_active_at.max(now);
    let mut change = file.prepare_cached(
        "UPDATE session SET generation = ?2, generation_began = ?3, last_active_at = ?4, ends_at = ?5 \
         WHERE id = ?1",
    )?;
    change.execute(params![
        record.id.as_bytes(),
        signed(generation),
        at(now),
        at(record.last_active_at),
        at(record.ends_at()),
    ])?;
    Ok(record)
}

fn delete(file: &Connection, id: SessionId) -> Result<(), StoreError> {
    file.prepare_cached("DELETE FROM session WHERE id = ?1")?.execute([id.as_bytes()])?;
    Ok(())
}

fn read_row(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let issuer: String = row.get(1)?;
    Ok(SessionRecord {
        id: SessionId::from_bytes(row.get(0)?),
        issuer: issuer.into(),
        subject: row.get(2)?,
        policy: row.get(3)?,
        client_id: row.get(4)?,
        device: parse(&row.get::<_, String>(5)?, "session.device")?,
        attributes: parse(&row.get::<_, String>(6)?, "session.attributes")?,
        attributes_version: unsigned(row.get(7)?, "session.attributes_version")?,
        created_at: instant(row.get(8)?, "session.created_at")?,
        last_active_at: instant(row.get(9)?, "session.last_active_at")?,
        idle: Duration::from_millis(unsigned(row.get(10)?, "session.idle")?),
        absolute_end: instant(row.get(11)?, "session.absolute_end")?,
        generation: unsigned(row.get(12)?, "session.generation")?,
        generation_began_at: instant(row.get(13)?, "session.generation_began")?,
    })
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(error.into()))
}

fn parse<T: DeserializeOwned>(text: &str, place: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(place))
}
