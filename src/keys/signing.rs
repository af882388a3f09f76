//! Signs access tokens with our own keys, and shows their public halves.

use crate::clock::Timestamp;
use crate::keys::Algorithm;
use crate::keys::fault::{KeyFileError, Purpose};
use crate::keys::jwk::Origin;
use crate::keys::key_file::{KeyFile, signing_at};
use crate::keys::key_set::{KeySet, KeySetError, LARGEST_SET};
use crate::keys::pair::{KeyPair, SigningAlgorithm};
use crate::keys::watched::{Watched, follow};
use crate::token::Secret;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// AWS-LC failed to sign. No input brings this about.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token could not be signed")]
pub struct SignError;

/// Our own signing keys, following their file.
pub struct SigningKeys {
    path: PathBuf,
    loaded: ArcSwap<Loaded>,
    changes: watch::Sender<()>,
}

struct Loaded {
    signers: Vec<Signer>,
    jwks: Arc<str>,
}

/// A key pair with the header it writes, both made ready once.
struct Signer {
    signs_from: Timestamp,
    pair: KeyPair,
    header: String,
}

impl SigningKeys {
    /// Reads the file; [`Self::run`] then follows it.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: PathBuf) -> Result<Self, KeyFileError> {
        let loaded = Loaded::from_file(&KeyFile::read(&path, Purpose::Signing)?)?;
        Ok(Self { path, loaded: ArcSwap::from_pointee(loaded), changes: watch::Sender::new(()) })
    }

    /// Makes an access token (RFC 9068) of a JSON object: a compact JWS (RFC 7515 §3.1) of type `at+jwt`, by the newest key
    /// that signs at `now`.
    ///
    /// The payload is signed as it is; nothing in it is checked.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, now: Timestamp, payload: &[u8]) -> Result<String, SignError> {
        let loaded = self.loaded.load();
        let signer = signing_at(&loaded.signers, now, |signer| signer.signs_from).ok_or(SignError)?;
        let mut token = String::with_capacity(signer.header.len() + payload.len() * 4 / 3 + 352);
        token.push_str(&signer.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = signer.pair.sign(token.as_bytes()).map_err(|_| SignError)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The JWK set (RFC 7517 §5) of the next, the current and the retiring keys.
    #[must_use]
    pub fn public_jwks(&self) -> Arc<str> {
        Arc::clone(&self.loaded.load().jwks)
    }

    /// The same keys, ready to verify.
    ///
    /// # Errors
    /// [`KeySetError`], which no file that was loaded brings about.
    pub fn verifying_set(&self) -> Result<KeySet, KeySetError> {
        let algorithms = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];
        KeySet::from_jwks(self.public_jwks().as_bytes(), &algorithms, Origin::Local)
    }

    /// Tells whenever the keys changed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Follows the file until cancelled; a bad or missing file leaves the keys as they are, with a warning.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let watched = Watched::new(self.path.clone(), LARGEST_SET);
        cancel.run_until_cancelled(follow(watched, |read| self.reload(read))).await;
    }

    fn reload(&self, read: io::Result<Secret>) {
        let path = self.path.display();
        let loaded = read
            .map_err(|source| KeyFileError::Io { path: self.path.clone(), source })
            .and_then(|content| KeyFile::parse(&content, Purpose::Signing))
            .and_then(|file| Loaded::from_file(&file));
        match loaded {
            Ok(loaded) if loaded.same_keys(&self.loaded.load()) => {}
            Ok(loaded) => {
                tracing::info!(%path, keys = loaded.signers.len(), "signing keys reloaded");
                self.loaded.store(Arc::new(loaded));
                self.changes.send_replace(());
            }
            Err(error) => tracing::warn!(%path, error = %Causes(&error), "signing keys not reloaded"),
        }
    }
}

impl Loaded {
    fn from_file(file: &KeyFile) -> Result<Self, KeyFileError> {
        let (mut signers, mut jwks) = (Vec::new(), Vec::new());
        for (index, key) in file.keys().iter().enumerate() {
            let bad = || KeyFileError::BadKey { index };
            let algorithm = SigningAlgorithm::try_from(key.algorithm).map_err(|_| bad())?;
            let pair = KeyPair::from_pkcs8(algorithm, &key.material).map_err(|_| bad())?;
            let (name, kid) = (key.algorithm.as_str(), serde_json::Value::from(key.kid.as_str()));
            let header = format!(r#"{{"alg":"{name}","typ":"at+jwt","kid":{kid}}}"#);
            let public = pair.public_jwk();
            let members = public.strip_prefix('{').unwrap_or(&public);
            jwks.push(format!(r#"{{"kid":{kid},"use":"sig","alg":"{name}",{members}"#));
            let header = URL_SAFE_NO_PAD.encode(header);
            signers.push(Signer { signs_from: key.signs_from, pair, header });
        }
        Ok(Self { signers, jwks: format!(r#"{{"keys":[{}]}}"#, jwks.join(",")).into() })
    }

    fn same_keys(&self, other: &Self) -> bool {
        let starts =
            |loaded: &Self| loaded.signers.iter().map(|signer| signer.signs_from).collect::<Vec<_>>();
        self.jwks == other.jwks && starts(self) == starts(other)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("path", &self.path).finish_non_exhaustive()
    }
}

/// An error with everything that led to it, for a log line.
pub(super) struct Causes<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key_file::NewKey;
    use crate::keys::key_set::NoKey;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const CLAIMS: &[u8] = br#"{"sub":"alice"}"#;

    fn keys(algorithm: SigningAlgorithm) -> (tempfile::TempDir, PathBuf, SigningKeys) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.json");
        KeyFile::generate(NewKey::Signing(algorithm), NOW).unwrap().create(&path).unwrap();
        let keys = SigningKeys::load(path.clone()).unwrap();
        (dir, path, keys)
    }

    fn kid_of(token: &str) -> String {
        let header = jsonwebtoken::decode_header(token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        header.kid.unwrap()
    }

    fn reread(keys: &SigningKeys, path: &std::path::Path) {
        keys.reload(std::fs::read(path).map(Secret::new));
    }

    #[test]
    fn each_algorithm_s_token_is_good_to_jsonwebtoken_and_to_us() {
        for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
            let (_dir, _, keys) = keys(algorithm);
            let token = keys.sign(NOW, CLAIMS).unwrap();
            let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys.public_jwks()).unwrap();
            let key = jsonwebtoken::DecodingKey::from_jwk(jwks.find(&kid_of(&token)).unwrap()).unwrap();
            let name = algorithm.algorithm().as_str();
            let mut validation = jsonwebtoken::Validation::new(name.parse().unwrap());
            validation.required_spec_claims.clear();
            let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).unwrap().claims;
            assert_eq!(claims["sub"], "alice");
            let (input, signature) = token.rsplit_once('.').unwrap();
            let set = keys.verifying_set().unwrap();
            let key = set.find(Some(&kid_of(&token)), algorithm.algorithm()).unwrap();
            assert!(key.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()));
        }
    }

    #[test]
    fn the_public_set_shows_nothing_private() {
        for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
            let (_dir, _, keys) = keys(algorithm);
            let set: serde_json::Value = serde_json::from_str(&keys.public_jwks()).unwrap();
            let public = ["kid", "use", "alg", "kty", "crv", "x", "y", "n", "e"];
            let jwk = set["keys"][0].as_object().unwrap();
            assert!(jwk.keys().all(|member| public.contains(&member.as_str())), "{:?}", jwk.keys());
        }
    }

    #[test]
    fn a_rotation_publishes_first_and_signs_later() {
        let (_dir, path, keys) = keys(SigningAlgorithm::EdDsa);
        let old = kid_of(&keys.sign(NOW, CLAIMS).unwrap());
        let mut changes = keys.subscribe();
        let file = KeyFile::change(&path, Purpose::Signing, |file| file.rotate(NOW, HOUR, HOUR)).unwrap();
        reread(&keys, &path);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let next = &file.keys()[1].kid;
        assert!(keys.verifying_set().unwrap().find(Some(next), Algorithm::EdDsa).is_ok());
        assert_eq!(kid_of(&keys.sign(NOW, CLAIMS).unwrap()), old);
        assert_eq!(&kid_of(&keys.sign(NOW.after(HOUR), CLAIMS).unwrap()), next);
        reread(&keys, &path);
        assert!(!changes.has_changed().unwrap(), "the same content is no change");
    }

    #[test]
    fn a_withdrawn_key_verifies_no_more() {
        let (_dir, path, keys) = keys(SigningAlgorithm::EdDsa);
        let leaked = kid_of(&keys.sign(NOW, CLAIMS).unwrap());
        KeyFile::change(&path, Purpose::Signing, |file| {
            file.rotate(NOW, Duration::ZERO, HOUR)?;
            file.withdraw(&leaked, NOW)
        })
        .unwrap();
        reread(&keys, &path);
        let set = keys.verifying_set().unwrap();
        assert_eq!(set.find(Some(&leaked), Algorithm::EdDsa).map(drop), Err(NoKey::Unknown));
    }

    #[test]
    fn a_bad_or_missing_file_leaves_the_last_good_keys() {
        let (_dir, path, keys) = keys(SigningAlgorithm::EdDsa);
        let before = keys.public_jwks();
        std::fs::write(&path, "{").unwrap();
        reread(&keys, &path);
        std::fs::remove_file(&path).unwrap();
        reread(&keys, &path);
        KeyFile::generate(NewKey::Handles, NOW).unwrap().create(&path).unwrap();
        reread(&keys, &path);
        assert_eq!(keys.public_jwks(), before);
        assert!(keys.sign(NOW, CLAIMS).is_ok());
    }

    #[test]
    fn a_start_on_a_bad_file_is_an_error() {
        let (dir, path, _) = keys(SigningAlgorithm::EdDsa);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(SigningKeys::load(path), Err(KeyFileError::Malformed { .. })));
        let missing = SigningKeys::load(dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, KeyFileError::Io { .. }));
    }
}
