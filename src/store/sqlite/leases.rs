//! Leases of relayed refreshes: a register for each, written only in the place of the one that was seen.

use super::rows::at;
use crate::clock::Timestamp;
use crate::revocation::StoreError;
use crate::token::TokenDigest;
use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn find(
    file: &Connection,
    key: TokenDigest,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut select = file.prepare_cached("SELECT register FROM lease WHERE key = ?1 AND expires > ?2")?;
    Ok(select.query_row(params![key.as_bytes(), at(now)], |row| row.get(0)).optional()?)
}

pub(super) fn put(
    file: &Connection,
    key: TokenDigest,
    seen: Option<&[u8]>,
    register: &[u8],
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let put = match seen {
        None => {
            let sql = "INSERT INTO lease (key, register, expires) VALUES (?1, ?2, ?3) ON CONFLICT (key) \
                       DO UPDATE SET register = excluded.register, expires = excluded.expires \
                       WHERE lease.expires <= ?4";
            file.prepare_cached(sql)?.execute(params![key.as_bytes(), register, at(expires_at), at(now)])?
        }
        Some(seen) => {
            let sql = "UPDATE lease SET register = ?2, expires = ?3 WHERE key = ?1 AND register = ?4";
            file.prepare_cached(sql)?.execute(params![key.as_bytes(), register, at(expires_at), seen])?
        }
    };
    Ok(put > 0)
}

/// Forgets what has expired. No slack: a result is there for latecomers, and not an instant longer than it must.
pub(super) fn purge(file: &Connection, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
    let sql = "DELETE FROM lease WHERE key IN (SELECT key FROM lease WHERE expires <= ?1 LIMIT ?2)";
    let gone = file.prepare_cached(sql)?.execute(params![at(now), limit])?;
    Ok(u32::try_from(gone).unwrap_or(u32::MAX))
}
