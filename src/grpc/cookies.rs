//! A credential in a `Cookie` header (RFC 6265 §5.4), whole or in the numbered chunks that Auth.js makes of a long one.

use std::borrow::Cow;

/// What a cookie's name and a scheme of credentials are made of (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
        )
}

/// More chunks than this are not joined: the longest credential fits in far fewer.
const MOST_CHUNKS: usize = 64;

/// The first of these cookies that is there, by its exact name, with its value; the chunks `name.0`, `name.1`, … are
/// joined where no cookie has the name itself. Of two cookies with one name the first counts, as browsers put the one
/// with the narrower path there. A gap among the chunks is the end.
pub(super) fn find<'h, 'n>(
    header: &'h str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<(&'n str, Cow<'h, str>)> {
    names.into_iter().find_map(|name| {
        if let Some(value) = value_of(header, name) {
            return Some((name, Cow::Borrowed(value)));
        }
        let mut chunks = (0..MOST_CHUNKS).map_while(|number| value_of(header, &format!("{name}.{number}")));
        let first = chunks.next()?.to_owned();
        Some((name, Cow::Owned(chunks.fold(first, |joined, chunk| joined + chunk))))
    })
}

fn value_of<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    header.split(';').find_map(|pair| {
        let (found, value) = pair.trim_ascii().split_once('=')?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (found == name && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(header: &str) -> Option<(&'static str, String)> {
        find(header, ["__Secure-s", "s"]).map(|(name, value)| (name, value.into_owned()))
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name() {
        assert_eq!(found("a=1; s=token; b=2"), Some(("s", "token".to_owned())));
        assert_eq!(found("S=token; s2=token; xs=token"), None);
        assert_eq!(found("s=\"token\""), Some(("s", "token".to_owned())));
        assert_eq!(found("s=a=b"), Some(("s", "a=b".to_owned())));
        assert_eq!(found(""), None);
        assert_eq!(found("s; s=; =s"), None);
    }

    #[test]
    fn the_first_name_and_the_first_cookie_count() {
        assert_eq!(found("s=plain; __Secure-s=secure"), Some(("__Secure-s", "secure".to_owned())));
        assert_eq!(found("s=first; s=second"), Some(("s", "first".to_owned())));
    }

    #[test]
    fn chunks_are_joined_by_number_whatever_their_order() {
        let header: Vec<_> = (0..12).rev().map(|number| format!("s.{number}={number},")).collect();
        assert_eq!(found(&header.join("; ")), Some(("s", "0,1,2,3,4,5,6,7,8,9,10,11,".to_owned())));
    }

    #[test]
    fn chunks_beside_the_whole_after_a_gap_or_of_other_names_are_left_out() {
        assert_eq!(found("s.0=old; s=whole"), Some(("s", "whole".to_owned())));
        assert_eq!(found("s.0=a; s.2=c"), Some(("s", "a".to_owned())));
        assert_eq!(found("s.1=b; s.00=a; s.0x=a; s.state=a"), None);
        let endless: Vec<_> = (0..1000).map(|number| format!("s.{number}=x")).collect();
        assert_eq!(found(&endless.join(";")).unwrap().1.len(), MOST_CHUNKS);
    }
}
