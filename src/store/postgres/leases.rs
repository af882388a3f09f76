//! Leases of relayed refreshes: a register for each, written only in the place of the one that was seen.

use super::failed::Failed;
use super::link::Link;
use super::log::{Terms, committed};
use super::rows::{at, clock, instant};
use crate::clock::Timestamp;
use crate::token::TokenDigest;

const FIND: &str = concat!(
    "SELECT n.at, l.register FROM (SELECT coalesce($2::bigint, ",
    clock!(),
    ") AS at) n LEFT JOIN lease l ON l.key = $1 AND l.expires > n.at"
);

const PUT_FIRST: &str = concat!(
    "INSERT INTO lease (key, register, expires) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE \
     SET register = excluded.register, expires = excluded.expires WHERE lease.expires <= coalesce($4::bigint, ",
    clock!(),
    ")"
);

const PUT_NEXT: &str = "UPDATE lease SET register = $2, expires = $3 WHERE key = $1 AND register = $4";

const PURGE: &str = concat!(
    "DELETE FROM lease WHERE key = ANY (ARRAY(SELECT key FROM lease WHERE expires <= \
     CASE WHEN $2 THEN least($1::bigint, ",
    clock!(),
    ") ELSE $1::bigint END LIMIT $3 FOR UPDATE SKIP LOCKED))"
);

pub(super) async fn find(
    link: &Link,
    terms: Terms,
    key: TokenDigest,
    now: Timestamp,
) -> Result<(Option<Vec<u8>>, Timestamp), Failed> {
    let rows = link.query(FIND, &[&&key.as_bytes()[..], &terms.callers(now)]).await?;
    let row = rows.first().ok_or(Failed::Stale("no answer to a look"))?;
    Ok((row.try_get(1)?, instant(row, 0, "the clock")?))
}

pub(super) async fn put(
    link: &Link,
    terms: Terms,
    key: TokenDigest,
    (seen, register): (Option<&[u8]>, &[u8]),
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<bool, Failed> {
    let (key, expires) = (&key.as_bytes()[..], at(expires_at));
    let put = match seen {
        None => link.execute(PUT_FIRST, &[&key, &register, &expires, &terms.callers(now)]).await?,
        Some(seen) => link.execute(PUT_NEXT, &[&key, &register, &expires, &seen]).await?,
    };
    committed(link)?;
    Ok(put > 0)
}

/// Forgets what has expired. No slack: a result is there for latecomers, and not an instant longer than it must.
pub(super) async fn purge(link: &Link, terms: Terms, now: Timestamp, limit: i64) -> Result<u32, Failed> {
    let store = terms.callers(now).is_none();
    let gone = link.execute(PURGE, &[&at(now), &store, &limit]).await?;
    Ok(u32::try_from(gone).unwrap_or(u32::MAX))
}
