//! Opaque tokens: refresh tokens (`csr_`) and session tokens (`css_`).
//!
//! ```text
//! prefix ‖ base64url( key id, 4 bytes ‖ session id, 16 ‖ generation, 8, big-endian ‖ HMAC-SHA-256, 32 )
//! ```
//! The MAC covers the prefix and all that stands before it, so that one kind never passes for the other. It proves that we
//! made the token, so made-up ones never reach the store; whether the session lives is the store's to say.

use crate::clock::Timestamp;
use crate::keys::fault::{KeyFileError, Purpose};
use crate::keys::key_file::{KeyFile, signing_at};
use crate::keys::key_set::LARGEST_SET;
use crate::keys::signing::Causes;
use crate::keys::watched::{Watched, follow};
use crate::token::{Secret, SessionId};
use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const BODY: usize = 4 + 16 + 8;
const MAC: usize = 32;
/// A multiple of three, so that its base64url has one spelling and no padding.
const BINARY: usize = BODY + MAC;
const TEXT: usize = BINARY / 3 * 4;

/// What an opaque token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandleKind {
    /// Renews access tokens.
    Refresh,
    /// Is itself what a service is shown.
    Session,
}

impl HandleKind {
    /// What such tokens start with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "csr_",
            Self::Session => "css_",
        }
    }

    /// The kind a text claims to be, by its prefix alone.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        [Self::Refresh, Self::Session].into_iter().find(|kind| text.starts_with(kind.prefix()))
    }
}

/// What an authentic opaque token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// What it is for.
    pub kind: HandleKind,
    /// Whose it is.
    pub session: SessionId,
    /// Counts rotations of a refresh token; 0 in a session token.
    pub generation: u64,
}

/// Why a text is no opaque token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Not the layout.
    #[error("not an opaque token")]
    Malformed,
    /// Authenticated by a key that we do not have (any more).
    #[error("an opaque token of an unknown key")]
    UnknownKey,
    /// Not made by the key it names.
    #[error("an opaque token that was tampered with")]
    BadMac,
}

/// The keys that authenticate opaque tokens, following their file.
pub struct HandleKeys {
    path: PathBuf,
    loaded: ArcSwap<Vec<HandleKey>>,
}

struct HandleKey {
    id: [u8; 4],
    signs_from: Timestamp,
    key: hmac::Key,
}

impl HandleKeys {
    /// Reads the file; [`Self::run`] then follows it.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: PathBuf) -> Result<Self, KeyFileError> {
        let loaded = prepare(&KeyFile::read(&path, Purpose::Handles)?);
        Ok(Self { path, loaded: ArcSwap::from_pointee(loaded) })
    }

    /// Makes a token with the newest key that signs at `now`. The same arguments under the same key make the same token.
    #[must_use]
    pub fn mint(&self, kind: HandleKind, session: SessionId, generation: u64, now: Timestamp) -> String {
        let loaded = self.loaded.load();
        let mut text = String::with_capacity(kind.prefix().len() + TEXT);
        text.push_str(kind.prefix());
        // A file without keys is never loaded.
        if let Some(key) = signing_at(&loaded, now, |key| key.signs_from) {
            let body = [&key.id[..], session.as_bytes(), &generation.to_be_bytes()].concat();
            let mac = hmac::sign(&key.key, &[kind.prefix().as_bytes(), &body].concat());
            URL_SAFE_NO_PAD.encode_string([&body, mac.as_ref()].concat(), &mut text);
        }
        text
    }

    /// Reads a token that any key of the file made, in its one spelling. The MAC is compared in constant time.
    ///
    /// Whether the session exists and the generation is current is not checked.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn open(&self, text: &str) -> Result<Handle, HandleError> {
        let kind = HandleKind::of(text).ok_or(HandleError::Malformed)?;
        let encoded = text.strip_prefix(kind.prefix()).ok_or(HandleError::Malformed)?;
        if encoded.len() != TEXT {
            return Err(HandleError::Malformed);
        }
        let binary = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| HandleError::Malformed)?;
        let (body, mac) = binary.split_first_chunk::<BODY>().ok_or(HandleError::Malformed)?;
        let (id, rest) = body.split_first_chunk::<4>().ok_or(HandleError::Malformed)?;
        let (session, generation) = rest.split_first_chunk::<16>().ok_or(HandleError::Malformed)?;
        let generation = generation.first_chunk().ok_or(HandleError::Malformed)?;

        let loaded = self.loaded.load();
        let key = loaded.iter().find(|key| key.id == *id).ok_or(HandleError::UnknownKey)?;
        let covered = [kind.prefix().as_bytes(), body].concat();
        hmac::verify(&key.key, &covered, mac).map_err(|_| HandleError::BadMac)?;
        let session = SessionId::from_bytes(*session);
        Ok(Handle { kind, session, generation: u64::from_be_bytes(*generation) })
    }

    /// Follows the file until cancelled; a bad or missing file leaves the keys as they are, with a warning.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let watched = Watched::new(self.path.clone(), LARGEST_SET);
        cancel.run_until_cancelled(follow(watched, |read| self.reload(read))).await;
    }

    fn reload(&self, read: io::Result<Secret>) {
        let path = self.path.display();
        let file = read
            .map_err(|source| KeyFileError::Io { path: self.path.clone(), source })
            .and_then(|content| KeyFile::parse(&content, Purpose::Handles));
        match file {
            Ok(file) => {
                tracing::debug!(%path, keys = file.keys().len(), "opaque tokens' keys read");
                self.loaded.store(Arc::new(prepare(&file)));
            }
            Err(error) => tracing::warn!(%path, error = %Causes(&error), "opaque tokens' keys not reloaded"),
        }
    }
}

fn prepare(file: &KeyFile) -> Vec<HandleKey> {
    let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let keys = file.keys().iter().map(|stored| HandleKey {
        id: stored.short_id(),
        signs_from: stored.signs_from,
        key: key(&stored.material),
    });
    keys.collect()
}

impl fmt::Debug for HandleKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleKeys").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key_file::NewKey;
    use proptest::prelude::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const SESSION: SessionId = SessionId::from_bytes([7; 16]);

    fn keys() -> (tempfile::TempDir, PathBuf, HandleKeys) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handles.json");
        KeyFile::generate(NewKey::Handles, NOW).unwrap().create(&path).unwrap();
        let keys = HandleKeys::load(path.clone()).unwrap();
        (dir, path, keys)
    }

    #[test]
    fn a_token_opens_to_what_it_was_minted_for() {
        let (_dir, _, keys) = keys();
        for (kind, generation) in [(HandleKind::Refresh, u64::MAX), (HandleKind::Session, 0)] {
            let token = keys.mint(kind, SESSION, generation, NOW);
            assert!(token.starts_with(kind.prefix()) && token.len() == 84, "{}", token.len());
            assert_eq!(keys.open(&token), Ok(Handle { kind, session: SESSION, generation }));
        }
    }

    #[test]
    fn a_refresh_token_never_passes_for_a_session_token() {
        let (_dir, _, keys) = keys();
        let refresh = keys.mint(HandleKind::Refresh, SESSION, 0, NOW);
        assert_eq!(keys.open(&refresh.replace("csr_", "css_")), Err(HandleError::BadMac));
        let session = keys.mint(HandleKind::Session, SESSION, 0, NOW);
        assert_eq!(keys.open(&session.replace("css_", "csr_")), Err(HandleError::BadMac));
    }

    #[test]
    fn a_raised_generation_is_refused() {
        let (_dir, _, keys) = keys();
        let token = keys.mint(HandleKind::Refresh, SESSION, 1, NOW);
        let mut binary = URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
        binary[27] = 2;
        let forged = format!("csr_{}", URL_SAFE_NO_PAD.encode(binary));
        assert_eq!(keys.open(&forged), Err(HandleError::BadMac));
    }

    #[test]
    fn a_token_has_one_spelling() {
        let (_dir, _, keys) = keys();
        let token = keys.mint(HandleKind::Refresh, SESSION, 1, NOW);
        let longer = format!("{token}A");
        let padded = format!("{token}=");
        let spaced = format!(" {token}");
        let shouted = token.replace("csr_", "CSR_");
        let broken = format!("{}\n", &token[..83]);
        for bad in ["", "csr_", &token[..80], &longer, &padded, &spaced, &shouted, &broken] {
            assert_eq!(keys.open(bad), Err(HandleError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn another_file_s_token_is_of_an_unknown_key() {
        let (_a, _, ours) = keys();
        let (_b, _, theirs) = keys();
        let token = theirs.mint(HandleKind::Refresh, SESSION, 1, NOW);
        assert_eq!(ours.open(&token), Err(HandleError::UnknownKey));
    }

    #[test]
    fn a_next_key_opens_before_it_mints_and_an_old_one_after() {
        let (_dir, path, keys) = keys();
        let old = keys.mint(HandleKind::Refresh, SESSION, 1, NOW);
        KeyFile::change(&path, Purpose::Handles, |file| file.rotate(NOW, HOUR, HOUR)).unwrap();
        keys.reload(std::fs::read(&path).map(Secret::new));
        assert_eq!(keys.mint(HandleKind::Refresh, SESSION, 1, NOW), old, "every sidecar must learn the next");
        let next = keys.mint(HandleKind::Refresh, SESSION, 1, NOW.after(HOUR));
        assert_ne!(next, old);
        assert!(keys.open(&next).is_ok());
        assert!(keys.open(&old).is_ok());
    }

    #[test]
    fn a_bad_or_missing_file_leaves_the_last_good_keys() {
        let (_dir, path, keys) = keys();
        let token = keys.mint(HandleKind::Refresh, SESSION, 1, NOW);
        for content in ["", "{", r#"{"purpose":"handles","keys":[]}"#] {
            std::fs::write(&path, content).unwrap();
            keys.reload(std::fs::read(&path).map(Secret::new));
        }
        keys.reload(Err(io::Error::from(io::ErrorKind::NotFound)));
        assert!(keys.open(&token).is_ok());
    }

    proptest! {
        #[test]
        fn no_altered_byte_survives(at in 0_usize..BINARY, flip in 1_u8..) {
            let (_dir, _, keys) = keys();
            let token = keys.mint(HandleKind::Refresh, SESSION, 9, NOW);
            let mut binary = URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
            binary[at] ^= flip;
            let opened = keys.open(&format!("csr_{}", URL_SAFE_NO_PAD.encode(binary)));
            prop_assert!(matches!(opened, Err(HandleError::UnknownKey | HandleError::BadMac)));
        }

        #[test]
        fn no_text_panics(text in "(csr_|css_)?\\PC{0,100}") {
            let (_dir, _, keys) = keys();
            prop_assert!(keys.open(&text).is_err());
        }
    }
}
