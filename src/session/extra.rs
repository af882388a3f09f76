//! Further claims: what a login says about its subject beyond roles and scopes. Carried into tokens as given, text for
//! text, so that no number is rounded and no string respelled; read strictly, so that no two readers of the token can
//! see different things in it.

use crate::members;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;

/// The largest `claims_json`, in bytes.
pub const MAX_BYTES: usize = 4096;

/// How deep its arrays and objects may nest, itself included.
pub const MAX_DEPTH: usize = 16;

/// Names that are ours to give, that other members of a token carry, or by which verifiers decide what a token is
/// (RFC 7519 §4.1, RFC 7800, RFC 8693 §4, RFC 9068 §2.2, OpenID Connect Core §2).
pub const RESERVED: [&str; 24] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "sid",
    "auth_time",
    "sct",
    "pol",
    "sav",
    "roles",
    "scope",
    "cnf",
    "act",
    "may_act",
    "azp",
    "nonce",
    "at_hash",
    "c_hash",
    "events",
    "sub_id",
];

/// The members of a `claims_json`, in order, each value's text as given.
#[derive(Default)]
pub struct Extra<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Extra<'a> {
    /// Reads them. Empty text is no claims. Does not look at names but for duplicates; see [`Extra::names_reserved`].
    ///
    /// # Errors
    /// What is wrong: too large, no JSON object, a member twice at any depth, nested deeper than [`MAX_DEPTH`].
    pub fn read(text: &'a str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_BYTES {
            return Err("must be at most 4096 bytes");
        }
        let mut strict = serde_json::Deserializer::from_str(text);
        Strict { depth_left: MAX_DEPTH }
            .deserialize(&mut strict)
            .and_then(|()| strict.end())
            .map_err(|_| "must be JSON without a member twice, nested at most 16 deep")?;
        members::read(text).map(Self).map_err(|_| "must be a JSON object")
    }

    /// Whether a name is among [`RESERVED`] or empty.
    #[must_use]
    pub fn names_reserved(&self) -> bool {
        self.0.iter().any(|(name, _)| !is_free(name))
    }

    /// The members that may go into a token, in order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().filter(|(name, _)| is_free(name)).map(|(name, value)| (name.as_str(), *value))
    }
}

fn is_free(name: &str) -> bool {
    !name.is_empty() && !RESERVED.contains(&name)
}

/// Walks any JSON and keeps nothing, refusing duplicates and depth.
#[derive(Clone, Copy)]
struct Strict {
    depth_left: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        let inside = self.deeper()?;
        while seq.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let inside = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name) {
                return Err(M::Error::custom("a member twice"));
            }
            map.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_their_text() {
        let text = r#"{"z":12345678901234567890123,"a":1.10,"o":{"x": [1,  2]},"s":"\u00e9"}"#;
        let extra = Extra::read(text).unwrap();
        let members: Vec<_> = extra.members().map(|(name, value)| (name, value.get())).collect();
        assert_eq!(
            members,
            [
                ("z", "12345678901234567890123"),
                ("a", "1.10"),
                ("o", r#"{"x": [1,  2]}"#),
                ("s", r#""\u00e9""#)
            ]
        );
    }

    #[test]
    fn no_text_is_no_claims() {
        assert_eq!(Extra::read("").unwrap().members().count(), 0);
        assert_eq!(Extra::read("{}").unwrap().members().count(), 0);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in
            ["[]", "1", "\"a\"", "null", "{", "{}{}", "{} x", "{a:1}", "{\"a\":1,}", "\u{feff}{}", " "]
        {
            assert!(Extra::read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_member_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"o":[{"a":1,"\u0061":2}]}"#] {
            assert!(Extra::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |inner: usize| format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner));
        assert!(Extra::read(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(Extra::read(&nested(MAX_DEPTH)).is_err());
        assert!(Extra::read(&nested(2000)).is_err());
    }

    #[test]
    fn size_is_bounded() {
        let of_size = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert!(Extra::read(&of_size(MAX_BYTES)).is_ok());
        assert!(Extra::read(&of_size(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn a_reserved_name_is_told_and_never_reaches_a_token() {
        for name in RESERVED.into_iter().chain([""]) {
            let text = format!("{{\"{name}\":1,\"mine\":2}}");
            let extra = Extra::read(&text).unwrap();
            assert!(extra.names_reserved(), "{name:?}");
            assert_eq!(extra.members().map(|(name, _)| name).collect::<Vec<_>>(), ["mine"]);
        }
        assert!(Extra::read(r#"{"\u0069ss":"x"}"#).unwrap().names_reserved());
    }
}
