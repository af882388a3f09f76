//! Entries that a sidecar gives back, in batches: what they hit ends, and the log has those that it lacked.

use super::failed::Failed;
use super::link::Link;
use super::locks;
use super::log::{APPEND_MANY, END_OF_SUBJECT, LOCK_HEAD, RAISE_STAMPS, SKEW, Terms, committed};
use super::rows::{self, Many, at, optional_key, signed};
use crate::clock::Timestamp;
use crate::revocation::{DenialKey, Entry, EntryKind};
use futures_util::future::{join, join3};

/// At most this many share a transaction,
const MOST: usize = 250;
/// and of these, cut-offs: each takes a lock of the server's lock table.
const MOST_CUTOFFS: usize = 50;

/// Whether any of the entries is covered by none in the log.
const LACKING: &str = "SELECT g.place FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bigint[], \
    $5::bigint[]) WITH ORDINALITY AS g (kind, key, except_key, instant, expires, place) \
    WHERE NOT EXISTS (SELECT FROM log l WHERE l.key = g.key AND l.kind = g.kind \
    AND l.except_key = g.except_key AND l.instant >= g.instant AND l.expires >= g.expires) LIMIT 1";

/// Cuts entries, in their order, into what one transaction takes.
pub(super) fn batches(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut cutoffs = 0;
    for entry in entries {
        let is_cutoff = cutoff_of(&entry).is_some();
        if batch.len() >= MOST || (is_cutoff && cutoffs >= MOST_CUTOFFS) {
            batches.push(std::mem::take(&mut batch));
            cutoffs = 0;
        }
        cutoffs += usize::from(is_cutoff);
        batch.push(entry.rounded());
    }
    batches.push(batch);
    batches
}

/// Restores one batch in one transaction.
pub(super) async fn batch(link: &Link, terms: Terms, entries: &[Entry]) -> Result<(), Failed> {
    let many = Many::of(entries);
    begin(link, terms, entries).await?;
    take_effect(link, entries).await?;
    let [lacking, lock, append] = link.statements([LACKING, LOCK_HEAD, APPEND_MANY]).await?;
    // Others may have given the same back already: then nobody has to wait for the head.
    if link.client.query(&lacking, &many.parameters()).await?.is_empty() {
        link.client.batch_execute("COMMIT").await?;
        return committed(link);
    }
    let (locked, appended, done) = join3(
        link.client.query(&lock, &[]),
        link.client.query(&append, &many.parameters()),
        link.client.batch_execute("COMMIT"),
    )
    .await;
    locked?;
    let appended = appended?;
    done?;
    let row = appended.first().ok_or(Failed::Stale("the log's head is gone"))?;
    link.appended(rows::revision(row)?);
    committed(link)
}

/// Begins, and takes the locks of all cut-offs: issuers before subjects, each in one order.
async fn begin(link: &Link, terms: Terms, entries: &[Entry]) -> Result<(), Failed> {
    let mut cutoffs: Vec<_> = entries.iter().filter_map(cutoff_of).collect();
    cutoffs.sort_unstable();
    let keys: Vec<_> = cutoffs.iter().map(|(_, _, key)| locks::of_key(terms.lock, *key)).collect();
    let [lock] =
        link.statements(["SELECT count(pg_advisory_xact_lock(k)) FROM unnest($1::bigint[]) AS k"]).await?;
    let (begun, locked) = join(link.client.batch_execute("BEGIN"), link.client.query(&lock, &[&keys])).await;
    begun?;
    locked?;
    Ok(())
}

/// A cut-off's rank, lock key and key; the rank puts issuers first.
fn cutoff_of(entry: &Entry) -> Option<(u8, [u8; 16], DenialKey)> {
    let rank = match entry.kind {
        EntryKind::IssuerBefore { .. } => 0,
        EntryKind::SubjectBefore { .. } => 1,
        EntryKind::Token | EntryKind::Session | EntryKind::ClaimsBefore { .. } => return None,
    };
    Some((rank, entry.key.to_bytes(), entry.key))
}

async fn take_effect(link: &Link, entries: &[Entry]) -> Result<(), Failed> {
    let (mut ended, mut restated, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        match entry.kind {
            EntryKind::Session => ended.push(entry.key.to_bytes().to_vec()),
            EntryKind::ClaimsBefore { version } => {
                restated.push(entry.key.to_bytes().to_vec());
                versions.push(signed(version));
            }
            EntryKind::Token | EntryKind::SubjectBefore { .. } | EntryKind::IssuerBefore { .. } => {}
        }
    }
    for entry in entries {
        match entry.kind {
            EntryKind::SubjectBefore { cutoff, except } => {
                raise(link, entry.key, None, cutoff).await?;
                let values = (entry.key.to_bytes(), at(cutoff), optional_key(except));
                link.execute(END_OF_SUBJECT, &[&&values.0[..], &values.1, &values.2]).await?;
            }
            EntryKind::IssuerBefore { cutoff } => raise(link, entry.key, Some(entry.key), cutoff).await?,
            EntryKind::Token | EntryKind::Session | EntryKind::ClaimsBefore { .. } => {}
        }
    }
    if !ended.is_empty() {
        let end = "DELETE FROM session WHERE id = ANY (ARRAY(SELECT id FROM session \
                   WHERE session_key = ANY ($1::bytea[]) ORDER BY id FOR UPDATE))";
        link.execute(end, &[&ended]).await?;
    }
    if !restated.is_empty() {
        // Tokens minted from here on must carry a version that passes.
        let raise = "UPDATE session s SET attributes_version = g.version FROM \
                     (SELECT key, max(version) AS version FROM unnest($1::bytea[], $2::bigint[]) AS u (key, version) \
                     GROUP BY key) g WHERE s.session_key = g.key AND s.attributes_version < g.version";
        link.execute(raise, &[&restated, &versions]).await?;
    }
    Ok(())
}

async fn raise(
    link: &Link,
    key: DenialKey,
    issuer: Option<DenialKey>,
    cutoff: Timestamp,
) -> Result<(), Failed> {
    let (key, issuer, expires) = (key.to_bytes(), optional_key(issuer), at(cutoff.after(SKEW)));
    link.execute(RAISE_STAMPS, &[&&key[..], &issuer, &0_i64, &at(cutoff), &expires]).await?;
    Ok(())
}
