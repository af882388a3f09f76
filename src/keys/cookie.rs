//! The keys of an Auth.js application's encrypted session cookies, derived from its secrets, following their files.
//!
//! Auth.js v5 derives one key for each secret, cookie name and content encryption; the name is part of the salt, so a
//! cookie is good under its own name alone. NextAuth v4 derives one key, whatever the name.

use crate::keys::content::{ContentEncryption, ContentKey};
use crate::keys::signing::Causes;
use crate::keys::watched::{LOOK_EVERY, read_whole};
use crate::token::{Secret, TokenDigest};
use arc_swap::ArcSwap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A secret's file may be this long.
const LARGEST_SECRET: usize = 4096;

/// Which library wrote the cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieVersion {
    /// Auth.js v5 (`@auth/core`).
    AuthJs5,
    /// NextAuth v4.
    NextAuth4,
}

impl CookieVersion {
    /// The cookies' names where an application sets none, the one on HTTPS first. The other is for development: whoever
    /// can speak for a neighbouring host can plant it.
    #[must_use]
    pub const fn usual_names(self) -> [&'static str; 2] {
        match self {
            Self::AuthJs5 => ["__Secure-authjs.session-token", "authjs.session-token"],
            Self::NextAuth4 => ["__Secure-next-auth.session-token", "next-auth.session-token"],
        }
    }

    /// The longest value of one cookie; a longer one is set in chunks of this size.
    #[must_use]
    pub const fn chunk_bytes(self) -> usize {
        match self {
            Self::AuthJs5 => 3936,
            Self::NextAuth4 => 3933,
        }
    }

    /// What the library encrypts with.
    #[must_use]
    pub const fn encrypts_with(self) -> ContentEncryption {
        match self {
            Self::AuthJs5 => ContentEncryption::A256CbcHs512,
            Self::NextAuth4 => ContentEncryption::A256Gcm,
        }
    }

    /// Whether a cookie's header names its key.
    #[must_use]
    pub const fn names_keys(self) -> bool {
        matches!(self, Self::AuthJs5)
    }

    const fn decrypts(self) -> &'static [ContentEncryption] {
        match self {
            Self::AuthJs5 => &[ContentEncryption::A256CbcHs512, ContentEncryption::A256Gcm],
            Self::NextAuth4 => &[ContentEncryption::A256Gcm],
        }
    }
}

/// Where the keys come from.
#[derive(Clone, Debug)]
pub struct CookieSettings {
    /// Which library.
    pub version: CookieVersion,
    /// The cookies' exact names; at least one.
    pub names: Vec<String>,
    /// The secrets' files, as the application lists them: the first encrypts, all decrypt; at least one.
    pub secret_files: Vec<PathBuf>,
    /// How long a cookie lives that we renew.
    pub max_age: Duration,
    /// Members of their content that are neither shown nor kept.
    pub withhold: Vec<String>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum CookieKeyError {
    /// A file can't be read.
    #[error("the secret's file can't be read")]
    Read(#[source] io::Error),
    /// A file holds nothing.
    #[error("the file holds no secret; write the application's AUTH_SECRET into it")]
    Empty,
    /// Not text, which the application's secret is.
    #[error("the file holds no UTF-8 text; write the application's AUTH_SECRET into it as it is")]
    NotText,
    /// Derivation failed, which has no known cause.
    #[error("the secret can't be used")]
    Unusable,
}

/// One derived key.
pub struct CookieKey {
    /// The cookie it is for; `None` where the name doesn't matter.
    name: Option<Box<str>>,
    /// The secret's place in the list.
    place: usize,
    key: ContentKey,
}

impl CookieKey {
    /// The key itself.
    #[must_use]
    pub const fn content_key(&self) -> &ContentKey {
        &self.key
    }

    /// The cookie it is for; `None` where the name doesn't matter.
    #[must_use]
    pub fn cookie(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the name is one of the application's is asked before.
    fn suits(&self, name: &str) -> bool {
        name.is_empty() || self.name.as_deref().is_none_or(|own| own == name)
    }
}

/// The keys, following their secrets' files.
pub struct CookieKeys {
    settings: CookieSettings,
    loaded: ArcSwap<Loaded>,
}

/// The keys at one time.
pub struct Loaded {
    /// Counts changes, from 1.
    pub generation: u64,
    /// Of the secrets.
    digests: Vec<TokenDigest>,
    keys: Vec<CookieKey>,
}

impl Loaded {
    /// The keys that may have sealed a cookie of this name (any, where it is empty), by its header's `kid` and `enc`.
    /// Without `kid` only the first secret's count, as in Auth.js.
    pub fn candidates<'l>(
        &'l self,
        name: &'l str,
        key_id: Option<&'l str>,
        algorithm: ContentEncryption,
    ) -> impl Iterator<Item = &'l CookieKey> {
        self.keys.iter().filter(move |key| {
            key.key.algorithm() == algorithm
                && key.suits(name)
                && key_id.map_or(key.place == 0, |id| key.key.thumbprint() == id)
        })
    }
}

impl CookieKeys {
    /// Reads the files and derives the keys; [`Self::run`] then follows them.
    ///
    /// # Errors
    /// The place of the file in the settings, and [`CookieKeyError`].
    pub fn load(settings: CookieSettings) -> Result<Self, (usize, CookieKeyError)> {
        let mut secrets = Vec::new();
        for (place, path) in settings.secret_files.iter().enumerate() {
            secrets.push(read(path).map_err(|error| (place, error))?);
        }
        let keys = derive(&settings, &secrets).map_err(|error| (0, error))?;
        Ok(Self {
            settings,
            loaded: ArcSwap::from_pointee(Loaded { generation: 1, digests: digests(&secrets), keys }),
        })
    }

    /// The keys now.
    #[must_use]
    pub fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Counts changes of the keys, from 1: what was accepted under another generation has to be judged anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.loaded.load().generation
    }

    /// Which library, and the cookies' names.
    #[must_use]
    pub const fn settings(&self) -> &CookieSettings {
        &self.settings
    }

    /// Whether any key is the same as one of another application's.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.loaded.load(), other.loaded.load());
        ours.keys
            .iter()
            .any(|key| theirs.keys.iter().any(|other| other.key.thumbprint() == key.key.thumbprint()))
    }

    /// Looks at all files again and again until cancelled. Keys change when all are good; else they stay, with a warning,
    /// and each look tries anew. A secret is withdrawn by other content in its file, not by taking the file away.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut told = None;
        while cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.look()).await;
            let why = match looked {
                Ok(Ok(())) | Err(_) => None,
                Ok(Err(error)) => Some(Causes(&error).to_string()),
            };
            if let Some(error) = &why
                && why != told
            {
                tracing::warn!(
                    error,
                    "session cookies' secrets can't be read; the keys before stay in force"
                );
            }
            told = why;
        }
    }

    /// Reads every file, and puts keys in force that differ from those before.
    fn look(&self) -> Result<(), CookieKeyError> {
        let secrets =
            self.settings.secret_files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let digests = digests(&secrets);
        let before = self.loaded.load();
        if before.digests != digests {
            let (generation, keys) = (before.generation + 1, derive(&self.settings, &secrets)?);
            self.loaded.store(Arc::new(Loaded { generation, digests, keys }));
            tracing::info!(secrets = secrets.len(), "session cookies' keys were read again");
        }
        Ok(())
    }
}

fn digests(secrets: &[Secret]) -> Vec<TokenDigest> {
    secrets.iter().map(|secret| TokenDigest::of(secret.expose())).collect()
}

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKeys").field("names", &self.settings.names).finish_non_exhaustive()
    }
}

/// A secret without the newline that its file ends with.
fn read(path: &Path) -> Result<Secret, CookieKeyError> {
    let content = read_whole(path, LARGEST_SECRET).map_err(CookieKeyError::Read)?;
    let trimmed = content.expose().trim_ascii_end();
    if trimmed.is_empty() {
        return Err(CookieKeyError::Empty);
    }
    std::str::from_utf8(trimmed).map_err(|_| CookieKeyError::NotText)?;
    Ok(Secret::new(trimmed.to_vec()))
}

fn derive(settings: &CookieSettings, secrets: &[Secret]) -> Result<Vec<CookieKey>, CookieKeyError> {
    let derived = |algorithm, secret: &Secret, salt: &str, info: &str| {
        ContentKey::derived(algorithm, secret, salt.as_bytes(), info.as_bytes())
            .map_err(|_| CookieKeyError::Unusable)
    };
    let mut keys = Vec::new();
    for (place, secret) in secrets.iter().enumerate() {
        for algorithm in settings.version.decrypts() {
            match settings.version {
                CookieVersion::AuthJs5 => {
                    for name in &settings.names {
                        let info = format!("Auth.js Generated Encryption Key ({name})");
                        let key = derived(*algorithm, secret, name, &info)?;
                        keys.push(CookieKey { name: Some(name.as_str().into()), place, key });
                    }
                }
                CookieVersion::NextAuth4 => {
                    let key = derived(*algorithm, secret, "", "NextAuth.js Generated Encryption Key")?;
                    keys.push(CookieKey { name: None, place, key });
                }
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn write(dir: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn settings(version: CookieVersion, secret_files: Vec<PathBuf>) -> CookieSettings {
        CookieSettings {
            version,
            names: version.usual_names().map(str::to_owned).to_vec(),
            secret_files,
            max_age: Duration::from_secs(30 * 86_400),
            withhold: Vec::new(),
        }
    }

    fn thumbprint_of(secret: &str, salt: &str, info: &str, algorithm: ContentEncryption) -> String {
        let secret = Secret::new(secret.into());
        let key = ContentKey::derived(algorithm, &secret, salt.as_bytes(), info.as_bytes()).unwrap();
        key.thumbprint().to_owned()
    }

    /// Made with `calculateJwkThumbprint` of `jose` from keys that `@auth/core` and `next-auth` derive.
    #[test]
    fn derived_keys_are_those_of_auth_js_and_next_auth() {
        for (salt, info, algorithm, thumbprint) in THUMBPRINTS {
            assert_eq!(thumbprint_of("secret", salt, info, algorithm), thumbprint, "{salt}");
        }
    }

    const THUMBPRINTS: [(&str, &str, ContentEncryption, &str); 3] = [
        (
            "authjs.session-token",
            "Auth.js Generated Encryption Key (authjs.session-token)",
            ContentEncryption::A256CbcHs512,
            "7x9DUMVaEU6giab0l0OWDt4e4SsRH_cbwMof2EzEyy6onK5o8xSPPB799RVoqm2v6z674kQCv9jom2T8S-a1dQ",
        ),
        (
            "__Secure-authjs.session-token",
            "Auth.js Generated Encryption Key (__Secure-authjs.session-token)",
            ContentEncryption::A256CbcHs512,
            "7E3YIGAxRtn6djTGy1UjZrFvXELHKzM9vfWl0nQ4b88EsnrmmX0grN0VKis7G3fjgB626TXm_lEtBG1N0E7Xyg",
        ),
        (
            "",
            "NextAuth.js Generated Encryption Key",
            ContentEncryption::A256Gcm,
            "HxIcee9aV8Wka6lZ-aKrURWa5wrsuEWIYYLwrUSymv4",
        ),
    ];

    #[test]
    fn a_kid_chooses_among_secrets_and_without_one_the_first_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![write(&dir, "new", "new secret\n"), write(&dir, "old", "old secret")];
        let keys = CookieKeys::load(settings(CookieVersion::AuthJs5, files)).unwrap();
        let loaded = keys.loaded();
        let cbc = ContentEncryption::A256CbcHs512;
        let [secure, plain] = CookieVersion::AuthJs5.usual_names();
        let of = |secret: &str, name: &str| {
            thumbprint_of(secret, name, &format!("Auth.js Generated Encryption Key ({name})"), cbc)
        };
        let count = |name: &str, id: Option<&str>| loaded.candidates(name, id, cbc).count();
        assert_eq!(count(plain, Some(&of("old secret", plain))), 1);
        assert_eq!(count("", Some(&of("old secret", plain))), 1);
        assert_eq!(count(secure, Some(&of("old secret", plain))), 0, "another cookie's key");
        assert_eq!(count(plain, Some(&of("third", plain))), 0);
        assert_eq!(count(plain, None), 1);
        assert_eq!(loaded.candidates(plain, None, cbc).next().unwrap().place, 0);
        assert_eq!(count("session", None), 0, "a name that is not configured");
    }

    #[test]
    fn a_missing_an_empty_and_a_binary_file_are_told_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let good = write(&dir, "good", "a secret");
        let load = |second: PathBuf| {
            CookieKeys::load(settings(CookieVersion::NextAuth4, vec![good.clone(), second])).unwrap_err()
        };
        assert!(matches!(load(dir.path().join("none")), (1, CookieKeyError::Read(_))));
        assert!(matches!(load(write(&dir, "empty", " \n")), (1, CookieKeyError::Empty)));
        std::fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
        assert!(matches!(load(dir.path().join("binary")), (1, CookieKeyError::NotText)));
    }

    #[test]
    fn a_change_is_a_new_generation_and_a_bad_one_leaves_the_keys_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "secret", "first");
        let keys = CookieKeys::load(settings(CookieVersion::NextAuth4, vec![path.clone()])).unwrap();
        let _ = keys.look();
        assert_eq!(keys.generation(), 1, "nothing changed");
        std::fs::write(&path, "").unwrap();
        let _ = keys.look();
        assert_eq!(keys.generation(), 1);
        std::fs::write(&path, "second").unwrap();
        let _ = keys.look();
        assert_eq!(keys.generation(), 2);
        // Two files of which one is missing for a moment: what the other says is not lost.
        let other = write(&dir, "other", "third");
        let keys =
            CookieKeys::load(settings(CookieVersion::AuthJs5, vec![path.clone(), other.clone()])).unwrap();
        std::fs::remove_file(&other).unwrap();
        std::fs::write(&path, "newest").unwrap();
        assert!(matches!(keys.look(), Err(CookieKeyError::Read(_))));
        std::fs::write(&other, "third").unwrap();
        keys.look().unwrap();
        assert_eq!(keys.generation(), 2);
        keys.look().unwrap();
        assert_eq!(keys.generation(), 2);
    }

    #[test]
    fn debug_shows_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "secret", "hunter2");
        let keys = CookieKeys::load(settings(CookieVersion::AuthJs5, vec![path])).unwrap();
        let shown = format!("{keys:?} {:?}", keys.loaded().keys[0].content_key());
        assert!(!shown.contains("hunter2") && !shown.contains(&URL_SAFE_NO_PAD.encode("hunter2")), "{shown}");
    }
}
