//! The revocation log in SQL. Every function runs inside the caller's transaction.

use super::rows::{at, instant, optional_key, read_optional_key, signed, unsigned};
use super::sessions;
use crate::clock::Timestamp;
use crate::revocation::entry::expiry_from_secs;
use crate::revocation::{Appended, DenialKey, Draft, Entry, EntryKind, Page, StoreError};
use crate::token::Revision;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::time::Duration;

/// A session's entry outlives the session by this much, against clocks that disagree.
pub(super) const SLACK: Duration = Duration::from_secs(120);
/// Stamps are kept until every clock that is at most this far behind has passed them.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// The log's head.
pub(super) fn head(file: &Connection) -> Result<Revision, StoreError> {
    let mut statement = file.prepare_cached("SELECT epoch, seq FROM head")?;
    let (epoch, seq) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Revision { epoch: unsigned(epoch, "head.epoch")?, seq: unsigned(seq, "head.seq")? })
}

/// Stamps the draft and appends it.
pub(super) fn append_draft(file: &Connection, draft: &Draft) -> Result<Appended, StoreError> {
    let entry = match *draft {
        Draft::Token { key, expires_at } => Entry { kind: EntryKind::Token, key, expires_at },
        Draft::Session { key, expires_at } => {
            let expires_at = sessions::absolute_end(file, key)?.map_or(expires_at, |end| end.after(SLACK));
            Entry { kind: EntryKind::Session, key, expires_at }
        }
        Draft::Subject { key, except, before, now, longest } => {
            let cutoff = stamped_cutoff(file, key, before, now)?;
            let kind = EntryKind::SubjectBefore { cutoff, except };
            Entry { kind, key, expires_at: cutoff.after(longest) }
        }
        Draft::Issuer { key, before, now, longest } => {
            let cutoff = stamped_cutoff(file, key, before, now)?;
            Entry { kind: EntryKind::IssuerBefore { cutoff }, key, expires_at: cutoff.after(longest) }
        }
    };
    append(file, &entry)
}

/// Ends what the entry hits and appends it, unless an entry already there says as much.
pub(super) fn append(file: &Connection, entry: &Entry) -> Result<Appended, StoreError> {
    let entry = entry.rounded();
    take_effect(file, &entry)?;
    if let Some(there) = covering(file, &entry)? {
        return Ok(there);
    }
    forget_covered(file, &entry)?;
    let mut next = file.prepare_cached("UPDATE head SET seq = seq + 1 RETURNING epoch, seq")?;
    let (epoch, seq) = next.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let Columns { kind, except, instant } = columns(&entry);
    let mut insert = file.prepare_cached(
        "INSERT INTO log (seq, kind, key, except_key, instant, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute(params![seq, kind, entry.key.to_bytes(), except, instant, entry.expiry_secs()])?;
    let revision = Revision { epoch: unsigned(epoch, "head.epoch")?, seq: unsigned(seq, "head.seq")? };
    Ok(Appended { entry, revision })
}

/// At most `limit` entries after the cursor, and the head, from one snapshot.
pub(super) fn read_after(
    file: &Connection,
    cursor: Option<Revision>,
    limit: usize,
) -> Result<Page, StoreError> {
    let head = head(file)?;
    let restarted = cursor.is_some_and(|cursor| !head.covers(&cursor));
    let from = cursor.filter(|_| !restarted).map_or(0, |cursor| cursor.seq);
    let limit = limit.max(1);
    let mut select = file.prepare_cached(
        "SELECT seq, kind, key, except_key, instant, expires FROM log WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = select.query(params![signed(from), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut entries = Vec::new();
    let mut end = from;
    while let Some(row) = rows.next()? {
        let (seq, entry) = read_row(row)?;
        entries.push(entry);
        end = seq;
    }
    // Fewer than asked for: whatever lay between the last one and the head is purged.
    let end = if entries.len() < limit { head.seq } else { end };
    // Sidecars of one machine notice a file put in place themselves; nobody else has anything to give back.
    let epoch_age = Duration::MAX;
    Ok(Page { entries, cursor: Revision { epoch: head.epoch, seq: end }, head, epoch_age, restarted })
}

/// Stamps a login: later than every cut-off of its subject and issuer.
pub(super) fn stamp_login(
    file: &Connection,
    subject: DenialKey,
    issuer: DenialKey,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    let mut created = now;
    for key in [subject, issuer] {
        if let Some((_, cutoff)) = stamps(file, key)? {
            created = created.max(Timestamp::from_millis(cutoff.as_millis().saturating_add(1)));
        }
    }
    for key in [subject, issuer] {
        raise_stamps(file, key, created, Timestamp::default())?;
    }
    Ok(created)
}

/// Forgets entries and stamps that were over by `now`, at most `limit` of each; how many went.
pub(super) fn purge(file: &Connection, now: Timestamp, limit: u32) -> Result<usize, StoreError> {
    let by = signed(now.before(SLACK).as_secs());
    let entries = "DELETE FROM log WHERE seq IN \
                   (SELECT seq FROM log WHERE expires <= ?1 ORDER BY expires LIMIT ?2)";
    let mut gone = file.prepare_cached(entries)?.execute(params![by, limit])?;
    let left = limit.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
    let stamps = "DELETE FROM stamp WHERE key IN \
                  (SELECT key FROM stamp WHERE expires <= ?1 ORDER BY expires LIMIT ?2)";
    gone += file.prepare_cached(stamps)?.execute(params![at(now), left])?;
    Ok(gone)
}

fn stamped_cutoff(
    file: &Connection,
    key: DenialKey,
    before: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    if let Some(before) = before {
        return Ok(before);
    }
    Ok(stamps(file, key)?.map_or(now, |(created, _)| created.max(now)))
}

/// What the entry does besides being in the log: records it hits end, later logins are stamped after it.
fn take_effect(file: &Connection, entry: &Entry) -> Result<(), StoreError> {
    match entry.kind {
        EntryKind::Token => Ok(()),
        EntryKind::Session => sessions::end(file, entry.key),
        EntryKind::SubjectBefore { cutoff, except } => {
            raise_stamps(file, entry.key, Timestamp::default(), cutoff)?;
            sessions::end_of_subject(file, entry.key, cutoff, except)
        }
        EntryKind::IssuerBefore { cutoff } => {
            raise_stamps(file, entry.key, Timestamp::default(), cutoff)?;
            sessions::end_of_issuer(file, entry.key, cutoff)
        }
        // Given back to a store that lost it: tokens minted from here on must carry a version that passes.
        EntryKind::ClaimsBefore { version } => sessions::raise_version(file, entry.key, version),
    }
}

fn stamps(file: &Connection, key: DenialKey) -> Result<Option<(Timestamp, Timestamp)>, StoreError> {
    let mut select = file.prepare_cached("SELECT created, cutoff FROM stamp WHERE key = ?1")?;
    let found = select.query_row([key.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((created, cutoff)) = found else { return Ok(None) };
    Ok(Some((instant(created, "stamp.created")?, instant(cutoff, "stamp.cutoff")?)))
}

fn raise_stamps(
    file: &Connection,
    key: DenialKey,
    created: Timestamp,
    cutoff: Timestamp,
) -> Result<(), StoreError> {
    let expires = created.max(cutoff).after(SKEW);
    let mut upsert = file.prepare_cached(
        "INSERT INTO stamp (key, created, cutoff, expires) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (key) DO UPDATE SET created = max(created, excluded.created), \
         cutoff = max(cutoff, excluded.cutoff), expires = max(expires, excluded.expires)",
    )?;
    upsert.execute(params![key.to_bytes(), at(created), at(cutoff), at(expires)])?;
    Ok(())
}

/// An entry of the same kind, key and exception that hits as much for as long.
fn covering(file: &Connection, entry: &Entry) -> Result<Option<Appended>, StoreError> {
    let Columns { kind, except, instant } = columns(entry);
    let mut select = file.prepare_cached(
        "SELECT seq, kind, key, except_key, instant, expires FROM log WHERE key = ?1 AND kind = ?2 \
         AND except_key = ?3 AND instant >= ?4 AND expires >= ?5 ORDER BY seq LIMIT 1",
    )?;
    let mut rows = select.query(params![entry.key.to_bytes(), kind, except, instant, entry.expiry_secs()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (seq, entry) = read_row(row)?;
    Ok(Some(Appended { entry, revision: Revision { epoch: head(file)?.epoch, seq } }))
}

/// Deletes what the entry, about to be appended, covers.
fn forget_covered(file: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let Columns { kind, except, instant } = columns(entry);
    let mut delete = file.prepare_cached(
        "DELETE FROM log WHERE key = ?1 AND kind = ?2 AND except_key = ?3 AND instant <= ?4 AND expires <= ?5",
    )?;
    delete.execute(params![entry.key.to_bytes(), kind, except, instant, entry.expiry_secs()])?;
    Ok(())
}

struct Columns {
    kind: u8,
    except: Vec<u8>,
    instant: i64,
}

fn columns(entry: &Entry) -> Columns {
    let (kind, except, instant) = match entry.kind {
        EntryKind::Token => (1, None, 0),
        EntryKind::Session => (2, None, 0),
        EntryKind::SubjectBefore { cutoff, except } => (3, except, at(cutoff)),
        EntryKind::IssuerBefore { cutoff } => (4, None, at(cutoff)),
        EntryKind::ClaimsBefore { version } => (5, None, signed(version)),
    };
    Columns { kind, except: optional_key(except), instant }
}

fn read_row(row: &Row<'_>) -> Result<(u64, Entry), StoreError> {
    let seq = unsigned(row.get(0)?, "log.seq")?;
    let kind: u8 = row.get(1)?;
    let key = DenialKey::from_bytes(row.get(2)?);
    let except = read_optional_key(row.get(3)?, "log.except_key")?;
    let at = unsigned(row.get(4)?, "log.instant")?;
    let cutoff = Timestamp::from_millis(at);
    let kind = match kind {
        1 => EntryKind::Token,
        2 => EntryKind::Session,
        3 => EntryKind::SubjectBefore { cutoff, except },
        4 => EntryKind::IssuerBefore { cutoff },
        5 => EntryKind::ClaimsBefore { version: at },
        _ => return Err(StoreError::Corrupt("log.kind")),
    };
    Ok((seq, Entry { kind, key, expires_at: expiry_from_secs(row.get(5)?) }))
}

/// A session's expiry, as an entry that denies it takes it.
pub(super) fn session_entry(key: DenialKey, absolute_end: Timestamp) -> Entry {
    Entry { kind: EntryKind::Session, key, expires_at: absolute_end.after(SLACK) }
}

/// An entry that makes a session's older attributes stale.
pub(super) fn claims_entry(key: DenialKey, version: u64, token_life: Duration, now: Timestamp) -> Entry {
    Entry { kind: EntryKind::ClaimsBefore { version }, key, expires_at: now.after(token_life) }
}
