//! Encrypted session cookies of Auth.js v5 and NextAuth v4: a compact JWE (RFC 7516 §7.1) whose key is the
//! application's own (`alg: dir`), derived from its secret. Opened, held against the same policy as a JWT, kept in the
//! same cache, denied by the same denylist; and renewed as the application itself would.
//!
//! `zip`, `crit` and every algorithm that wraps or agrees on a key (PBES2, RSA, ECDH, AES key wrap) are refused before
//! any key is looked at: Auth.js writes none of them, and each lets a stranger choose how hard we work.

use crate::clock::Timestamp;
use crate::keys::{ContentEncryption, CookieKey, CookieKeys, Sealed};
use crate::members;
use crate::revocation::{DenialKey, Draft};
use crate::token::{Action, Reason, Revision, TokenDigest, random_bytes};
use crate::verify::accept::{NotYet, plain, refused};
use crate::verify::compact::BASE64URL;
use crate::verify::header::MAX_KEY_ID;
use crate::verify::json;
use crate::verify::jwt::Signed;
use crate::verify::presented::Presented;
use crate::verify::refusal::Denied;
use crate::verify::verifier::{denied, undecided};
use crate::verify::{Acceptance, Consistency, Demands, IssuerEntry, Possession, Refusal, Verifier};
use base64::Engine;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// A cookie renewed: the same claims under new `iat`, `exp` and `jti`.
pub struct RenewedCookie {
    /// What to set, each with its name: one cookie, or the chunks of a long one.
    pub cookies: Vec<(String, String)>,
    /// The whole value.
    pub value: String,
    /// When it stops being accepted.
    pub expires_at: Timestamp,
    /// When to renew it.
    pub refresh_after: Timestamp,
    /// The session it names; empty where it names none.
    pub session_id: String,
    /// The log's head when this was decided.
    pub revision: Revision,
}

/// A compact JWE's parts, decoded but not opened.
struct Encrypted<'t> {
    /// The first part as it came, which is authenticated with the content (RFC 7516 §5.1).
    header: &'t str,
    key_id: Option<Box<str>>,
    algorithm: ContentEncryption,
    sealed: Sealed,
}

/// What a key of an issuer's opened.
struct Opened<'k> {
    entry: &'k Arc<IssuerEntry>,
    generation: u64,
    payload: Vec<u8>,
}

impl Verifier {
    /// Whether a credential is renewed here.
    #[must_use]
    pub fn renews(&self, token: &str) -> bool {
        matches!(self.presented(token, ""), Presented::Cookie)
    }

    /// The names of all issuers' cookies, encrypted ones first, in the configuration's order.
    pub fn cookie_names(&self) -> impl Iterator<Item = &str> {
        let keys = self.cookies.iter().filter_map(|entry| entry.settings.cookies.as_ref());
        let encrypted = keys.flat_map(|keys| keys.settings().names.iter());
        let tables = self.tables.iter().filter_map(|entry| entry.settings.table.as_ref());
        encrypted.chain(tables.flat_map(|rows| rows.cookies())).map(String::as_str)
    }

    pub(super) fn accept_cookie(
        &self,
        token: &str,
        name: &str,
        digest: TokenDigest,
    ) -> Result<Arc<Acceptance>, NotYet> {
        let opened = self.open_cookie(token, name).map_err(NotYet::Refused)?;
        let Opened { entry, generation, payload } = &opened;
        let of_issuer = |denied| refused(denied, entry);
        let mut signed = Signed::decrypted(token, payload).map_err(of_issuer)?;
        let shown =
            entry.settings.cookies.as_ref().and_then(|keys| without(payload, &keys.settings().withhold));
        if let Some(shown) = &shown {
            signed.show(shown.as_bytes());
        }
        let accepted = signed.judge(&entry.settings.policy).map_err(of_issuer)?;
        Ok(self.keep(accepted, digest, entry, *generation, None))
    }

    /// What the holder of a cookie may take back: the session it names, or else itself.
    pub(super) fn possession_of_cookie(&self, token: &str) -> Possession {
        if token.len() > self.max_token_bytes {
            return Possession::Nothing;
        }
        let Ok(opened) = self.open_cookie(token, "") else { return Possession::Nothing };
        let Ok(signed) = Signed::decrypted(token, &opened.payload) else { return Possession::Nothing };
        let policy = &opened.entry.settings.policy;
        let expires_at = self.clock.now().judged.after(opened.entry.settings.longest_life);
        match signed.session_id(policy) {
            Some(session) => {
                let key = DenialKey::session(policy.issuer(), &session);
                Possession::Proven { draft: Draft::Session { key, expires_at }, relay: None }
            }
            // Its renewals here have its id: they are meant, too, and outlive it.
            None => signed.key(policy).map_or(Possession::Nothing, |key| Possession::Proven {
                draft: Draft::Token { key, expires_at },
                relay: None,
            }),
        }
    }

    /// Opens a cookie with the one issuer's key that fits.
    fn open_cookie(&self, token: &str, name: &str) -> Result<Opened<'_>, Refusal> {
        let encrypted = Encrypted::decode(token).map_err(|denied| told(denied, None))?;
        let (mut tried, mut found) = (None, None);
        for entry in &self.cookies {
            let Some(keys) = &entry.settings.cookies else { continue };
            if !name.is_empty() && !keys.settings().names.iter().any(|own| own == name) {
                continue;
            }
            let loaded = keys.loaded();
            for key in loaded.candidates(name, encrypted.key_id.as_deref(), encrypted.algorithm) {
                tried = Some(entry);
                let Some(payload) = encrypted.open(key) else { continue };
                if found.is_some() {
                    // Refused at the start; secrets that became the same since are noticed here.
                    let both = Denied::new(Reason::UnknownKey, "keys of two issuers open it");
                    return Err(told(both, None));
                }
                found = Some(Opened { entry, generation: loaded.generation, payload });
                break;
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
        Err(match tried {
            Some(entry) => {
                told(Denied::new(Reason::BadSignature, "no key that it names opens it"), Some(entry))
            }
            None => told(
                Denied::new(Reason::UnknownKey, "of no configured secret, or of another cookie's name"),
                None,
            ),
        })
    }

    /// Renews a cookie: judged with the greatest freshness, then written anew with the first secret, for the cookie of
    /// this name, for as long as it was issued for and at most the configured age. It keeps its id, so what takes back one
    /// of them takes back all that were renewed here. What was revoked is not renewed.
    ///
    /// # Errors
    /// [`Refusal`]: as of a fully consistent verification.
    pub async fn renew_cookie(
        &self,
        token: &str,
        name: &str,
        deadline: Duration,
    ) -> Result<RenewedCookie, Refusal> {
        if token.len() > self.max_token_bytes {
            return Err(denied(Reason::TooLarge, Action::None, None));
        }
        let demands = Demands {
            audiences: &[],
            scopes: &[],
            consistency: Consistency::FullyConsistent,
            deadline,
            credential_name: name,
        };
        let verdict = self.waiting(token, &demands).await?;
        let opened = self.open_cookie(token, name)?;
        let failed = || undecided(Reason::KeysUnavailable, Some(&verdict.acceptance));
        let policy = &opened.entry.settings.policy;
        let keys = opened.entry.settings.cookies.as_ref().ok_or_else(failed)?;
        let claims = std::str::from_utf8(&opened.payload).ok().and_then(|text| members::read(text).ok());
        let claims = claims.ok_or_else(failed)?;

        let issued_at = Timestamp::from_secs(self.clock.now().judged.as_secs());
        let life = Signed::decrypted(token, &opened.payload).ok().and_then(|signed| signed.life(issued_at));
        let life = life.ok_or_else(failed)?.min(keys.settings().max_age);
        let expires_at = issued_at.after(life);
        let mut text = String::from("{");
        for (member, value) in claims.iter().filter(|(name, _)| !["iat", "exp"].contains(&name.as_str())) {
            // Writing to a String can't fail.
            let _ = write!(text, "{}:{},", serde_json::Value::from(member.as_str()), value.get());
        }
        if !claims.iter().any(|(name, _)| name == "jti") {
            let _ = write!(text, r#""jti":"{}","#, uuid(random_bytes().map_err(|_| failed())?));
        }
        let _ = write!(text, r#""iat":{},"exp":{}}}"#, issued_at.as_secs(), expires_at.as_secs());
        let value = seal(keys, name, text.as_bytes()).ok_or_else(failed)?;
        let session =
            Signed::decrypted(token, &opened.payload).ok().and_then(|signed| signed.session_id(policy));
        Ok(RenewedCookie {
            cookies: chunks(name, &value, keys.settings().version.chunk_bytes()),
            value,
            expires_at,
            refresh_after: renew_at(issued_at, expires_at, policy.renew_before()),
            session_id: session.unwrap_or_default(),
            revision: verdict.revision,
        })
    }
}

impl<'t> Encrypted<'t> {
    /// Splits and decodes. The caller has counted five parts.
    fn decode(token: &'t str) -> Result<Self, Denied> {
        let malformed = || Denied::new(Reason::Malformed, "not five parts of canonical, unpadded base64url");
        let mut parts = token.split('.');
        let mut next = || parts.next().ok_or_else(malformed);
        let (header, wrapped, iv, ciphertext, tag) = (next()?, next()?, next()?, next()?, next()?);
        let decoded = |part: &str| BASE64URL.decode(part).map_err(|_| malformed());
        let (algorithm, key_id) = read_header(&decoded(header)?)?;
        if !wrapped.is_empty() {
            return Err(Denied::new(Reason::Malformed, "`dir` has no encrypted key"));
        }
        let sealed = Sealed { iv: decoded(iv)?, ciphertext: decoded(ciphertext)?, tag: decoded(tag)? };
        Ok(Self { header, key_id, algorithm, sealed })
    }

    fn open(&self, key: &CookieKey) -> Option<Vec<u8>> {
        key.content_key().open(self.header.as_bytes(), &self.sealed)
    }
}

/// `alg`, `enc` and `kid`; everything that would ask for more is refused by name.
fn read_header(bytes: &[u8]) -> Result<(ContentEncryption, Option<Box<str>>), Denied> {
    let malformed = |detail| Denied::new(Reason::Malformed, detail);
    let header = json::parse(bytes).map_err(|_| malformed("the header is not one strict JSON object"))?;
    for (name, detail) in
        [("crit", "crit: no extension is supported"), ("zip", "zip: compression is not supported")]
    {
        if header.get(name).is_some() {
            return Err(Denied::new(Reason::UnsupportedType, detail));
        }
    }
    let text = |name: &str, detail| {
        header.get(name).map(|value| value.as_text().ok_or(malformed(detail))).transpose()
    };
    let algorithm = text("alg", "alg is not text")?.ok_or(malformed("there is no alg"))?;
    let wrapping = |detail| Err(Denied::new(Reason::UnsupportedAlgorithm, detail));
    match algorithm {
        "dir" => {}
        name if name.starts_with("PBES2-") => {
            return wrapping("PBES2: keys from passwords are not supported");
        }
        name if name.starts_with("RSA") => return wrapping("RSA: wrapped keys are not supported"),
        name if name.starts_with("ECDH-") => return wrapping("ECDH: agreed keys are not supported"),
        _ => return wrapping("alg is not `dir`"),
    }
    let encryption = text("enc", "enc is not text")?.ok_or(malformed("there is no enc"))?;
    let Some(encryption) = ContentEncryption::named(encryption) else {
        return wrapping("enc is neither A256CBC-HS512 nor A256GCM");
    };
    let key_id = text("kid", "kid is not text")?;
    if key_id.is_some_and(|id| id.len() > MAX_KEY_ID) {
        return Err(malformed("kid is longer than 256 bytes"));
    }
    Ok((encryption, key_id.map(Into::into)))
}

fn told(denied: Denied, entry: Option<&Arc<IssuerEntry>>) -> Refusal {
    plain(denied, entry.map(|entry| entry.settings.policy.issuer()))
}

/// When to renew a cookie: so long before its end, or after half of a life that is shorter than that.
pub(super) fn renew_at(issued_at: Timestamp, expires_at: Timestamp, before: Duration) -> Timestamp {
    let at = expires_at.before(before);
    if at > issued_at { at } else { issued_at.after(expires_at.since(issued_at) / 2) }
}

/// The content without these members; `None` where it has none of them.
fn without(payload: &[u8], names: &[String]) -> Option<String> {
    let claims = members::read(std::str::from_utf8(payload).ok()?).ok()?;
    let is_withheld = |name: &String| names.contains(name);
    if !claims.iter().any(|(name, _)| is_withheld(name)) {
        return None;
    }
    let shown = claims.iter().filter(|(name, _)| !is_withheld(name));
    let shown =
        shown.map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get()));
    Some(format!("{{{}}}", shown.collect::<Vec<_>>().join(",")))
}

/// Encrypts as the application's own library does. `None` where no key is for a cookie of this name.
fn seal(keys: &CookieKeys, name: &str, content: &[u8]) -> Option<String> {
    let version = keys.settings().version;
    let loaded = keys.loaded();
    let key = loaded.candidates(name, None, version.encrypts_with()).next()?.content_key();
    let kid = match version.names_keys() {
        true => format!(r#","kid":"{}""#, key.thumbprint()),
        false => String::new(),
    };
    let encryption = key.algorithm().as_str();
    let header = BASE64URL.encode(format!(r#"{{"alg":"dir","enc":"{encryption}"{kid}}}"#));
    let sealed = key.seal(header.as_bytes(), content).ok()?;
    let [iv, ciphertext, tag] = [sealed.iv, sealed.ciphertext, sealed.tag].map(|part| BASE64URL.encode(part));
    Some(format!("{header}..{iv}.{ciphertext}.{tag}"))
}

/// A random UUID (RFC 9562 §5.4), as Auth.js gives for `jti`.
fn uuid(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random) & !(0xf000 << 64) & !(0b11 << 62) | 0x4000 << 64 | 0b10 << 62;
    let mut text = format!("{bits:032x}");
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// The cookies to set for a value: itself, or numbered chunks of a size that a browser keeps.
fn chunks(name: &str, value: &str, size: usize) -> Vec<(String, String)> {
    if value.len() <= size {
        return vec![(name.to_owned(), value.to_owned())];
    }
    let mut rest = value;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at_checked(size).unwrap_or((rest, ""));
        chunks.push((format!("{name}.{}", chunks.len()), chunk.to_owned()));
        rest = more;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(header: &str) -> Reason {
        read_header(header.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn a_header_of_auth_js_is_read() {
        let (algorithm, key_id) = read_header(br#"{"alg":"dir","enc":"A256CBC-HS512","kid":"k"}"#).unwrap();
        assert_eq!((algorithm, key_id.as_deref()), (ContentEncryption::A256CbcHs512, Some("k")));
    }

    #[test]
    fn every_way_to_wrap_or_agree_on_a_key_is_refused() {
        for name in [
            "PBES2-HS256+A128KW",
            "PBES2-HS512+A256KW",
            "RSA1_5",
            "RSA-OAEP",
            "RSA-OAEP-256",
            "ECDH-ES",
            "ECDH-ES+A256KW",
            "A256KW",
            "A256GCMKW",
            "none",
            "HS256",
            "DIR",
            "dir ",
        ] {
            let header = format!(r#"{{"alg":"{name}","enc":"A256GCM","p2c":2147483647,"p2s":"AAAA"}}"#);
            assert_eq!(reason(&header), Reason::UnsupportedAlgorithm, "{name}");
        }
        for name in ["A128CBC-HS256", "A192GCM", "A128GCM", "a256gcm", ""] {
            let header = format!(r#"{{"alg":"dir","enc":"{name}"}}"#);
            assert_eq!(reason(&header), Reason::UnsupportedAlgorithm, "{name}");
        }
    }

    #[test]
    fn compression_and_extensions_are_refused() {
        for member in [r#""zip":"DEF""#, r#""zip":null"#, r#""crit":["exp"]"#, r#""crit":[]"#] {
            let header = format!(r#"{{"alg":"dir","enc":"A256GCM",{member}}}"#);
            assert_eq!(reason(&header), Reason::UnsupportedType, "{member}");
        }
    }

    #[test]
    fn a_header_without_its_members_or_with_other_types_is_malformed() {
        let long = format!(r#"{{"alg":"dir","enc":"A256GCM","kid":"{}"}}"#, "k".repeat(257));
        for header in [
            "{}",
            r#"{"alg":"dir"}"#,
            r#"{"alg":1,"enc":"A256GCM"}"#,
            r#"{"alg":"dir","enc":[]}"#,
            r#"{"alg":"dir","enc":"A256GCM","kid":7}"#,
            r#"{"alg":"dir","alg":"dir","enc":"A256GCM"}"#,
            &long,
        ] {
            assert_eq!(reason(header), Reason::Malformed, "{header}");
        }
    }

    #[test]
    fn parts_are_strict_base64url_and_dir_has_no_key() {
        let header = BASE64URL.encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
        for rest in [".AAAA=.AAAA.AAAA", ".AAAA.AA AA.AAAA", ".AAAA.AAAA.A", "AAAA.AAAA.AAAA.AAAA"] {
            let token = format!("{header}.{rest}");
            assert_eq!(
                Encrypted::decode(&token).err().map(|denied| denied.reason),
                Some(Reason::Malformed),
                "{rest}"
            );
        }
    }

    #[test]
    fn what_is_withheld_is_gone_and_the_rest_stays_as_written() {
        let names = ["access_token".to_owned(), "id_token".to_owned()];
        let text = r#"{"n":1.50,"access_token":"a","o":{"id_token":1},"id_token":null}"#;
        assert_eq!(without(text.as_bytes(), &names).unwrap(), r#"{"n":1.50,"o":{"id_token":1}}"#);
        assert_eq!(without(br#"{"n":1}"#, &names), None);
        assert_eq!(without(br#"{"id_token":1}"#, &names).unwrap(), "{}");
    }

    #[test]
    fn long_values_are_cut_and_short_ones_are_not() {
        assert_eq!(chunks("c", "abc", 3), [("c".to_owned(), "abc".to_owned())]);
        let cut = chunks("c", "abcdefgh", 3);
        let names: Vec<_> = cut.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c.0", "c.1", "c.2"]);
        assert_eq!(cut.iter().map(|(_, value)| value.as_str()).collect::<String>(), "abcdefgh");
    }

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
