//! A relayed refresh's result as the store keeps it.

use super::{Issued, PURPOSE};
use crate::keys::{ContentEncryption, ContentKey, Sealed};
use crate::session::lease::Outcome;
use crate::token::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use zeroize::Zeroizing;

/// Seals a result so that only who holds the presented token can open it.
pub(super) fn seal(bound_to: &str, token: &Secret, issued: &Issued) -> Option<Outcome> {
    let content = Zeroizing::new(serde_json::to_vec(issued).ok()?);
    let Sealed { iv, ciphertext, tag } = key(bound_to, token)?.seal(PURPOSE, &content).ok()?;
    let [iv, ciphertext, tag] = [iv, ciphertext, tag].map(|part| BASE64URL.encode(part));
    Some(Outcome::Sealed(format!("{iv}.{ciphertext}.{tag}")))
}

/// What was sealed for a token, under the same binding.
pub(super) fn open(bound_to: &str, token: &Secret, sealed: &str) -> Option<Issued> {
    let parts = sealed.split('.').map(|part| BASE64URL.decode(part)).collect::<Result<Vec<_>, _>>().ok()?;
    let [iv, ciphertext, tag] = <[_; 3]>::try_from(parts).ok()?;
    let content = key(bound_to, token)?.open(PURPOSE, &Sealed { iv, ciphertext, tag }).map(Zeroizing::new)?;
    serde_json::from_slice(&content).ok()
}

fn key(bound_to: &str, token: &Secret) -> Option<ContentKey> {
    ContentKey::derived(ContentEncryption::A256Gcm, token, PURPOSE, bound_to.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_opens_with_its_token_and_issuer_alone() {
        let token = Secret::new(b"r0".to_vec());
        let issued = Issued {
            access_token: "access".to_owned(),
            expires_at: Some(7),
            refresh_token: "next".to_owned(),
            id_token: None,
        };
        let Some(Outcome::Sealed(text)) = seal("a", &token, &issued) else { panic!("it is sealed") };
        assert!(!text.contains("access") && !text.contains("next"));
        let opened = open("a", &token, &text).unwrap();
        assert_eq!((opened.access_token.as_str(), opened.expires_at), ("access", Some(7)));
        assert!(open("b", &token, &text).is_none());
        assert!(open("a", &Secret::new(b"r1".to_vec()), &text).is_none());
        for bad in ["", ".", "..", &text[1..], &format!("{text}A"), &format!("{text}.")] {
            assert!(open("a", &token, bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{issued:?}"), "Issued(…)");
    }
}
