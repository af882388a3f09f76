//! Looking at live sessions and changing what they say.

use crate::clock::Timestamp;
use crate::session::claims::Holder;
use crate::session::error::SessionError;
use crate::session::login::{check_attributes, check_subject};
use crate::session::record::{Attributes, SessionRecord};
use crate::session::sessions::Sessions;
use crate::session::store::{ListCursor, Updated};
use crate::token::{Revision, SessionId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const USUAL_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// A subject's live sessions, or some of them.
#[derive(Clone, Debug)]
pub struct SessionPage {
    /// Newest first.
    pub records: Vec<SessionRecord>,
    /// For the page after this one; `None` on the last.
    pub next: Option<String>,
}

impl Sessions {
    /// One live session, as the store has it now.
    ///
    /// # Errors
    /// [`SessionError::NoSuchSession`], [`SessionError::NoSessionsInPolicy`], [`SessionError::Store`].
    pub async fn get(&self, id: SessionId) -> Result<SessionRecord, SessionError> {
        self.require_records()?;
        let (record, _) = self.store.find(id).await?;
        let now = self.clock.now().judged;
        record.filter(|record| self.is_live(record, now)).ok_or(SessionError::NoSuchSession)
    }

    /// A subject's live sessions, newest first, `page_size` at a time (0: 100; at most 1000), from where an earlier
    /// page's token says (empty: from the newest). A page can be shorter than asked and not be the last.
    ///
    /// # Errors
    /// [`SessionError::Invalid`], [`SessionError::NoSessionsInPolicy`], [`SessionError::Store`].
    pub async fn list(
        &self,
        subject: &str,
        page_size: u32,
        page_token: &str,
    ) -> Result<SessionPage, SessionError> {
        self.require_records()?;
        check_subject(subject)?;
        let size = match page_size {
            0 => USUAL_PAGE,
            1..=LARGEST_PAGE => page_size,
            _ => return Err(SessionError::Invalid { field: "page_size", why: "must be at most 1000" }),
        };
        let after = if page_token.is_empty() { None } else { Some(read_page_token(page_token)?) };
        let now = self.clock.now().judged;
        let subject_key = self.subject_key(subject);
        let mut records = self.store.list(subject_key, after, size.saturating_add(1), now).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = records.len() > size;
        records.truncate(size);
        let next = records.last().filter(|_| more).map(|last| write_page_token((last.created_at, last.id)));
        records.retain(|record| self.is_live(record, now));
        Ok(SessionPage { records, next })
    }

    /// Replaces a live session's attributes. When this returns, its older access tokens are denied here as stale, and
    /// refresh into ones that say the new things. Answers with the session as it is now, and the position from which on
    /// other sidecars deny them, too.
    ///
    /// # Errors
    /// [`SessionError::Invalid`] and [`SessionError::TokenTooLarge`] change nothing;
    /// [`SessionError::NoSuchSession`], [`SessionError::NoSessionsInPolicy`], [`SessionError::Store`].
    pub async fn update(
        &self,
        id: SessionId,
        attributes: Attributes,
    ) -> Result<(SessionRecord, Revision), SessionError> {
        self.require_records()?;
        check_attributes(&attributes)?;
        let record = self.get(id).await?;
        let policy = self.policy_of(&record).ok_or(SessionError::NoSuchSession)?;
        let now = self.clock.now().judged;
        let changed = Holder { attributes: &attributes, ..Holder::of(&record, policy) };
        self.minter.check_size(policy, changed, now)?;
        let key = self.session_key(id);
        let updated = self.store.update(id, key, attributes, policy.stale_claims_life(), now).await?;
        let Updated { record, entry, revision } = updated.ok_or(SessionError::NoSuchSession)?;
        self.deny(&entry, revision);
        Ok((record, revision))
    }
}

fn write_page_token((created_at, id): ListCursor) -> String {
    let mut bytes = created_at.as_millis().to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_page_token(text: &str) -> Result<ListCursor, SessionError> {
    let bad = || SessionError::Invalid { field: "page_token", why: "must be as an earlier page gave it" };
    if text.len() != 32 {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
    let (created_at, id) = bytes.split_first_chunk::<8>().ok_or_else(bad)?;
    let id = <[u8; 16]>::try_from(id).map_err(|_| bad())?;
    Ok((Timestamp::from_millis(u64::from_be_bytes(*created_at)), SessionId::from_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_reads_back() {
        let cursor = (Timestamp::from_millis(1_800_000_000_123), SessionId::from_bytes([7; 16]));
        assert_eq!(read_page_token(&write_page_token(cursor)).unwrap(), cursor);
    }

    #[test]
    fn a_page_token_nobody_gave_is_refused() {
        for bad in ["a", "====", &"a".repeat(31), &"a".repeat(33), &"é".repeat(16), &"a".repeat(4000)] {
            assert!(matches!(read_page_token(bad), Err(SessionError::Invalid { field: "page_token", .. })));
        }
    }
}
