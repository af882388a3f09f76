//! The key file's JSON, apart from what its keys mean.

use crate::clock::Timestamp;
use crate::keys::Algorithm;
use crate::token::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Beyond it RFC 3339 has no spelling.
const YEAR_10000: Timestamp = Timestamp::from_secs(253_402_300_800);

/// One key of a file, with its private half.
#[derive(Debug)]
pub struct StoredKey {
    /// Its name: an RFC 7638 thumbprint for key pairs, random for secrets.
    pub kid: String,
    /// What it does.
    pub algorithm: Algorithm,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it makes new tokens.
    pub signs_from: Timestamp,
    /// PKCS#8 of a key pair, or a secret's bytes.
    pub(super) material: Secret,
}

impl StoredKey {
    /// What names the key inside an opaque token, where its `kid` would take too much room.
    pub(super) fn short_id(&self) -> [u8; 4] {
        let digest = digest(&SHA256, self.kid.as_bytes());
        digest.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Whether the two can't live in one file.
    pub(super) fn collides_with(&self, other: &Self) -> bool {
        self.kid == other.kid || self.short_id() == other.short_id()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a, K> {
    #[serde(borrow)]
    purpose: std::borrow::Cow<'a, str>,
    keys: K,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kid: String,
    alg: Alg,
    created: Instant,
    signs_from: Instant,
    private: Material,
}

struct Alg(Algorithm);
struct Instant(Timestamp);
struct Material(Secret);

/// The purpose's name and the keys, in the file's order.
pub(super) fn read(content: &[u8]) -> Result<(String, Vec<StoredKey>), serde_json::Error> {
    let document: Document<'_, Vec<Entry>> = serde_json::from_slice(content)?;
    let keys = document.keys.into_iter().map(|entry| StoredKey {
        kid: entry.kid,
        algorithm: entry.alg.0,
        created: entry.created.0,
        signs_from: entry.signs_from.0,
        material: entry.private.0,
    });
    Ok((document.purpose.into_owned(), keys.collect()))
}

/// The file's content.
pub(super) fn render(purpose: &str, keys: &[StoredKey]) -> Result<Secret, serde_json::Error> {
    let entries: Vec<Entry> = keys
        .iter()
        .map(|key| Entry {
            kid: key.kid.clone(),
            alg: Alg(key.algorithm),
            created: Instant(key.created),
            signs_from: Instant(key.signs_from),
            private: Material(key.material.clone()),
        })
        .collect();
    // Roomy enough never to move, so that no copy of a key is left behind.
    let room = keys.iter().map(|key| 2 * (key.material.expose().len() + key.kid.len()) + 512).sum::<usize>();
    let mut content = Vec::with_capacity(room + 512);
    serde_json::to_writer_pretty(&mut content, &Document { purpose: purpose.into(), keys: entries })?;
    content.push(b'\n');
    Ok(Secret::new(content))
}

impl Serialize for Alg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Alg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(self.0.as_millis()));
        match at {
            Some(at) if self.0 < YEAR_10000 => serializer.collect_str(&humantime::format_rfc3339_millis(at)),
            Some(_) | None => Err(S::Error::custom("no date before the year 10000")),
        }
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at = humantime::parse_rfc3339(&text).map_err(D::Error::custom)?;
        let since = at.duration_since(UNIX_EPOCH).map_err(D::Error::custom)?;
        let millis = u64::try_from(since.as_millis()).map_err(D::Error::custom)?;
        Ok(Self(Timestamp::from_millis(millis)))
    }
}

impl Serialize for Material {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for Material {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64Url;
        impl Visitor<'_> for Base64Url {
            type Value = Material;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64url")
            }

            /// Decoded from the file's own bytes: no copy of the text is made that would have to be erased.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Material, E> {
                let decoded = URL_SAFE_NO_PAD.decode(text).map_err(|_| E::custom("not base64url"))?;
                Ok(Material(Secret::new(decoded)))
            }
        }
        deserializer.deserialize_str(Base64Url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_as_written() {
        let key = StoredKey {
            kid: "a".into(),
            algorithm: Algorithm::Hs256,
            created: Timestamp::from_millis(1_800_000_000_123),
            signs_from: Timestamp::from_secs(1_800_003_600),
            material: Secret::new(vec![0, 255, 7]),
        };
        let content = render("handles", &[key]).unwrap();
        let text = std::str::from_utf8(content.expose()).unwrap();
        assert!(text.contains(r#""signs_from": "2027-01-15T09:00:00.000Z""#), "{text}");
        let (purpose, keys) = read(content.expose()).unwrap();
        assert_eq!(purpose, "handles");
        assert_eq!((keys[0].kid.as_str(), keys[0].algorithm), ("a", Algorithm::Hs256));
        assert_eq!(keys[0].created, Timestamp::from_millis(1_800_000_000_123));
        assert_eq!(keys[0].signs_from, Timestamp::from_secs(1_800_003_600));
        assert_eq!(keys[0].material.expose(), [0, 255, 7]);
        assert!(format!("{keys:?}").contains("material: Secret(…)"));
    }

    #[test]
    fn unknown_missing_and_repeated_members_are_refused() {
        let good = r#"{"purpose":"handles","keys":[]}"#;
        assert!(read(good.as_bytes()).is_ok());
        for bad in [
            r#"{"keys":[]}"#,
            r#"{"purpose":"handles","keys":[],"more":1}"#,
            r#"{"purpose":"handles","purpose":"signing","keys":[]}"#,
            r#"{"purpose":"handles","keys":[{"kid":"a"}]}"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
