//! A JSON object's members with each value's text as it was written: for rewriting claims without rounding a number or
//! respelling a string.

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Reads an object's members, in order. Duplicates are kept: whoever must not see them looks for them.
///
/// # Errors
/// What is not one JSON object.
pub fn read(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members)?;
    reader.end()?;
    Ok(members)
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_written_and_in_order() {
        let text = r#" {"n": 1.50e400, "a":{"x":[1, 2]},"\u0061":"\u00e9","n":18446744073709551617} "#;
        let members = read(text).unwrap();
        let shown: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(
            shown,
            [
                ("n", "1.50e400"),
                ("a", r#"{"x":[1, 2]}"#),
                ("a", r#""\u00e9""#),
                ("n", "18446744073709551617")
            ]
        );
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        for text in ["", "[]", "{} {}", "{", "1", r#"{"a":1"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
