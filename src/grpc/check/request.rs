//! A CheckRequest as far as a decision rests on it, read in its bytes where they are: the headers of no other purpose are
//! passed over, so they have nowhere to leak from.

use bytes::Buf;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::borrow::Cow;
use std::fmt;

/// What a proxy tells of a request.
#[derive(Default)]
pub(super) struct CheckRequest<'m> {
    /// The `authorization` header.
    pub(super) authorization: Authorization<'m>,
    /// The `cookie` headers, as one.
    pub(super) cookies: Cow<'m, str>,
    /// The client speaks gRPC.
    pub(super) is_grpc: bool,
    /// What the route demands, by key; of several under one key the last counts.
    pub(super) demands: Vec<(&'m str, &'m str)>,
}

/// An `authorization` header, or none, or more than there may be.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Authorization<'m> {
    /// There is none.
    #[default]
    None,
    /// One.
    One(&'m str),
    /// Several lines, or one that a proxy joined of several, or that is no text: nobody can say which counts.
    Several,
}

impl fmt::Debug for CheckRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckRequest(…)")
    }
}

/// The message is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecodable;

impl From<DecodeError> for Undecodable {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Header lines of one of the two forms that Envoy has for them.
#[derive(Default)]
struct Lines<'m> {
    there: bool,
    authorization: Authorization<'m>,
    cookies: Option<Cow<'m, str>>,
    is_grpc: bool,
}

impl<'m> CheckRequest<'m> {
    /// Reads `envoy.service.auth.v3.CheckRequest`.
    ///
    /// # Errors
    /// Where it is no such message.
    pub(super) fn read(message: &'m [u8]) -> Result<Self, Undecodable> {
        let (mut joined, mut raw) = (Lines::default(), Lines::default());
        let mut demands = Vec::new();
        each(message, |field, attributes| match field {
            1 => each(attributes, |field, value| match field {
                4 => each(value, |field, http| match field {
                    2 => each(http, |field, value| match field {
                        3 => joined.entry(value),
                        13 => {
                            each(value, |field, header| if field == 1 { raw.header(header) } else { Ok(()) })
                        }
                        _ => Ok(()),
                    }),
                    _ => Ok(()),
                }),
                10 => {
                    demands.push(demand(value)?);
                    Ok(())
                }
                _ => Ok(()),
            }),
            _ => Ok(()),
        })?;
        // Line by line where the proxy gives them so.
        let lines = if raw.there { raw } else { joined };
        Ok(Self {
            authorization: lines.authorization,
            cookies: lines.cookies.unwrap_or_default(),
            is_grpc: lines.is_grpc,
            demands,
        })
    }
}

impl<'m> Lines<'m> {
    /// An entry of `map<string, string>`.
    fn entry(&mut self, entry: &'m [u8]) -> Result<(), Undecodable> {
        let (mut name, mut value) = (&[][..], &[][..]);
        each(entry, |field, bytes| {
            match field {
                1 => name = bytes,
                2 => value = bytes,
                _ => {}
            }
            Ok(())
        })?;
        self.take(name, value);
        Ok(())
    }

    /// A `HeaderValue`: its value is text or bytes.
    fn header(&mut self, header: &'m [u8]) -> Result<(), Undecodable> {
        let (mut name, mut text, mut raw) = (&[][..], &[][..], &[][..]);
        each(header, |field, bytes| {
            match field {
                1 => name = bytes,
                2 => text = bytes,
                3 => raw = bytes,
                _ => {}
            }
            Ok(())
        })?;
        self.take(name, if raw.is_empty() { text } else { raw });
        Ok(())
    }

    fn take(&mut self, name: &[u8], value: &'m [u8]) {
        self.there = true;
        if name.eq_ignore_ascii_case(b"authorization") {
            self.authorization = match self.authorization {
                Authorization::None => Authorization::of(value),
                Authorization::One(_) | Authorization::Several => Authorization::Several,
            };
        } else if name.eq_ignore_ascii_case(b"cookie") {
            // HTTP/2 splits them by choice (RFC 9113 §8.2.3). Bytes that are no text are some other application's.
            let line = String::from_utf8_lossy(value);
            self.cookies = Some(match self.cookies.take() {
                None => line,
                Some(before) => {
                    let mut joined = before.into_owned();
                    joined.push_str("; ");
                    joined.push_str(&line);
                    Cow::Owned(joined)
                }
            });
        } else if name.eq_ignore_ascii_case(b"content-type") {
            self.is_grpc |=
                value.starts_with(b"application/grpc") && !value.starts_with(b"application/grpc-web");
        }
    }
}

impl<'m> Authorization<'m> {
    /// Envoy joins lines by a comma, which no bearer token has; other schemes' credentials may.
    fn of(line: &'m [u8]) -> Self {
        let is_bearer = |part: &str| {
            part.trim_ascii().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
        };
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(',') && text.split(',').any(is_bearer) => Self::Several,
            Ok(text) => Self::One(text),
            Err(_) => Self::Several,
        }
    }
}

/// An entry of `map<string, string>` that has to be understood.
fn demand(mut entry: &[u8]) -> Result<(&str, &str), Undecodable> {
    let (mut key, mut value) = (&[][..], &[][..]);
    while entry.has_remaining() {
        match field(&mut entry)? {
            (1, Some(bytes)) => key = bytes,
            (2, Some(bytes)) => value = bytes,
            (1 | 2, None) => return Err(Undecodable),
            _ => {}
        }
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Undecodable);
    Ok((text(key)?, text(value)?))
}

/// Each field of a message that has a length; others are passed over.
fn each<'m>(
    mut message: &'m [u8],
    mut take: impl FnMut(u32, &'m [u8]) -> Result<(), Undecodable>,
) -> Result<(), Undecodable> {
    while message.has_remaining() {
        if let (number, Some(value)) = field(&mut message)? {
            take(number, value)?;
        }
    }
    Ok(())
}

/// The next field: its number, and what is in it where it has a length.
fn field<'m>(message: &mut &'m [u8]) -> Result<(u32, Option<&'m [u8]>), Undecodable> {
    let (number, wire) = decode_key(message)?;
    if wire != WireType::LengthDelimited {
        skip_field(wire, number, message, DecodeContext::default())?;
        return Ok((number, None));
    }
    let length = usize::try_from(decode_varint(message)?).map_err(|_| Undecodable)?;
    let (value, rest) = message.split_at_checked(length).ok_or(Undecodable)?;
    *message = rest;
    Ok((number, Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::envoy::config::core::v3::{HeaderMap, HeaderValue};
    use crate::grpc::envoy::service::auth::v3 as auth;
    use proptest::prelude::*;
    use prost::Message;

    fn request(joined: &[(&str, &str)], raw: &[(&str, &[u8])], demands: &[(&str, &str)]) -> Vec<u8> {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let line = |(name, value): &(&str, &[u8])| HeaderValue {
            key: (*name).to_owned(),
            value: String::new(),
            raw_value: value.to_vec(),
        };
        let http = auth::attribute_context::HttpRequest {
            id: "7".to_owned(),
            method: "GET".to_owned(),
            path: "/orders".to_owned(),
            headers: map(joined),
            header_map: (!raw.is_empty()).then(|| HeaderMap { headers: raw.iter().map(line).collect() }),
            ..Default::default()
        };
        let attributes = auth::AttributeContext {
            request: Some(auth::attribute_context::Request { http: Some(http) }),
            context_extensions: map(demands),
            ..Default::default()
        };
        auth::CheckRequest { attributes: Some(attributes) }.encode_to_vec()
    }

    fn read(bytes: &[u8]) -> CheckRequest<'_> {
        CheckRequest::read(bytes).unwrap()
    }

    #[test]
    fn headers_are_read_in_both_forms_and_raw_ones_before_joined_ones() {
        let joined = request(&[("authorization", "Bearer a"), ("cookie", "s=1"), ("accept", "x")], &[], &[]);
        let joined = read(&joined);
        assert!(joined.authorization == Authorization::One("Bearer a"));
        assert_eq!(joined.cookies, "s=1");
        let both = request(&[("authorization", "Bearer a")], &[("Authorization", b"Bearer b")], &[]);
        assert!(read(&both).authorization == Authorization::One("Bearer b"));
        let none = request(&[("authorization", "Bearer a")], &[("accept", b"x")], &[]);
        assert!(read(&none).authorization == Authorization::None);
        assert!(read(&[]).authorization == Authorization::None);
    }

    #[test]
    fn two_authorizations_are_several_in_whatever_form() {
        let several = |bytes: &[u8]| read(bytes).authorization == Authorization::Several;
        assert!(several(&request(&[("authorization", "Bearer a,Bearer b")], &[], &[])));
        assert!(several(&request(
            &[],
            &[("authorization", b"Bearer a"), ("authorization", b"Bearer a")],
            &[]
        )));
        assert!(several(&request(&[], &[("authorization", b"Bearer a,Bearer b")], &[])));
        assert!(several(&request(&[], &[("authorization", b"Bearer \xff")], &[])));
        assert!(several(&request(&[("authorization", "Basic YTpi, bearer b")], &[], &[])));
        assert!(
            !several(&request(&[], &[("authorization", b"Digest a=\"b\", c=\"d\"")], &[])),
            "of another scheme"
        );
    }

    #[test]
    fn cookie_lines_are_one_header() {
        let lines: [(&str, &[u8]); 3] =
            [("cookie", b"a=1; s.0=x"), ("cookie", b"s.1=y"), ("cookie", b"\xff")];
        assert_eq!(read(&request(&[], &lines, &[])).cookies, "a=1; s.0=x; s.1=y; \u{fffd}");
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (content_type, is_grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/html", false),
        ] {
            assert_eq!(
                read(&request(&[("content-type", content_type)], &[], &[])).is_grpc,
                is_grpc,
                "{content_type}"
            );
        }
    }

    #[test]
    fn what_breaks_off_is_no_request() {
        let whole = request(&[("authorization", "Bearer a")], &[("cookie", b"s=1")], &[("scopes", "read")]);
        for end in 1..whole.len() {
            assert!(CheckRequest::read(&whole[..end]).is_err(), "{end}");
        }
    }

    /// A request in up to three pieces, each of them one by itself: messages concatenate.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let name = || {
            prop_oneof!["authorization", "Authorization", "cookie", "content-type", "accept"]
                .prop_map(|name: String| name)
        };
        let lines = || proptest::collection::vec((name(), "[ -~]{0,20}"), 0..4);
        let demands = proptest::collection::vec(("[a-c]{1,2}", "\\PC{0,20}"), 0..3);
        let piece = (lines(), lines(), demands).prop_map(|(joined, raw, demands)| {
            let pairs = |lines: &'_ [(String, String)]| -> Vec<(String, String)> { lines.to_vec() };
            let (joined, raw, demands) = (pairs(&joined), pairs(&raw), pairs(&demands));
            fn texts(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
                pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
            }
            let raw: Vec<_> = raw.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            request(&texts(&joined), &raw, &texts(&demands))
        });
        proptest::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn it_reads_what_the_usual_decoder_reads(bytes in pieces()) {
            let usual = auth::CheckRequest::decode(bytes.as_slice()).unwrap().attributes.unwrap();
            let http = usual.request.unwrap().http.unwrap();
            let raw = http.header_map.map(|map| map.headers).unwrap_or_default();
            let lines: Vec<(String, Vec<u8>)> = if raw.is_empty() {
                http.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
            } else {
                raw.into_iter().map(|line| (line.key, line.raw_value)).collect()
            };
            let named = |name: &str| -> Vec<String> {
                let lines = lines.iter().filter(|(line, _)| line.eq_ignore_ascii_case(name));
                lines.map(|(_, value)| String::from_utf8(value.clone()).unwrap()).collect()
            };
            let read = read(&bytes);
            match (named("authorization").as_slice(), read.authorization) {
                (none, Authorization::None) => prop_assert!(none.is_empty()),
                (one, Authorization::One(text)) => prop_assert_eq!(one, [text.to_owned()]),
                // A map that is given one name twice shows the last alone.
                (some, Authorization::Several) => prop_assert!(!some.is_empty()),
            }
            for line in named("cookie") {
                prop_assert!(read.cookies.contains(&line));
            }
            let demands: std::collections::HashMap<_, _> =
                read.demands.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            prop_assert_eq!(demands, usual.context_extensions);
        }

        #[test]
        fn no_bytes_bring_it_down(mut bytes in pieces(), at in any::<prop::sample::Index>(), by in 1_u8..) {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            let usual = auth::CheckRequest::decode(bytes.as_slice());
            let read = CheckRequest::read(&bytes);
            // What the usual decoder takes, this one takes, too; it overlooks what is wrong where it does not look.
            prop_assert!(usual.is_err() || read.is_ok());
        }
    }
}
