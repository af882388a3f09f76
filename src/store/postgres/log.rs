//! The revocation log in SQL. Statements that need no answer of each other are sent together.

use super::failed::Failed;
use super::link::Link;
use super::locks;
use super::namespace;
use super::rows::{self, at, clock, column, columns, instant, optional_key, signed, unsigned};
use crate::clock::Timestamp;
use crate::revocation::{Appended, DenialKey, Draft, Entry, EntryKind, Page, StoreError};
use crate::store::shared::JudgeBy;
use crate::token::Revision;
use futures_util::future::{join, join3, join4};
use std::time::Duration;

/// A session's entry outlives the session by this much, against clocks that disagree.
pub(super) const SLACK: Duration = Duration::from_secs(120);
/// Stamps are kept until every clock that is at most this far behind has passed them.
pub(super) const SKEW: Duration = Duration::from_secs(24 * 3600);

/// Holding it, a transaction is the only one that appends; so it is taken last.
pub(super) const LOCK_HEAD: &str = "SELECT epoch, seq FROM head FOR UPDATE";

/// Appends one entry, or finds one that hits as much for as long. Run while the head is locked.
pub(super) const APPEND: &str = "WITH covering AS (\
    SELECT seq, instant, expires FROM log WHERE key = $2 AND kind = $1 AND except_key = $3 \
    AND instant >= $4 AND expires >= $5 ORDER BY seq LIMIT 1), \
    covered AS (DELETE FROM log WHERE key = $2 AND kind = $1 AND except_key = $3 AND instant <= $4 \
    AND expires <= $5 AND NOT EXISTS (SELECT FROM covering)), \
    next AS (UPDATE head SET seq = seq + 1 WHERE NOT EXISTS (SELECT FROM covering) RETURNING epoch, seq), \
    added AS (INSERT INTO log (seq, kind, key, except_key, instant, expires) \
    SELECT seq, $1, $2, $3, $4, $5 FROM next) \
    SELECT epoch, seq, $1::smallint, $2::bytea, $3::bytea, $4::bigint, $5::bigint FROM next \
    UNION ALL SELECT h.epoch, c.seq, $1, $2, $3, c.instant, c.expires FROM covering c, head h";

/// Appends those of many entries that no other covers, in their order; none of them covers another.
pub(super) const APPEND_MANY: &str = "WITH given AS (\
    SELECT * FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[]) \
    WITH ORDINALITY AS g (kind, key, except_key, instant, expires, place)), \
    fresh AS MATERIALIZED (SELECT g.*, row_number() OVER (ORDER BY g.place) AS n FROM given g \
    WHERE NOT EXISTS (SELECT FROM log l WHERE l.key = g.key AND l.kind = g.kind \
    AND l.except_key = g.except_key AND l.instant >= g.instant AND l.expires >= g.expires)), \
    covered AS (DELETE FROM log l USING fresh g WHERE l.key = g.key AND l.kind = g.kind \
    AND l.except_key = g.except_key AND l.instant <= g.instant AND l.expires <= g.expires), \
    next AS (UPDATE head SET seq = seq + (SELECT count(*) FROM fresh) RETURNING epoch, seq), \
    added AS (INSERT INTO log (seq, kind, key, except_key, instant, expires) \
    SELECT next.seq - (SELECT count(*) FROM fresh) + g.n, g.kind, g.key, g.except_key, g.instant, g.expires \
    FROM fresh g, next) SELECT epoch, seq FROM next";

/// The subject's or issuer's last stamps, and the clock. Of a login whose session is gone only what ended it is known; that
/// hits it already.
const LAST_LOGIN: &str = concat!(
    "SELECT ",
    clock!(),
    ", greatest((SELECT greatest(created, cutoff) FROM stamp WHERE key = $1), \
     (SELECT max(created_at) FROM session WHERE subject_key = $1), \
     (SELECT max(created) FROM stamp WHERE issuer_key = $1), \
     (SELECT max(created_at) FROM session WHERE issuer_key = $1), 0)"
);

pub(super) const RAISE_STAMPS: &str = "INSERT INTO stamp AS t (key, issuer_key, created, cutoff, expires) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO UPDATE SET \
    issuer_key = CASE WHEN excluded.issuer_key = ''::bytea THEN t.issuer_key ELSE excluded.issuer_key END, \
    created = greatest(t.created, excluded.created), cutoff = greatest(t.cutoff, excluded.cutoff), \
    expires = greatest(t.expires, excluded.expires)";

pub(super) const END_SESSION: &str = "DELETE FROM session WHERE session_key = $1 RETURNING absolute_end";

/// In the order of ids, so that two that overlap don't lock each other out.
pub(super) const END_OF_SUBJECT: &str = "DELETE FROM session WHERE id = ANY (ARRAY(\
    SELECT id FROM session WHERE subject_key = $1 AND created_at <= $2 AND session_key <> $3 \
    ORDER BY id FOR UPDATE))";

const READ: &str = concat!(
    "WITH here AS MATERIALIZED (SELECT epoch, seq, incarnation, pg_is_in_recovery() AS replica, \
     CASE WHEN born = 0 THEN NULL ELSE greatest(",
    clock!(),
    " - born, 0) END AS age FROM head) \
     SELECT h.epoch, h.seq, h.incarnation, h.replica, h.age, l.seq, l.kind, l.key, l.except_key, l.instant, \
     l.expires FROM here h LEFT JOIN LATERAL (SELECT * FROM log \
     WHERE log.seq >= CASE WHEN h.epoch = $1 AND h.seq >= $2 THEN $2 ELSE 0 END \
     ORDER BY log.seq LIMIT $3) l ON true ORDER BY l.seq"
);

/// What every call needs to know beside the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Whose clock counts.
    pub(super) judge_by: JudgeBy,
    /// [`locks::of_namespace`].
    pub(super) lock: i64,
}

impl Terms {
    /// The instant that counts, where both are known.
    pub(super) fn now(&self, callers: Timestamp, stores: Timestamp) -> Timestamp {
        match self.judge_by {
            JudgeBy::Store => stores,
            JudgeBy::Caller => callers,
        }
    }

    /// The caller's instant where it counts.
    pub(super) fn callers(&self, callers: Timestamp) -> Option<i64> {
        match self.judge_by {
            JudgeBy::Store => None,
            JudgeBy::Caller => Some(at(callers)),
        }
    }
}

/// Stamps the draft and appends it.
pub(super) async fn append(link: &Link, terms: Terms, draft: &Draft) -> Result<Appended, Failed> {
    match *draft {
        Draft::Token { key, expires_at } => {
            let entry = Entry { kind: EntryKind::Token, key, expires_at };
            let [lock, append] = link.statements([LOCK_HEAD, APPEND]).await?;
            let values = columns(&entry);
            let client = &link.client;
            let (begun, locked, appended, committed) = join4(
                client.batch_execute("BEGIN"),
                client.query(&lock, &[]),
                client.query(&append, &values.parameters()),
                client.batch_execute("COMMIT"),
            )
            .await;
            begun?;
            locked?;
            let appended = read_appended(&appended?)?;
            committed?;
            finish(link, appended)
        }
        Draft::Session { key, expires_at } => {
            let key_bytes = key.to_bytes();
            let [end] = link.statements([END_SESSION]).await?;
            let (begun, ended) =
                join(link.client.batch_execute("BEGIN"), link.client.query(&end, &[&&key_bytes[..]])).await;
            begun?;
            let expires_at = match ended?.first() {
                Some(row) => instant(row, 0, "session.absolute_end")?.after(SLACK),
                None => expires_at,
            };
            append_and_commit(link, &Entry { kind: EntryKind::Session, key, expires_at }).await
        }
        Draft::Subject { key, except, before, now, longest } => {
            let cutoff = begin_cutoff(link, terms, key, before, now).await?;
            let kind = EntryKind::SubjectBefore { cutoff, except };
            let entry = Entry { kind, key, expires_at: cutoff.after(longest) };
            let [raise, end] = link.statements([RAISE_STAMPS, END_OF_SUBJECT]).await?;
            let (key, spared, expires) = (key.to_bytes(), optional_key(except), at(cutoff.after(SKEW)));
            let (raised, ended) = join(
                link.client.execute(&raise, &[&&key[..], &optional_key(None), &0_i64, &at(cutoff), &expires]),
                link.client.execute(&end, &[&&key[..], &at(cutoff), &spared]),
            )
            .await;
            raised?;
            ended?;
            append_and_commit(link, &entry).await
        }
        Draft::Issuer { key, before, now, longest } => {
            let cutoff = begin_cutoff(link, terms, key, before, now).await?;
            raise_issuer(link, key, cutoff).await?;
            let kind = EntryKind::IssuerBefore { cutoff };
            append_and_commit(link, &Entry { kind, key, expires_at: cutoff.after(longest) }).await
        }
    }
}

/// The transaction's last steps, in one go.
pub(super) async fn append_and_commit(link: &Link, entry: &Entry) -> Result<Appended, Failed> {
    let [lock, append] = link.statements([LOCK_HEAD, APPEND]).await?;
    let values = columns(entry);
    let (locked, appended, committed) = join3(
        link.client.query(&lock, &[]),
        link.client.query(&append, &values.parameters()),
        link.client.batch_execute("COMMIT"),
    )
    .await;
    locked?;
    let appended = read_appended(&appended?)?;
    committed?;
    finish(link, appended)
}

/// A commit that did not wait for the standbys may be lost with the server.
pub(super) fn committed(link: &Link) -> Result<(), Failed> {
    if link.confirmed() {
        return Ok(());
    }
    let why = "the commit was not waited for until the standbys had it";
    Err(StoreError::Unavailable(why.into()).into())
}

fn finish(link: &Link, appended: Appended) -> Result<Appended, Failed> {
    link.appended(appended.revision);
    committed(link)?;
    Ok(appended)
}

fn read_appended(found: &[tokio_postgres::Row]) -> Result<Appended, Failed> {
    let row = found.first().ok_or(Failed::Stale("the log's head is gone"))?;
    Ok(Appended { entry: rows::entry(row, 2)?, revision: rows::revision(row)? })
}

/// Begins a transaction that no login of this subject or issuer is beside, and stamps its cut-off.
async fn begin_cutoff(
    link: &Link,
    terms: Terms,
    key: DenialKey,
    before: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, Failed> {
    // Each its own statement: what is read is read after the lock is had.
    let [lock, last] = link.statements(["SELECT pg_advisory_xact_lock($1)", LAST_LOGIN]).await?;
    let (begun, locked, read) = join3(
        link.client.batch_execute("BEGIN"),
        link.client.query(&lock, &[&locks::of_key(terms.lock, key)]),
        link.client.query(&last, &[&&key.to_bytes()[..]]),
    )
    .await;
    begun?;
    locked?;
    let read = read?;
    let row = read.first().ok_or_else(|| rows::corrupt("stamp"))?;
    let clock = instant(row, 0, "the clock")?;
    let created = instant(row, 1, "stamp.created")?;
    Ok(before.unwrap_or_else(|| terms.now(now, clock).max(created)))
}

/// An issuer's sessions may be many: from here on they count as gone, and are deleted bit by bit.
async fn raise_issuer(link: &Link, key: DenialKey, cutoff: Timestamp) -> Result<(), Failed> {
    let key = key.to_bytes();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&&key[..], &&key[..], &0_i64, &at(cutoff), &at(cutoff.after(SKEW))];
    link.execute(RAISE_STAMPS, &values).await.map(drop)
}

/// At most `limit` entries after the cursor, and the head, from one snapshot.
pub(super) async fn read_after(link: &Link, cursor: Option<Revision>, limit: usize) -> Result<Page, Failed> {
    // A log that changed under the connection is looked at once more, and then given up on until the next call.
    for _ in 0..2 {
        if let Some(page) = read_once(link, cursor, limit.max(1)).await? {
            return Ok(page);
        }
    }
    Err(Failed::Stale("the log changes its incarnation again and again"))
}

/// `None`: it went back in time, and has a new epoch now.
async fn read_once(link: &Link, cursor: Option<Revision>, limit: usize) -> Result<Option<Page>, Failed> {
    let before = link.heads.seen();
    let (epoch, from) = cursor.map_or((-1, 0), |cursor| (signed(cursor.epoch), signed(cursor.seq)));
    // One more, for the entry that the cursor stands on.
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let read = link.query(READ, &[&epoch, &from, &most]).await?;
    let first = read.first().ok_or(Failed::Stale("the log's head is gone"))?;
    if column::<bool>(first, 3, "recovery")? {
        return Err(Failed::Stale("the server is a replica"));
    }
    let head = rows::revision(first)?;
    let incarnation: &str = column(first, 2, "head.incarnation")?;
    if incarnation != link.about.incarnation {
        namespace::adopt(link, incarnation).await?;
        return Ok(None);
    }
    let age: Option<i64> = column(first, 4, "head.born")?;
    let epoch_age = age.map_or(Duration::MAX, |age| Duration::from_millis(u64::try_from(age).unwrap_or(0)));
    let restarted = cursor.is_some_and(|cursor| !head.covers(&cursor));
    let held = cursor.filter(|_| !restarted);
    let mut went_back = before.is_ahead_of(head);
    let mut end = Revision { epoch: head.epoch, seq: held.map_or(0, |held| held.seq) };
    let mut entries: Vec<Entry> = Vec::new();
    for row in &read {
        if column::<Option<i64>>(row, 5, "log.seq")?.is_none() || entries.len() >= limit {
            break;
        }
        let (seq, entry) = (unsigned(row, 5, "log.seq")?, rows::entry(row, 6)?);
        went_back |= before.differs_at(Revision { epoch: head.epoch, seq }, &entry);
        if held.is_none_or(|held| held.seq != seq) {
            entries.push(entry);
            end.seq = seq;
        }
    }
    if went_back {
        namespace::begin_epoch(link, signed(head.epoch)).await?;
        return Ok(None);
    }
    let last = entries.last().map(|entry| (end, *entry));
    if entries.len() < limit {
        // Whatever lay between the last one and the head is purged.
        end.seq = head.seq;
    }
    link.heads.page_read(&before, head, last.filter(|(at, _)| *at == end));
    Ok(Some(Page { entries, cursor: end, head, epoch_age, restarted }))
}

/// Deletes at most `limit` entries that were over by `now` less the slack; how many.
pub(super) const PURGE_ENTRIES: &str = concat!(
    "DELETE FROM log WHERE seq = ANY (ARRAY(SELECT seq FROM log WHERE expires <= \
     (SELECT (CASE WHEN $2 THEN least($1::bigint, ",
    clock!(),
    ") ELSE $1::bigint END - 120000) / 1000) ORDER BY expires LIMIT $3 FOR UPDATE SKIP LOCKED))"
);

/// Deletes at most `limit` stamps that were over by `now`. An issuer's stays while it tells which sessions are gone.
pub(super) const PURGE_STAMPS: &str = concat!(
    "DELETE FROM stamp WHERE key = ANY (ARRAY(SELECT t.key FROM stamp t WHERE t.expires <= \
     (SELECT CASE WHEN $2 THEN least($1::bigint, ",
    clock!(),
    ") ELSE $1::bigint END) AND NOT EXISTS \
     (SELECT FROM session s WHERE s.issuer_key = t.key AND s.created_at <= t.cutoff) \
     ORDER BY t.expires LIMIT $3 FOR UPDATE OF t SKIP LOCKED))"
);

/// A session's expiry, as an entry that denies it takes it.
pub(super) fn session_entry(key: DenialKey, absolute_end: Timestamp) -> Entry {
    Entry { kind: EntryKind::Session, key, expires_at: absolute_end.after(SLACK) }
}
