//! A JSON object as written: its members in order with their exact text, and whether any is there twice.

use crate::clock::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;

const DEPTH: usize = 32;
/// The last second of the year 9999.
const LATEST: f64 = 253_402_300_799.0;

/// The members of an object, in order, each with its value's exact text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    members: Vec<(String, String)>,
    has_duplicates: bool,
}

/// Why a text is no object that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Not JSON, or not an object.
    #[error("no JSON object")]
    NoObject,
    /// Deeper than 32 levels.
    #[error("nested too deeply")]
    TooDeep,
}

impl Members {
    /// Reads an object.
    ///
    /// # Errors
    /// [`MembersError`]; duplicate members are none, but told by [`Members::has_duplicates`].
    pub fn parse(text: &[u8]) -> Result<Self, MembersError> {
        let object: Object = serde_json::from_slice(text).map_err(|_| MembersError::NoObject)?;
        let mut has_duplicates = object.has_duplicates();
        for (_, value) in &object.0 {
            has_duplicates |= nested_duplicates(value.get(), 1)?;
        }
        let members = object.0.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect();
        Ok(Self { members, has_duplicates })
    }

    /// Whether a member is there twice, at any depth.
    #[must_use]
    pub const fn has_duplicates(&self) -> bool {
        self.has_duplicates
    }

    /// Names and values as written, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A value as written; the last one where there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.members.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A value that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// A value that is a text or a list of texts.
    #[must_use]
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        self.text(name).map(|text| vec![text]).or_else(|| serde_json::from_str(self.get(name)?).ok())
    }

    /// A value that is a NumericDate (RFC 7519 §2) up to the year 9999, rounded down to seconds.
    #[must_use]
    pub fn instant(&self, name: &str) -> Option<Timestamp> {
        let seconds: f64 = serde_json::from_str(self.get(name)?).ok()?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded in the line itself"
        )]
        let whole = (0.0..=LATEST).contains(&seconds).then_some(seconds as u64);
        whole.map(Timestamp::from_secs)
    }
}

fn nested_duplicates(value: &str, depth: usize) -> Result<bool, MembersError> {
    if depth > DEPTH {
        return Err(MembersError::TooDeep);
    }
    let (mut found, children) = match value.as_bytes().first() {
        Some(b'{') => {
            let object: Object = serde_json::from_str(value).map_err(|_| MembersError::NoObject)?;
            (object.has_duplicates(), object.0.into_iter().map(|(_, value)| value).collect())
        }
        Some(b'[') => {
            let list: Vec<Box<RawValue>> = serde_json::from_str(value).map_err(|_| MembersError::NoObject)?;
            (false, list)
        }
        Some(_) | None => (false, Vec::new()),
    };
    for child in children {
        found |= nested_duplicates(child.get(), depth + 1)?;
    }
    Ok(found)
}

struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    fn has_duplicates(&self) -> bool {
        let mut seen = HashSet::new();
        !self.0.iter().all(|(name, _)| seen.insert(name))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Members, MembersError> {
        Members::parse(text.as_bytes())
    }

    #[test]
    fn members_keep_their_order_and_text() {
        let members = read(r#"{"z": 1e18, "a": {"b" : [1, 2]}, "n": 9007199254740993}"#).unwrap();
        let all: Vec<_> = members.iter().collect();
        assert_eq!(all, [("z", "1e18"), ("a", r#"{"b" : [1, 2]}"#), ("n", "9007199254740993")]);
        assert!(!members.has_duplicates());
    }

    #[test]
    fn duplicates_are_found_at_any_depth_and_under_any_spelling() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"a":[{"b":1,"b":1}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(read(text).unwrap().has_duplicates(), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "1", "{", "{} {}", r#"{"a":1,}"#, "nul"] {
            assert_eq!(read(text), Err(MembersError::NoObject), "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        assert_eq!(read(&deep), Err(MembersError::TooDeep));
    }

    #[test]
    fn instants_are_possible_numbers() {
        let members = read(r#"{"a":1.9,"b":-1,"c":"1","d":1e18,"e":null}"#).unwrap();
        assert_eq!(members.instant("a"), Some(Timestamp::from_secs(1)));
        for name in ["b", "c", "d", "e", "f"] {
            assert_eq!(members.instant(name), None, "{name}");
        }
    }
}
