//! What a caller says of its trace: `traceparent` and `tracestate` of W3C Trace Context, level 2.

use http::{HeaderMap, HeaderName};

/// A list longer than this is dropped whole, as the recommendation allows from 512 characters on.
const LONGEST_STATE: usize = 512;
const MOST_MEMBERS: usize = 32;
const SAMPLED: u8 = 1;
/// Made once: to make a name of a text for each call would take longer than to look for it.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A trace that a caller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceContext {
    pub(super) trace: [u8; 16],
    pub(super) parent: [u8; 8],
    pub(super) flags: u8,
}

impl TraceContext {
    /// Of exactly one header that can be read; any other is as none.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(&TRACEPARENT).iter();
        let only = all.next()?;
        if all.next().is_some() { None } else { Self::parse(only.as_bytes()) }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(55)?;
        let [version] = hex(known.get(..2)?)?;
        // A later version may say more behind a hyphen; this one may not.
        let more = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let hyphens = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
        if !more || !hyphens {
            return None;
        }
        let (trace, parent) = (hex(known.get(3..35)?)?, hex(known.get(36..52)?)?);
        let [flags] = hex(known.get(53..55)?)?;
        (trace != [0; 16] && parent != [0; 8]).then_some(Self { trace, parent, flags })
    }

    pub(super) const fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Lower-case digits only, as the recommendation has it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The vendors' list, passed on as it came. One that is too long or breaks the recommendation's grammar (§3.3.1) is none.
pub(super) fn state(headers: &HeaderMap) -> String {
    let mut state = String::new();
    for value in headers.get_all(&TRACESTATE) {
        let Ok(text) = value.to_str() else { return String::new() };
        let text = text.trim();
        if !state.is_empty() && !text.is_empty() {
            state.push(',');
        }
        state.push_str(text);
        if state.len() > LONGEST_STATE {
            return String::new();
        }
    }
    if is_list(&state) { state } else { String::new() }
}

fn is_list(state: &str) -> bool {
    let members = || state.split(',').map(str::trim).filter(|member| !member.is_empty());
    let keys = || members().filter_map(|member| member.split_once('=').map(|(key, _)| key));
    members().count() <= MOST_MEMBERS
        && members().all(is_member)
        && keys().enumerate().all(|(at, key)| !keys().take(at).any(|before| before == key))
}

fn is_member(member: &str) -> bool {
    let starts = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let goes_on = |c: u8| starts(c) || b"_-*/@".contains(&c);
    let may_say = |c: u8| matches!(c, b' '..=b'~') && c != b',' && c != b'=';
    member.split_once('=').is_some_and(|(key, value)| {
        key.len() <= 256
            && key.bytes().next().is_some_and(starts)
            && key.bytes().all(goes_on)
            && (1..=256).contains(&value.len())
            && value.bytes().all(may_say)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_is_read_with_its_ids_and_its_flag() {
        let read = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(read.trace[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(read.parent[7], 0x31);
        assert!(read.sampled());
        let later = GOOD.replacen("00", "01", 1);
        assert!(TraceContext::parse(format!("{later}-more").as_bytes()).is_some());
        assert!(TraceContext::parse(later.as_bytes()).is_some());
    }

    #[test]
    fn what_is_no_trace_is_not_taken_for_one() {
        let bad = [
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            format!("{GOOD}-more"),
            GOOD.replacen('-', "_", 1),
            GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("01", "0g"),
            GOOD[..54].to_owned(),
            format!("{}-more", &GOOD[..54]),
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
        let twice = HeaderMap::from_iter(
            [GOOD, GOOD]
                .map(|text| (HeaderName::from_static("traceparent"), http::HeaderValue::from_static(text))),
        );
        let mut both = twice.clone();
        both.append("traceparent", http::HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::read(&both), None);
    }

    #[test]
    fn the_state_is_passed_on_within_bounds() {
        let name = || HeaderName::from_static("tracestate");
        let mut headers = HeaderMap::new();
        assert_eq!(state(&headers), "");
        headers.append(name(), http::HeaderValue::from_static("a=1"));
        headers.append(name(), http::HeaderValue::from_static("b=2"));
        assert_eq!(state(&headers), "a=1,b=2");
        headers.append(name(), "x".repeat(600).parse().unwrap());
        assert_eq!(state(&headers), "");
    }

    #[test]
    fn a_state_that_is_no_list_is_none() {
        let of = |text: &str| state(&HeaderMap::from_iter([(TRACESTATE.clone(), text.parse().unwrap())]));
        let most: Vec<_> = (0..MOST_MEMBERS).map(|at| format!("k{at}=v")).collect();
        for good in
            ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "tenant@vendor=a b", "1a=x , ,b=y", &most.join(",")]
        {
            assert_eq!(of(good), good);
        }
        let more = format!("{},more=1", most.join(","));
        let long = format!("{}=1", "k".repeat(257));
        for bad in ["a", "a=", "=1", "A=1", "_a=1", "a b=1", "a=1=2", "a=1,a=2", "a=\t1", &more, &long] {
            assert_eq!(of(bad), "", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceContext::parse(&text);
        }
    }
}
