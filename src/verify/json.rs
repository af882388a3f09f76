//! Strict JSON: no duplicate members at any depth, no deeper than needed, nothing after the end.
//!
//! Readers disagree on which of two members of one name counts, and an attacker lives off the disagreement, so a text
//! with any is refused whole.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Objects and arrays inside each other, at most.
pub const MAX_DEPTH: usize = 32;
/// Up to here duplicates are looked for one by one; beyond, in a set.
const FEW: usize = 16;

/// A value. Text is borrowed from what was parsed unless it has escapes.
#[derive(Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits.
    Unsigned(u64),
    /// A negative integer that fits.
    Negative(i64),
    /// Any other number, rounded.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

impl<'a> Json<'a> {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The object, if it is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object<'a>> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json(…)")
    }
}

/// An object's members, in their order.
#[derive(Clone, Default, PartialEq)]
pub struct Object<'a>(Vec<Member<'a>>);

#[derive(Clone, PartialEq)]
struct Member<'a> {
    tag: u64,
    name: Cow<'a, str>,
    value: Json<'a>,
}

impl Member<'_> {
    fn is(&self, tag: u64, name: &str) -> bool {
        self.tag == tag && (name.len() <= TAGGED || self.name == name)
    }
}

/// A name to look for again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaggedName {
    tag: u64,
    text: Box<str>,
}

impl TaggedName {
    pub(super) fn new(text: &str) -> Self {
        Self { tag: tag(text), text: text.into() }
    }
}

/// Names up to this length are told apart by their tags alone.
const TAGGED: usize = 7;

/// A name's length and first letters in one word: names are compared far more often than read.
#[inline]
fn tag(name: &str) -> u64 {
    let length = (name.len() as u64) << 56;
    name.bytes().take(TAGGED).enumerate().fold(length, |tag, (at, byte)| tag | u64::from(byte) << (8 * at))
}

impl<'a> Object<'a> {
    /// A member by its name.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let tag = tag(name);
        self.0.iter().find(|member| member.is(tag, name)).map(|member| &member.value)
    }

    /// A member by a name whose tag is known.
    pub(super) fn get_tagged(&self, name: &TaggedName) -> Option<&Json<'a>> {
        self.0.iter().find(|member| member.is(name.tag, &name.text)).map(|member| &member.value)
    }

    /// The members, taken out.
    pub fn into_members(self) -> impl Iterator<Item = (Cow<'a, str>, Json<'a>)> {
        self.0.into_iter().map(|member| (member.name, member.value))
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|member| (&*member.name, &member.value))
    }
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Object(…)")
    }
}

/// The text is no strict JSON object. What is wrong is not told: it would quote the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one strict JSON object")]
pub struct NotStrict;

/// Parses one object.
///
/// # Errors
/// [`NotStrict`] for anything else, duplicate members and a depth beyond [`MAX_DEPTH`] among it.
pub fn parse(text: &[u8]) -> Result<Object<'_>, NotStrict> {
    // Once over the whole text is faster than string by string, which the parser would do from bytes.
    let text = std::str::from_utf8(text).map_err(|_| NotStrict)?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Value { depth: 0 }.deserialize(&mut parser).map_err(|_| NotStrict)?;
    parser.end().map_err(|_| NotStrict)?;
    if let Json::Object(object) = value { Ok(object) } else { Err(NotStrict) }
}

/// A value at a depth.
#[derive(Clone, Copy)]
struct Value {
    depth: usize,
}

impl Value {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH { Ok(Self { depth: self.depth + 1 }) } else { Err(E::custom("too deep")) }
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut members: Vec<Member<'de>> = Vec::with_capacity(FEW);
        let mut names: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(name) = access.next_key_seed(Name)? {
            let tag = tag(&name);
            let seen = if members.len() < FEW {
                members.iter().any(|member| member.is(tag, &name))
            } else {
                if names.is_empty() {
                    names.extend(members.iter().map(|member| member.name.clone()));
                }
                !names.insert(name.clone())
            };
            if seen {
                return Err(A::Error::custom("a member twice"));
            }
            members.push(Member { tag, name, value: access.next_value_seed(inner)? });
        }
        Ok(Json::Object(Object(members)))
    }
}

/// A member's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_object_reads_back() {
        let object =
            parse(br#"{"a":"b","n":1,"m":-1,"f":1.5,"t":true,"z":null,"l":[1,"x"],"o":{"p":"\u0041"}}"#)
                .unwrap();
        assert_eq!(object.get("a").and_then(Json::as_text), Some("b"));
        assert_eq!(object.get("n"), Some(&Json::Unsigned(1)));
        assert_eq!(object.get("m"), Some(&Json::Negative(-1)));
        assert_eq!(object.get("f"), Some(&Json::Float(1.5)));
        let inner = object.get("o").and_then(Json::as_object).unwrap();
        assert_eq!(inner.get("p").and_then(Json::as_text), Some("A"));
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"o":{"a":1,"a":2}}"#,
            r#"{"l":[{"a":1,"a":2}]}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), NotStrict, "{text}");
        }
        let many = (0..100).map(|n| format!("\"m{n}\":0")).collect::<Vec<_>>().join(",");
        assert!(parse(format!("{{{many}}}").as_bytes()).is_ok());
        assert!(parse(format!("{{{many},\"m7\":0}}").as_bytes()).is_err());
        assert!(parse(format!("{{{many},\"m99\":0}}").as_bytes()).is_err());
    }

    #[test]
    fn names_alike_at_their_beginning_are_different_names() {
        let object = parse(br#"{"audience":1,"audiences":2,"audiencf":3,"aud\u0000":4,"aud":5}"#).unwrap();
        for (name, value) in [("audience", 1), ("audiences", 2), ("audiencf", 3), ("aud\0", 4), ("aud", 5)] {
            assert_eq!(object.get(name), Some(&Json::Unsigned(value)), "{name:?}");
        }
        assert_eq!(object.get("audienc"), None);
        assert!(parse(br#"{"audience":1,"audience":2}"#).is_err());
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in [
            "",
            "[]",
            "1",
            "\"a\"",
            "null",
            "{}{}",
            "{} x",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":1e400}",
            "{'a':1}",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(b"{\"a\":\"\\ud800\"}").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_err());
        assert!(parse(nested(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn whatever_it_takes_the_plain_parser_takes(text in "\\{(\"[a-c]\":[0-9]{1,3},?){0,4}\\}") {
            if parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
