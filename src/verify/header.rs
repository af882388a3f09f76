//! The JOSE header (RFC 7515 §4), as much of it as is trusted: which key and algorithm to try. `jku`, `jwk`, `x5u` and
//! `x5c` are never used to find a key.

use crate::keys::Algorithm;
use crate::token::Reason;
use crate::verify::compact::BASE64URL;
use crate::verify::json::{self, Json};
use crate::verify::refusal::Denied;
use base64::Engine;
use std::cell::RefCell;
use std::sync::Arc;

/// A longer key id is refused.
pub const MAX_KEY_ID: usize = 256;

/// Headers remembered by each thread. An issuer's tokens nearly all have the same one.
const REMEMBERED: usize = 8;

thread_local! {
    /// Headers by their encoded text, latest first.
    static LATEST: RefCell<Vec<(Box<str>, Arc<Header>)>> = const { RefCell::new(Vec::new()) };
}

/// What a header says.
#[derive(Debug)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`, opaque.
    pub key_id: Option<Box<str>>,
    /// `typ`.
    pub token_type: Option<Box<str>>,
}

impl Header {
    /// Reads a header as a token has it, in base64url. One that was just read is not read again.
    ///
    /// # Errors
    /// MALFORMED, UNSUPPORTED_ALGORITHM, UNSUPPORTED_TYPE.
    pub fn read(encoded: &str) -> Result<Arc<Self>, Denied> {
        let known = |latest: &RefCell<Vec<(Box<str>, Arc<Self>)>>| {
            latest.borrow().iter().find(|(text, _)| **text == *encoded).map(|(_, header)| Arc::clone(header))
        };
        if let Some(header) = LATEST.with(known) {
            return Ok(header);
        }
        let malformed = |_| Denied::new(Reason::Malformed, "not canonical, unpadded base64url");
        let header = Arc::new(Self::parse(&BASE64URL.decode(encoded).map_err(malformed)?)?);
        LATEST.with(|latest| {
            let mut latest = latest.borrow_mut();
            latest.truncate(REMEMBERED - 1);
            latest.insert(0, (encoded.into(), Arc::clone(&header)));
        });
        Ok(header)
    }

    /// Reads a decoded header.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Denied> {
        let object = json::parse(bytes)
            .map_err(|_| Denied::new(Reason::Malformed, "the header is not one strict JSON object"))?;
        let (mut algorithm, mut key_id, mut token_type) = (None, None, None);
        for (name, value) in object.into_members() {
            match (&*name, value) {
                ("alg", Json::Text(name)) => {
                    let known = name.parse::<Algorithm>();
                    algorithm = Some(known.map_err(|_| {
                        Denied::new(Reason::UnsupportedAlgorithm, "alg is none that countersign knows")
                    })?);
                }
                ("kid", Json::Text(id)) if id.len() <= MAX_KEY_ID => key_id = Some((*id).into()),
                ("typ", Json::Text(name)) => token_type = Some((*name).into()),
                ("alg", _) => return Err(Denied::new(Reason::Malformed, "alg is not text")),
                ("kid", _) => {
                    return Err(Denied::new(Reason::Malformed, "kid is not text of at most 256 bytes"));
                }
                ("typ", _) => return Err(Denied::new(Reason::Malformed, "typ is not text")),
                ("crit", _) => {
                    return Err(Denied::new(Reason::UnsupportedType, "crit: no extension is supported"));
                }
                ("b64", _) => {
                    return Err(Denied::new(
                        Reason::UnsupportedType,
                        "b64: unencoded payloads are not supported",
                    ));
                }
                ("zip", _) => {
                    return Err(Denied::new(Reason::UnsupportedType, "zip: compression is not supported"));
                }
                _ => {}
            }
        }
        let algorithm = algorithm.ok_or(Denied::new(Reason::Malformed, "there is no alg"))?;
        Ok(Self { algorithm, key_id, token_type })
    }
}

/// Whether two media types are the same: without regard to case, and with or without `application/` (RFC 7515 §4.1.9).
#[must_use]
pub fn same_type(one: &str, other: &str) -> bool {
    bare_type(one).eq_ignore_ascii_case(bare_type(other))
}

fn bare_type(name: &str) -> &str {
    const PREFIX: &str = "application/";
    match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(header: &str) -> Reason {
        Header::parse(header.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn a_usual_header_is_read() {
        let header =
            Header::parse(br#"{"alg":"ES256","kid":"k1","typ":"JWT","jku":"https://evil.example.com"}"#)
                .unwrap();
        assert_eq!(
            (header.algorithm, header.key_id.as_deref(), header.token_type.as_deref()),
            (Algorithm::Es256, Some("k1"), Some("JWT"))
        );
    }

    #[test]
    fn a_remembered_header_says_what_it_said_and_another_does_not() {
        let encoded = |kid: usize| BASE64URL.encode(format!(r#"{{"alg":"ES256","kid":"k{kid}"}}"#));
        for _ in 0..3 {
            for kid in 0..20 {
                let header = Header::read(&encoded(kid)).unwrap();
                assert_eq!(header.key_id.as_deref(), Some(&*format!("k{kid}")));
            }
        }
        assert!(LATEST.with(|latest| latest.borrow().len()) <= REMEMBERED);
        assert_eq!(Header::read(&format!("{}=", encoded(1))).unwrap_err().reason, Reason::Malformed);
    }

    #[test]
    fn alg_none_in_any_case_is_refused_before_any_key_is_looked_up() {
        for name in
            ["none", "None", "NONE", "nOnE", " RS256", "RS256 ", "rs256", "", "HS1", "ES256K", "RSA-OAEP"]
        {
            assert_eq!(reason(&format!(r#"{{"alg":"{name}"}}"#)), Reason::UnsupportedAlgorithm, "{name:?}");
        }
    }

    #[test]
    fn alg_that_is_missing_or_no_text_is_malformed() {
        for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["RS256"]}"#, r#"{"alg":1}"#, r#"{"Alg":"RS256"}"#]
        {
            assert_eq!(reason(header), Reason::Malformed, "{header}");
        }
    }

    #[test]
    fn any_crit_even_an_empty_one_b64_and_zip_are_refused() {
        for member in [
            r#""crit":[]"#,
            r#""crit":["exp"]"#,
            r#""crit":"b64""#,
            r#""crit":null"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""zip":"DEF""#,
        ] {
            assert_eq!(
                reason(&format!(r#"{{"alg":"RS256",{member}}}"#)),
                Reason::UnsupportedType,
                "{member}"
            );
        }
    }

    #[test]
    fn duplicate_members_are_refused() {
        assert_eq!(reason(r#"{"alg":"RS256","alg":"none"}"#), Reason::Malformed);
        assert_eq!(reason(r#"{"alg":"RS256","x":{"a":1,"a":2}}"#), Reason::Malformed);
    }

    #[test]
    fn a_kid_is_opaque_and_short() {
        for kid in ["../../etc/passwd", "' OR 1=1 --", &"k".repeat(MAX_KEY_ID)] {
            let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
            assert_eq!(Header::parse(header.as_bytes()).unwrap().key_id.as_deref(), Some(kid));
        }
        assert_eq!(
            reason(&format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(10_000))),
            Reason::Malformed
        );
        assert_eq!(reason(r#"{"alg":"RS256","kid":7}"#), Reason::Malformed);
    }

    #[test]
    fn types_are_compared_as_media_types() {
        assert!(same_type("at+jwt", "application/AT+JWT"));
        assert!(same_type("JWT", "jwt"));
        assert!(!same_type("at+jwt", "jwt"));
        assert!(!same_type("logout+jwt", "application/at+jwt"));
    }
}
