//! Sessions in SQL. A session's row lock is the point at which refreshes and revocations of it are in line; the decision is
//! made between locking and writing.

use super::failed::Failed;
use super::link::Link;
use super::locks;
use super::log::{
    APPEND_MANY, LOCK_HEAD, RAISE_STAMPS, SKEW, Terms, append_and_commit, committed, session_entry,
};
use super::login::NewRow;
use super::rows::{self, Many, at, clock, instant, json, not_cut_off, record, record_columns, signed, span};
use crate::clock::Timestamp;
use crate::revocation::{Appended, DenialKey, Entry, EntryKind};
use crate::session::record::{Attributes, SessionRecord};
use crate::session::rotation::{Decision, Rules, decide};
use crate::session::store::{CreateOutcome, Created, Limit, ListCursor, NewSession, Rotated, Updated};
use crate::token::{Revision, SessionId};
use futures_util::future::{join, join3, join4, join5};
use std::time::Duration;
use tokio_postgres::Row;

const HEAD: &str = "SELECT epoch, seq FROM head";

macro_rules! session_at_head {
    () => {
        concat!(
            "SELECT h.epoch, h.seq, ",
            clock!(),
            ", ",
            record_columns!(),
            " FROM session s, head h WHERE s.id = $1 AND ",
            not_cut_off!()
        )
    };
}
const LOOK_AT_SESSION: &str = session_at_head!();
const LOCK_SESSION: &str = concat!(session_at_head!(), " FOR UPDATE OF s");

const FIND: &str = concat!(
    "SELECT h.epoch, h.seq, pg_is_in_recovery(), ",
    record_columns!(),
    " FROM head h LEFT JOIN session s ON s.id = $1 AND ",
    not_cut_off!()
);

const LIST: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM session s WHERE s.subject_key = $1 AND s.ends_at > coalesce($2::bigint, ",
    clock!(),
    ") AND (s.created_at, s.id) < ($3::bigint, $4::bytea) AND ",
    not_cut_off!(),
    " ORDER BY s.created_at DESC, s.id DESC LIMIT $5"
);

const TOUCH: &str = concat!(
    "UPDATE session s SET last_active_at = n.at, ends_at = least(n.at + s.idle, s.absolute_end) \
     FROM (SELECT coalesce($2::bigint, ",
    clock!(),
    ") AS at) n WHERE s.id = $1 AND s.last_active_at <= n.at - $3::bigint AND s.last_active_at < n.at \
     AND s.ends_at > n.at AND ",
    not_cut_off!()
);

/// The head, the clock, and the latest cut-off of subject and issuer.
const BEFORE_LOGIN: &str = concat!(
    "SELECT h.epoch, h.seq, ",
    clock!(),
    ", coalesce((SELECT max(cutoff) FROM stamp WHERE key IN ($1, $2)), 0) FROM head h"
);

const LIVE: &str = concat!(
    "SELECT s.id, s.session_key, s.absolute_end FROM session s WHERE s.subject_key = $1 AND s.policy = $2 \
     AND s.ends_at > coalesce($3::bigint, ",
    clock!(),
    ") AND ",
    not_cut_off!(),
    " ORDER BY s.created_at, s.id"
);

const INSERT: &str = "INSERT INTO session (id, session_key, subject_key, issuer_key, issuer, subject, policy, \
     client_id, device, attributes, attributes_version, created_at, last_active_at, idle, absolute_end, ends_at, \
     generation, generation_began) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

const BEGIN_GENERATION: &str = "UPDATE session SET generation = $2, generation_began = $3, last_active_at = $4, \
     ends_at = $5 WHERE id = $1";

const PURGE_SESSIONS: &str = concat!(
    "DELETE FROM session WHERE id = ANY (ARRAY(SELECT id FROM session WHERE ends_at <= \
     (SELECT CASE WHEN $2 THEN least($1::bigint, ",
    clock!(),
    ") ELSE $1::bigint END - 120000) ORDER BY ends_at LIMIT $3 FOR UPDATE SKIP LOCKED))"
);

/// What issuers' cut-offs ended.
const PURGE_CUT_OFF: &str = "DELETE FROM session WHERE id = ANY (ARRAY(SELECT s.id FROM stamp t \
     CROSS JOIN LATERAL (SELECT x.id FROM session x WHERE x.issuer_key = t.key AND x.created_at <= t.cutoff \
     ORDER BY x.created_at LIMIT $1 FOR UPDATE SKIP LOCKED) s WHERE t.issuer_key = t.key LIMIT $1))";

/// Stamps and records a login.
pub(super) async fn create(link: &Link, terms: Terms, new: &NewSession) -> Result<CreateOutcome, Failed> {
    let (head, now, cutoff) = begin_login(link, terms, new).await?;
    let last = cutoff.as_millis();
    let after_cutoffs = if last == 0 { 0 } else { last.saturating_add(1) };
    let record = new.record(now.max(Timestamp::from_millis(after_cutoffs)));
    if !new.recorded {
        stamp_login(link, new, record.created_at).await?;
        let created = Created { record, evicted: Vec::new(), revision: head };
        return Ok(CreateOutcome::Created(Box::new(created)));
    }
    let evicted = match new.limit {
        None => Vec::new(),
        Some(limit) => match over_limit(link, terms, new, limit).await? {
            Some(evicted) => evicted,
            None => {
                link.client.batch_execute("ROLLBACK").await?;
                return Ok(CreateOutcome::LimitReached);
            }
        },
    };
    let [insert_row] = link.statements([INSERT]).await?;
    let row = NewRow::of(new, &record)?;
    let values = row.parameters();
    let insert = link.client.execute(&insert_row, &values);
    let revision = if evicted.is_empty() {
        let (inserted, done) = join(insert, link.client.batch_execute("COMMIT")).await;
        inserted?;
        done?;
        committed(link)?;
        head
    } else {
        let ids: Vec<_> = evicted.iter().map(|(id, _)| id.as_bytes().to_vec()).collect();
        let entries: Vec<_> = evicted.iter().map(|(_, entry)| *entry).collect();
        let many = Many::of(&entries);
        let evict = "DELETE FROM session WHERE id = ANY (ARRAY(SELECT id FROM session \
                     WHERE id = ANY ($1::bytea[]) ORDER BY id FOR UPDATE))";
        let [evict, lock, append] = link.statements([evict, LOCK_HEAD, APPEND_MANY]).await?;
        let (ended, inserted, locked, appended, done) = join5(
            link.client.execute(&evict, &[&ids]),
            insert,
            link.client.query(&lock, &[]),
            link.client.query(&append, &many.parameters()),
            link.client.batch_execute("COMMIT"),
        )
        .await;
        ended?;
        inserted?;
        locked?;
        let appended = appended?;
        done?;
        let revision = rows::revision(appended.first().ok_or(Failed::Stale("the log's head is gone"))?)?;
        link.appended(revision);
        committed(link)?;
        revision
    };
    Ok(CreateOutcome::Created(Box::new(Created { record, evicted, revision })))
}

/// Begins a transaction that no cut-off of this subject or issuer and no other login of the subject is beside; the head,
/// the instant that counts and the latest cut-off.
async fn begin_login(
    link: &Link,
    terms: Terms,
    new: &NewSession,
) -> Result<(Revision, Timestamp, Timestamp), Failed> {
    let [share, lock, read] = link
        .statements([
            "SELECT pg_advisory_xact_lock_shared($1)",
            "SELECT pg_advisory_xact_lock($1)",
            BEFORE_LOGIN,
        ])
        .await?;
    let (subject, issuer) = (new.subject_key.to_bytes(), new.issuer_key.to_bytes());
    // Each its own statement: what is read is read after the locks are had.
    let (begun, shared, locked, read) = join4(
        link.client.batch_execute("BEGIN"),
        link.client.query(&share, &[&locks::of_key(terms.lock, new.issuer_key)]),
        link.client.query(&lock, &[&locks::of_key(terms.lock, new.subject_key)]),
        link.client.query(&read, &[&&subject[..], &&issuer[..]]),
    )
    .await;
    begun?;
    shared?;
    locked?;
    let read = read?;
    let row = read.first().ok_or(Failed::Stale("the log's head is gone"))?;
    let now = terms.now(new.now, instant(row, 2, "the clock")?);
    Ok((rows::revision(row)?, now, instant(row, 3, "stamp.cutoff")?))
}

/// A login that leaves no record is remembered with its subject, for cut-offs to come.
async fn stamp_login(link: &Link, new: &NewSession, created: Timestamp) -> Result<(), Failed> {
    let [raise] = link.statements([RAISE_STAMPS]).await?;
    let (subject, issuer) = (new.subject_key.to_bytes(), new.issuer_key.to_bytes());
    let expires = at(created.after(SKEW));
    let (raised, done) = join(
        link.client.execute(&raise, &[&&subject[..], &&issuer[..], &at(created), &0_i64, &expires]),
        link.client.batch_execute("COMMIT"),
    )
    .await;
    raised?;
    done?;
    committed(link)
}

/// The oldest sessions beyond the limit; `None` where the policy says to refuse the new one.
async fn over_limit(
    link: &Link,
    terms: Terms,
    new: &NewSession,
    limit: Limit,
) -> Result<Option<Vec<(SessionId, Entry)>>, Failed> {
    let subject = new.subject_key.to_bytes();
    let live = link.query(LIVE, &[&&subject[..], &new.policy, &terms.callers(new.now)]).await?;
    let room = usize::try_from(limit.sessions).unwrap_or(usize::MAX);
    let too_many = live.len().saturating_add(1).saturating_sub(room);
    if too_many > 0 && !limit.evict_oldest {
        return Ok(None);
    }
    let oldest = live.iter().take(too_many).map(|row| {
        let id = SessionId::from_bytes(rows::sixteen(row, 0, "session.id")?);
        let key = DenialKey::from_bytes(rows::sixteen(row, 1, "session.session_key")?);
        Ok((id, session_entry(key, instant(row, 2, "session.absolute_end")?).rounded()))
    });
    oldest.collect::<Result<_, _>>().map(Some)
}

/// What writes nothing needs no lock: a row's lock is had by one at a time, and goes to disk. Of a crowd with one refresh
/// token all but the first are answered by this.
async fn repeat(
    link: &Link,
    terms: Terms,
    id: SessionId,
    presented: u64,
    rules: Rules,
    now: Timestamp,
) -> Result<Option<Rotated>, Failed> {
    let found = link.query(LOOK_AT_SESSION, &[&&id.as_bytes()[..]]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (record, revision) = (record(row, 3)?, rows::revision(row)?);
    let decision = decide(Some(&record), presented, rules, terms.now(now, instant(row, 2, "the clock")?));
    Ok(match decision {
        Decision::Repeat { .. } | Decision::Ended | Decision::Idle => {
            Some(Rotated { decision, record: Some(record), denied: None, revision })
        }
        Decision::Rotate { .. } | Decision::FastForward { .. } | Decision::Reused | Decision::Missing => None,
    })
}

/// Applies the state machine to the record and writes what it decides.
pub(super) async fn rotate(
    link: &Link,
    terms: Terms,
    id: SessionId,
    session_key: DenialKey,
    presented: u64,
    rules: Rules,
    now: Timestamp,
) -> Result<Rotated, Failed> {
    if let Some(repeated) = repeat(link, terms, id, presented, rules, now).await? {
        return Ok(repeated);
    }
    let (found, head) = lock_session(link, id).await?;
    let Some(Locked { record, clock, before }) = found else {
        link.client.batch_execute("COMMIT").await?;
        let decision = decide(None, presented, rules, now);
        return Ok(Rotated { decision, record: None, denied: None, revision: head });
    };
    let now = terms.now(now, clock);
    let decision = decide(Some(&record), presented, rules, now);
    match decision {
        Decision::Rotate { to } | Decision::FastForward { to } => {
            let record = begin_generation(link, record, to, now).await?;
            Ok(Rotated { decision, record: Some(record), denied: None, revision: before })
        }
        Decision::Reused => {
            link.execute("DELETE FROM session WHERE id = $1", &[&&id.as_bytes()[..]]).await?;
            let entry = session_entry(session_key, record.absolute_end);
            let Appended { entry, revision } = append_and_commit(link, &entry).await?;
            Ok(Rotated { decision, record: None, denied: Some(entry), revision })
        }
        Decision::Repeat { .. } | Decision::Ended | Decision::Idle | Decision::Missing => {
            link.client.batch_execute("COMMIT").await?;
            Ok(Rotated { decision, record: Some(record), denied: None, revision: before })
        }
    }
}

struct Locked {
    record: SessionRecord,
    clock: Timestamp,
    /// The head before the lock was asked for: nothing that ends the session is at or before it.
    before: Revision,
}

/// Begins a transaction and locks the session's row in it. The head is read afterwards: where there is no row, what
/// ended the session is at or before it.
async fn lock_session(link: &Link, id: SessionId) -> Result<(Option<Locked>, Revision), Failed> {
    let [lock, head] = link.statements([LOCK_SESSION, HEAD]).await?;
    let (begun, locked, head) = join3(
        link.client.batch_execute("BEGIN"),
        link.client.query(&lock, &[&&id.as_bytes()[..]]),
        link.client.query(&head, &[]),
    )
    .await;
    begun?;
    let (locked, head) = (locked?, head?);
    let head = rows::revision(head.first().ok_or(Failed::Stale("the log's head is gone"))?)?;
    let read = |row: &Row| -> Result<Locked, Failed> {
        Ok(Locked {
            record: record(row, 3)?,
            clock: instant(row, 2, "the clock")?,
            before: rows::revision(row)?,
        })
    };
    Ok((locked.first().map(read).transpose()?, head))
}

/// A refresh is activity: the idle time starts again.
async fn begin_generation(
    link: &Link,
    mut record: SessionRecord,
    generation: u64,
    now: Timestamp,
) -> Result<SessionRecord, Failed> {
    record.generation = generation;
    record.generation_began_at = now;
    record.last_active_at = record.last_active_at.max(now);
    let [change] = link.statements([BEGIN_GENERATION]).await?;
    let (changed, done) = join(
        link.client.execute(
            &change,
            &[
                &&record.id.as_bytes()[..],
                &signed(generation),
                &at(now),
                &at(record.last_active_at),
                &at(record.ends_at()),
            ],
        ),
        link.client.batch_execute("COMMIT"),
    )
    .await;
    changed?;
    done?;
    committed(link)?;
    Ok(record)
}

/// Replaces a live session's attributes.
pub(super) async fn update(
    link: &Link,
    terms: Terms,
    id: SessionId,
    session_key: DenialKey,
    attributes: &Attributes,
    token_life: Duration,
    now: Timestamp,
) -> Result<Option<Updated>, Failed> {
    let (found, _) = lock_session(link, id).await?;
    let live = found.filter(|found| terms.now(now, found.clock) < found.record.ends_at());
    let Some(Locked { mut record, clock, .. }) = live else {
        link.client.batch_execute("COMMIT").await?;
        return Ok(None);
    };
    let now = terms.now(now, clock);
    record.attributes = attributes.clone();
    record.attributes_version = record.attributes_version.saturating_add(1);
    let change = "UPDATE session SET attributes = $2, attributes_version = $3 WHERE id = $1";
    let version = signed(record.attributes_version);
    link.execute(change, &[&&id.as_bytes()[..], &json(attributes)?, &version]).await?;
    let kind = EntryKind::ClaimsBefore { version: record.attributes_version };
    let entry = Entry { kind, key: session_key, expires_at: now.after(token_life) };
    let Appended { entry, revision } = append_and_commit(link, &entry).await?;
    Ok(Some(Updated { record, entry, revision }))
}

/// Notes activity, at most every `update_age`.
pub(super) async fn touch(
    link: &Link,
    terms: Terms,
    id: SessionId,
    update_age: Duration,
    now: Timestamp,
) -> Result<(), Failed> {
    link.execute(TOUCH, &[&&id.as_bytes()[..], &terms.callers(now), &span(update_age)]).await?;
    Ok(())
}

/// A session's record, live or not yet purged, and the head.
pub(super) async fn find(link: &Link, id: SessionId) -> Result<(Option<SessionRecord>, Revision), Failed> {
    let found = link.query(FIND, &[&&id.as_bytes()[..]]).await?;
    let row = found.first().ok_or(Failed::Stale("the log's head is gone"))?;
    if rows::column::<bool>(row, 2, "recovery")? {
        return Err(Failed::Stale("the server is a replica"));
    }
    let there = rows::column::<Option<&[u8]>>(row, 3, "session.id")?.is_some();
    Ok((there.then(|| record(row, 3)).transpose()?, rows::revision(row)?))
}

/// A subject's live sessions, newest first.
pub(super) async fn list(
    link: &Link,
    terms: Terms,
    subject_key: DenialKey,
    after: Option<ListCursor>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<SessionRecord>, Failed> {
    // Before everything: later than any instant, with the longest id.
    let (created, id) = match after {
        Some((created, id)) => (at(created), id.as_bytes().to_vec()),
        None => (i64::MAX, vec![u8::MAX; 17]),
    };
    let subject = subject_key.to_bytes();
    let found =
        link.query(LIST, &[&&subject[..], &terms.callers(now), &created, &id, &i64::from(limit)]).await?;
    found.iter().map(|row| record(row, 0)).collect()
}

/// One batch of purging: at most `limit` of everything that is over; how many.
pub(super) async fn purge(link: &Link, terms: Terms, now: Timestamp, limit: i64) -> Result<i64, Failed> {
    let store = terms.callers(now).is_none();
    let now = at(now);
    let mut left = limit;
    for text in [PURGE_SESSIONS, super::log::PURGE_ENTRIES, super::log::PURGE_STAMPS] {
        let gone = link.execute(text, &[&now, &store, &left]).await?;
        left -= i64::try_from(gone).unwrap_or(left);
    }
    let gone = link.execute(PURGE_CUT_OFF, &[&left]).await?;
    left -= i64::try_from(gone).unwrap_or(left);
    Ok(limit - left)
}
