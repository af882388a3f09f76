//! The compact serialization (RFC 7515 §7.1): three parts, strict base64url, nothing else.

use crate::token::Reason;
use crate::verify::refusal::Denied;
use base64::Engine;
use std::sync::LazyLock;

/// Strict as `URL_SAFE_NO_PAD`, and several times as fast where the processor can.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
static BASE64URL: LazyLock<base64::engine::Simd> =
    LazyLock::new(|| base64::engine::Simd::url_safe(base64::engine::general_purpose::NO_PAD));
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
static BASE64URL: LazyLock<base64::engine::GeneralPurpose> =
    LazyLock::new(|| base64::engine::general_purpose::URL_SAFE_NO_PAD);

/// A token's parts, decoded but not yet understood.
pub struct Decoded<'t> {
    /// What was signed: the first two parts as they came, with the dot (RFC 7515 §2).
    pub signing_input: &'t str,
    /// The JOSE header.
    pub header: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl std::fmt::Debug for Decoded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoded(…)")
    }
}

/// Splits and decodes.
///
/// # Errors
/// TOO_LARGE beyond `max_bytes`; UNSUPPORTED_TYPE for the five parts of a JWE; MALFORMED for anything else that is not
/// three parts of canonical, unpadded base64url.
pub fn decode(token: &str, max_bytes: usize) -> Result<Decoded<'_>, Denied> {
    if token.len() > max_bytes {
        return Err(Denied::new(Reason::TooLarge, "larger than this sidecar accepts"));
    }
    // One more than any serialization has, so that thousands of dots cost no more.
    let mut parts = token.splitn(6, '.');
    let (Some(header), Some(payload), Some(signature)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Denied::new(Reason::Malformed, "not three parts"));
    };
    match parts.count() {
        0 => {}
        2 => {
            return Err(Denied::new(
                Reason::UnsupportedType,
                "five parts: encrypted tokens are not accepted here",
            ));
        }
        _ => return Err(Denied::new(Reason::Malformed, "not three parts")),
    }
    let decoded = |part: &str| {
        BASE64URL
            .decode(part)
            .map_err(|_| Denied::new(Reason::Malformed, "not canonical, unpadded base64url"))
    };
    let signing_input = token.get(..header.len() + 1 + payload.len()).unwrap_or_default();
    Ok(Decoded {
        signing_input,
        header: decoded(header)?,
        payload: decoded(payload)?,
        signature: decoded(signature)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16 * 1024;

    fn reason(token: &str) -> Reason {
        decode(token, MAX).unwrap_err().reason
    }

    #[test]
    fn three_parts_are_decoded() {
        let decoded = decode("eyJ9.AQID.BAUG", MAX).unwrap();
        assert_eq!(decoded.signing_input, "eyJ9.AQID");
        assert_eq!((&decoded.payload[..], &decoded.signature[..]), (&[1, 2, 3][..], &[4, 5, 6][..]));
    }

    #[test]
    fn any_other_number_of_parts_is_refused_without_work() {
        for token in
            ["", ".", "a", "a.b", "AAAA.AAAA", "AAAA.AAAA.AAAA.AAAA", "AAAA.AAAA.AAAA.AAAA.AAAA.AAAA"]
        {
            assert_eq!(reason(token), Reason::Malformed, "{token:?}");
        }
        assert_eq!(reason(&".".repeat(10_000)), Reason::Malformed);
        assert_eq!(reason("eyJ9.AAAA.AAAA.AAAA.AAAA"), Reason::UnsupportedType);
        assert_eq!(reason(&"A".repeat(MAX + 1)), Reason::TooLarge);
    }

    #[test]
    fn padded_spaced_wrapped_and_non_canonical_base64_is_refused() {
        for part in [
            "AQ==", "AQI=", " AQID", "AQID ", "AQ\nID", "AQ\r\nID", "AQ ID", "AR", "A", "AQI+", "AQI/",
            "AQI%3D", "ÄQID",
        ] {
            for token in
                [format!("{part}.AQID.AQID"), format!("AQID.{part}.AQID"), format!("AQID.AQID.{part}")]
            {
                assert_eq!(reason(&token), Reason::Malformed, "{token:?}");
            }
        }
    }

    #[test]
    fn the_json_serialization_is_refused() {
        assert_eq!(reason(r#"{"payload":"AQID","protected":"eyJ9","signature":"BAUG"}"#), Reason::Malformed);
    }
}
