//! The file that holds our own private keys, and its rotation.
//!
//! One format serves two purposes: keys that sign access tokens, and keys that authenticate opaque tokens. Every sidecar
//! of a fleet mounts the same file, and not all see a change at the same moment; so a new key is published some time
//! before it signs, and an old one stays for as long as anything it made may live.

use crate::clock::Timestamp;
use crate::keys::Algorithm;
use crate::keys::disk::{self, Exclusive};
use crate::keys::fault::{KeyFileError, LONGEST_KID, Purpose};
use crate::keys::key_set::{LARGEST_SET, MOST_KEYS};
use crate::keys::pair::{KeyPair, SigningAlgorithm};
use crate::keys::stored::{self, StoredKey};
use crate::keys::watched::read_whole;
use crate::token::{Secret, random_bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// A retiring key stays this much longer than the longest life of what it made, for clocks that differ.
pub const RETIREMENT_SLACK: Duration = Duration::from_secs(300);

/// What to make a new key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKey {
    /// A key pair that signs access tokens.
    Signing(SigningAlgorithm),
    /// A secret that authenticates opaque tokens.
    Handles,
}

impl NewKey {
    /// The purpose of a file that starts with such a key.
    #[must_use]
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::Signing(_) => Purpose::Signing,
            Self::Handles => Purpose::Handles,
        }
    }
}

/// The keys of one file, the one that signs first at the front. Never empty.
#[derive(Debug)]
pub struct KeyFile {
    purpose: Purpose,
    keys: Vec<StoredKey>,
}

impl KeyFile {
    /// Makes the first key of a purpose; it signs at once.
    ///
    /// # Errors
    /// [`KeyFileError::Generate`], [`KeyFileError::Randomness`].
    pub fn generate(new: NewKey, now: Timestamp) -> Result<Self, KeyFileError> {
        Ok(Self { purpose: new.purpose(), keys: vec![make(new, now, now)?] })
    }

    /// Reads a file.
    ///
    /// Warns where every user of the machine may read it; group access is usual for mounted secrets.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(path: &Path, purpose: Purpose) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let content = read_whole(path, LARGEST_SET).map_err(io)?;
        let mode = std::fs::metadata(path).map_err(io)?.permissions().mode();
        if mode & 0o007 != 0 {
            tracing::warn!(path = %path.display(), "every user of this machine may read the private keys");
        }
        Self::parse(&content, purpose)
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// [`KeyFileError`], other than I/O.
    pub(super) fn parse(content: &Secret, purpose: Purpose) -> Result<Self, KeyFileError> {
        let (named, mut keys) = stored::read(content.expose())
            .map_err(|error| KeyFileError::Malformed { line: error.line(), column: error.column() })?;
        if named != purpose.as_str() {
            return Err(KeyFileError::WrongPurpose { wanted: purpose });
        }
        if keys.is_empty() || keys.len() > MOST_KEYS {
            return Err(KeyFileError::Count);
        }
        for (index, key) in keys.iter().enumerate() {
            let fits = match purpose {
                Purpose::Signing => SigningAlgorithm::try_from(key.algorithm).is_ok(),
                Purpose::Handles => key.algorithm == Algorithm::Hs256 && key.material.expose().len() >= 32,
            };
            if !fits || key.kid.is_empty() || key.kid.len() > LONGEST_KID {
                return Err(KeyFileError::BadKey { index });
            }
            if keys.iter().take(index).any(|earlier| earlier.collides_with(key)) {
                return Err(KeyFileError::Duplicate { index });
            }
        }
        keys.sort_by_key(|key| key.signs_from);
        Ok(Self { purpose, keys })
    }

    /// Every key, by the instant it starts to sign.
    #[must_use]
    pub fn keys(&self) -> &[StoredKey] {
        &self.keys
    }

    /// Adds the next key, which signs from `now` + `publish_ahead` on, and drops those that nothing alive can need:
    /// whose successor began more than `longest_life` and [`RETIREMENT_SLACK`] ago.
    ///
    /// `publish_ahead` is the time every sidecar and every verifier of our tokens gets to learn the key.
    ///
    /// # Errors
    /// [`KeyFileError::RotationPending`] while the newest key does not sign yet, and those of [`Self::generate`].
    pub fn rotate(
        &mut self,
        now: Timestamp,
        publish_ahead: Duration,
        longest_life: Duration,
    ) -> Result<(), KeyFileError> {
        let newest = self.keys.last().ok_or(KeyFileError::Count)?;
        if newest.signs_from > now {
            return Err(KeyFileError::RotationPending { signs_from: newest.signs_from });
        }
        let new = match self.purpose {
            Purpose::Handles => NewKey::Handles,
            Purpose::Signing => {
                let algorithm = SigningAlgorithm::try_from(newest.algorithm);
                NewKey::Signing(algorithm.map_err(|_| KeyFileError::Generate)?)
            }
        };
        let next = make(new, now, now.after(publish_ahead))?;
        let needed_since = now.before(longest_life.saturating_add(RETIREMENT_SLACK));
        let retired = self.keys.iter().skip(1).take_while(|successor| successor.signs_from < needed_since);
        let retired = retired.count();
        self.keys.drain(..retired);
        if self.keys.iter().any(|key| key.collides_with(&next)) {
            return Err(KeyFileError::Generate);
        }
        self.keys.push(next);
        Ok(())
    }

    /// Takes a key out at once, for instance because it leaked; everything it made is refused from then on.
    ///
    /// # Errors
    /// [`KeyFileError::Needed`] when there is no such key or none would be left that signs at `now`.
    pub fn withdraw(&mut self, kid: &str, now: Timestamp) -> Result<(), KeyFileError> {
        let known = self.keys.iter().any(|key| key.kid == kid);
        if !known || !self.keys.iter().any(|key| key.kid != kid && key.signs_from <= now) {
            return Err(KeyFileError::Needed);
        }
        self.keys.retain(|key| key.kid != kid);
        Ok(())
    }

    /// Writes a new file, readable by its owner alone.
    ///
    /// # Errors
    /// [`KeyFileError::Io`], of kind `AlreadyExists` when there is a file already: it is never overwritten.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        let content = self.render()?;
        disk::create(path, &content).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
    }

    /// Reads a file, changes its keys and puts the result in its place: readers see the old content or the new.
    ///
    /// # Errors
    /// [`KeyFileError::Busy`] while another process does the same, and what `change` and reading and writing return; then
    /// the file is as it was.
    pub fn change(
        path: &Path,
        purpose: Purpose,
        change: impl FnOnce(&mut Self) -> Result<(), KeyFileError>,
    ) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let exclusive = Exclusive::beside(path).map_err(io)?.ok_or(KeyFileError::Busy)?;
        let mut file = Self::read(path, purpose)?;
        change(&mut file)?;
        exclusive.replace(path, &file.render()?).map_err(io)?;
        Ok(file)
    }

    fn render(&self) -> Result<Secret, KeyFileError> {
        stored::render(self.purpose.as_str(), &self.keys).map_err(|_| KeyFileError::Generate)
    }
}

/// The key that signs at `now`: the newest that may. Where a clock stands before them all, the first of them, on which
/// every sidecar agrees.
pub(super) fn signing_at<T>(keys: &[T], now: Timestamp, signs_from: impl Fn(&T) -> Timestamp) -> Option<&T> {
    keys.iter().rev().find(|key| signs_from(key) <= now).or_else(|| keys.first())
}

fn make(new: NewKey, created: Timestamp, signs_from: Timestamp) -> Result<StoredKey, KeyFileError> {
    let (kid, algorithm, material) = match new {
        NewKey::Signing(algorithm) => {
            let (pair, pkcs8) = KeyPair::generate(algorithm).map_err(|_| KeyFileError::Generate)?;
            (pair.thumbprint(), algorithm.algorithm(), pkcs8)
        }
        NewKey::Handles => {
            let name: [u8; 16] = random_bytes()?;
            let secret = Zeroizing::new(random_bytes::<32>()?);
            (URL_SAFE_NO_PAD.encode(name), Algorithm::Hs256, Secret::new(secret.to_vec()))
        }
    };
    Ok(StoredKey { kid, algorithm, created, signs_from, material })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn kids(file: &KeyFile) -> Vec<&str> {
        file.keys().iter().map(|key| key.kid.as_str()).collect()
    }

    fn signer(file: &KeyFile, now: Timestamp) -> &str {
        &signing_at(file.keys(), now, |key| key.signs_from).unwrap().kid
    }

    #[test]
    fn a_new_file_reads_back_and_signs_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let file = KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), NOW).unwrap();
        file.create(&path).unwrap();
        let read = KeyFile::read(&path, Purpose::Signing).unwrap();
        assert_eq!(kids(&read), kids(&file));
        assert_eq!(signer(&read, NOW), read.keys()[0].kid);
    }

    #[test]
    fn a_file_of_the_other_purpose_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        KeyFile::generate(NewKey::Handles, NOW).unwrap().create(&path).unwrap();
        let refused = KeyFile::read(&path, Purpose::Signing).unwrap_err();
        assert!(matches!(refused, KeyFileError::WrongPurpose { wanted: Purpose::Signing }));
    }

    #[test]
    fn the_next_key_is_published_before_it_signs() {
        let mut file = KeyFile::generate(NewKey::Handles, NOW).unwrap();
        let first = file.keys()[0].kid.clone();
        file.rotate(NOW.after(DAY), HOUR, DAY).unwrap();
        let next = file.keys()[1].kid.clone();
        assert_eq!(signer(&file, NOW.after(DAY)), first);
        assert_eq!(signer(&file, NOW.after(DAY + HOUR)), next);
        assert_eq!(signer(&file, NOW.before(DAY)), first, "a clock behind them all");
    }

    #[test]
    fn a_rotation_waits_for_the_one_before() {
        let mut file = KeyFile::generate(NewKey::Handles, NOW).unwrap();
        file.rotate(NOW, HOUR, DAY).unwrap();
        let refused = file.rotate(NOW, HOUR, DAY).unwrap_err();
        let when = NOW.after(HOUR);
        assert!(matches!(refused, KeyFileError::RotationPending { signs_from } if signs_from == when));
        assert_eq!(file.keys().len(), 2);
    }

    #[test]
    fn a_key_stays_until_nothing_it_made_can_live() {
        let mut file = KeyFile::generate(NewKey::Handles, NOW).unwrap();
        let first = file.keys()[0].kid.clone();
        file.rotate(NOW, HOUR, DAY).unwrap();
        let successor_began = NOW.after(HOUR);
        file.rotate(successor_began.after(DAY), Duration::ZERO, DAY).unwrap();
        assert_eq!(kids(&file)[0], first, "its last token may just be expiring");
        file.rotate(successor_began.after(DAY + RETIREMENT_SLACK + HOUR), Duration::ZERO, DAY).unwrap();
        assert_eq!(file.keys().len(), 3);
        assert!(!kids(&file).contains(&first.as_str()));
    }

    #[test]
    fn a_leaked_key_can_be_withdrawn_once_another_signs() {
        let mut file = KeyFile::generate(NewKey::Handles, NOW).unwrap();
        let leaked = file.keys()[0].kid.clone();
        assert!(matches!(file.withdraw(&leaked, NOW), Err(KeyFileError::Needed)));
        file.rotate(NOW, HOUR, DAY).unwrap();
        assert!(
            matches!(file.withdraw(&leaked, NOW), Err(KeyFileError::Needed)),
            "the next signs only later"
        );
        file.withdraw(&leaked, NOW.after(HOUR)).unwrap();
        assert_eq!(file.keys().len(), 1);
        assert!(matches!(file.withdraw("unknown", NOW.after(HOUR)), Err(KeyFileError::Needed)));
    }

    #[test]
    fn a_change_replaces_the_file_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        KeyFile::generate(NewKey::Handles, NOW).unwrap().create(&path).unwrap();
        let rotated = KeyFile::change(&path, Purpose::Handles, |file| file.rotate(NOW, HOUR, DAY)).unwrap();
        let read = KeyFile::read(&path, Purpose::Handles).unwrap();
        assert_eq!(kids(&read), kids(&rotated));
        assert!(KeyFile::change(&path, Purpose::Handles, |file| file.rotate(NOW, HOUR, DAY)).is_err());
        assert_eq!(KeyFile::read(&path, Purpose::Handles).unwrap().keys().len(), 2);
    }

    #[test]
    fn two_changes_at_once_do_not_lose_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        KeyFile::generate(NewKey::Handles, NOW).unwrap().create(&path).unwrap();
        KeyFile::change(&path, Purpose::Handles, |_| {
            let other = KeyFile::change(&path, Purpose::Handles, |file| file.rotate(NOW, HOUR, DAY));
            assert!(matches!(other, Err(KeyFileError::Busy)));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn what_is_no_key_file_is_refused_and_not_quoted() {
        let parse = |text: &str| KeyFile::parse(&Secret::new(text.into()), Purpose::Handles).unwrap_err();
        assert!(matches!(parse("hunter2"), KeyFileError::Malformed { line: 1, column: 1 }));
        assert!(!format!("{:?}", parse(r#"{"purpose":"handles","keys":"hunter2"}"#)).contains("hunter2"));
        assert!(matches!(parse(r#"{"purpose":"handles","keys":[]}"#), KeyFileError::Count));
        let key = |kid: &str, alg: &str, private: &str| {
            format!(
                r#"{{"kid":"{kid}","alg":"{alg}","created":"2027-01-15T08:00:00Z",
                   "signs_from":"2027-01-15T08:00:00Z","private":"{private}"}}"#
            )
        };
        let file = |keys: &[String]| format!(r#"{{"purpose":"handles","keys":[{}]}}"#, keys.join(","));
        let secret = "A".repeat(43);
        let short = parse(&file(&[key("a", "HS256", "AAAA")]));
        assert!(matches!(short, KeyFileError::BadKey { index: 0 }));
        let foreign = parse(&file(&[key("a", "HS256", &secret), key("b", "EdDSA", &secret)]));
        assert!(matches!(foreign, KeyFileError::BadKey { index: 1 }));
        let twice = parse(&file(&[key("a", "HS256", &secret), key("a", "HS256", &secret)]));
        assert!(matches!(twice, KeyFileError::Duplicate { index: 1 }));
    }
}
