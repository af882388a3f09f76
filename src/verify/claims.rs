//! Claims read by type. What has the wrong type is refused even where it is optional: a reader further on might take
//! it for something else.

use crate::clock::Timestamp;
use crate::token::Reason;
use crate::verify::json::{Json, Object, TaggedName};
use crate::verify::refusal::Denied;
use std::borrow::Cow;

/// Year 9999, in seconds: a NumericDate beyond it is a mistake or an attack.
const LAST_SECOND: u64 = 253_402_300_799;

/// Where a claim is: a member by its exact name, or a path of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Vec<TaggedName>);

/// The text is no claim path.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("use a claim's name, or a JSON Pointer such as /realm_access/roles")]
pub struct BadClaimPath;

impl ClaimPath {
    /// A top-level claim.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self(vec![TaggedName::new(name)])
    }

    /// A top-level name verbatim, or a JSON Pointer (RFC 6901) where it begins with `/`.
    ///
    /// # Errors
    /// [`BadClaimPath`] for an empty text or a pointer with a bad escape.
    pub fn parse(text: &str) -> Result<Self, BadClaimPath> {
        let Some(pointer) = text.strip_prefix('/') else {
            return if text.is_empty() { Err(BadClaimPath) } else { Ok(Self::member(text)) };
        };
        let step = |step| unescape(step).map(|name| TaggedName::new(&name));
        pointer.split('/').map(step).collect::<Result<_, _>>().map(Self)
    }

    /// Follows the path.
    #[must_use]
    pub fn find<'o, 'a>(&self, claims: &'o Object<'a>) -> Option<&'o Json<'a>> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(claims.get_tagged(first)?, |value, name| value.as_object()?.get_tagged(name))
    }
}

fn unescape(step: &str) -> Result<String, BadClaimPath> {
    let mut unescaped = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(c) = rest.next() {
        unescaped.push(match c {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(BadClaimPath),
            },
            c => c,
        });
    }
    Ok(unescaped)
}

const fn invalid(detail: &'static str) -> Denied {
    Denied::new(Reason::InvalidClaim, detail)
}

/// A NumericDate (RFC 7519 §2), rounded down to whole seconds.
pub(super) fn instant(value: Option<&Json<'_>>, detail: &'static str) -> Result<Option<Timestamp>, Denied> {
    let seconds = match value {
        None => return Ok(None),
        Some(Json::Unsigned(seconds)) => *seconds,
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded on the same line"
        )]
        Some(Json::Float(seconds)) if *seconds >= 0.0 && *seconds < LAST_SECOND as f64 => *seconds as u64,
        Some(_) => return Err(invalid(detail)),
    };
    if seconds > LAST_SECOND { Err(invalid(detail)) } else { Ok(Some(Timestamp::from_secs(seconds))) }
}

/// Text that is not empty.
pub(super) fn text<'a>(
    value: Option<&Json<'a>>,
    detail: &'static str,
) -> Result<Option<Cow<'a, str>>, Denied> {
    match value {
        None => Ok(None),
        Some(Json::Text(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(invalid(detail)),
    }
}

/// One text, or an array of texts.
pub(super) fn texts<'a>(
    value: Option<&Json<'a>>,
    detail: &'static str,
) -> Result<Option<Vec<Cow<'a, str>>>, Denied> {
    match value {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(vec![text.clone()])),
        Some(Json::Array(items)) => {
            let text = |item: &Json<'a>| {
                if let Json::Text(text) = item { Ok(text.clone()) } else { Err(invalid(detail)) }
            };
            items.iter().map(text).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(invalid(detail)),
    }
}

/// Texts separated by spaces (RFC 8693 §4.2), or an array of texts.
pub(super) fn scopes<'a>(
    value: Option<&Json<'a>>,
    detail: &'static str,
) -> Result<Vec<Cow<'a, str>>, Denied> {
    let named = |scope: &&str| !scope.is_empty();
    match value {
        Some(Json::Text(Cow::Borrowed(text))) => {
            Ok(text.split(' ').filter(named).map(Cow::Borrowed).collect())
        }
        Some(Json::Text(Cow::Owned(text))) => {
            Ok(text.split(' ').filter(named).map(|scope| Cow::Owned(scope.to_owned())).collect())
        }
        other => texts(other, detail).map(Option::unwrap_or_default),
    }
}

/// A whole number that is not negative.
pub(super) fn number(value: Option<&Json<'_>>, detail: &'static str) -> Result<Option<u64>, Denied> {
    match value {
        None => Ok(None),
        Some(Json::Unsigned(number)) => Ok(Some(*number)),
        Some(_) => Err(invalid(detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::json::parse;

    #[test]
    fn a_path_is_a_name_verbatim_or_a_pointer() {
        let claims =
            parse(br#"{"https://example.com/roles":["a"],"realm_access":{"roles":["b"]},"a/b":{"m~n":"c"}}"#)
                .unwrap();
        let found = |path: &str| texts(ClaimPath::parse(path).unwrap().find(&claims), "").unwrap();
        assert_eq!(found("https://example.com/roles"), Some(vec!["a".into()]));
        assert_eq!(found("/realm_access/roles"), Some(vec!["b".into()]));
        assert_eq!(found("/a~1b/m~0n"), Some(vec!["c".into()]));
        assert_eq!(found("/realm_access/none"), None);
        assert_eq!(found("realm_access.roles"), None);
        assert_eq!(ClaimPath::parse(""), Err(BadClaimPath));
        assert_eq!(ClaimPath::parse("/a~2"), Err(BadClaimPath));
    }

    #[test]
    fn instants_are_numbers_floored_and_bounded() {
        let read = |text: &str| {
            let claims = format!("{{\"exp\":{text}}}");
            instant(parse(claims.as_bytes()).unwrap().get("exp"), "").map(|at| at.map(Timestamp::as_secs))
        };
        assert_eq!(read("17"), Ok(Some(17)));
        assert_eq!(read("17.9"), Ok(Some(17)));
        assert_eq!(read("1.79e1"), Ok(Some(17)));
        for bad in [
            "-1",
            "-0.5",
            "\"17\"",
            "1e18",
            "1000000000000000000",
            "18446744073709551616",
            "null",
            "true",
            "[17]",
            "{}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_is_text_and_nothing_else() {
        let claims = parse(br#"{"a":"x","b":"","c":1,"d":["x"],"e":null}"#).unwrap();
        assert_eq!(text(claims.get("a"), ""), Ok(Some("x".into())));
        assert_eq!(text(claims.get("z"), ""), Ok(None));
        for name in ["b", "c", "d", "e"] {
            assert!(text(claims.get(name), "").is_err(), "{name}");
        }
    }

    #[test]
    fn audiences_are_texts_and_all_of_them() {
        let claims = parse(br#"{"a":"x","b":["x","y"],"c":["x",1],"d":123,"e":[],"f":[null]}"#).unwrap();
        assert_eq!(texts(claims.get("a"), ""), Ok(Some(vec!["x".into()])));
        assert_eq!(texts(claims.get("b"), ""), Ok(Some(vec!["x".into(), "y".into()])));
        assert_eq!(texts(claims.get("e"), ""), Ok(Some(Vec::new())));
        for name in ["c", "d", "f"] {
            assert!(texts(claims.get(name), "").is_err(), "{name}");
        }
    }
}
