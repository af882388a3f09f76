//! What kind of credential was presented, told from its shape and the name it was found under, before anything of it is
//! read. Said here once: caching, verifying, taking back and renewing all go by it.

use crate::keys::HandleKind;
use crate::token::TokenDigest;
use crate::verify::{IssuerEntry, Verifier};
use std::sync::Arc;

/// What was presented, as far as its shape says.
pub(super) enum Presented<'v> {
    /// Ours: a session or refresh token.
    Handle,
    /// An opaque token of this issuer, by its prefix or because it is nothing else.
    Opaque(&'v Arc<IssuerEntry>),
    /// The name of a row in this issuer's session table; `None` where nobody said in which of several.
    Row(Option<&'v Arc<IssuerEntry>>),
    /// An encrypted session cookie, if anything.
    Cookie,
    /// A JWT, if anything.
    Jwt,
}

impl Verifier {
    /// Names the kind of a credential that was found under this name; empty where that was not said.
    pub(super) fn presented(&self, token: &str, name: &str) -> Presented<'_> {
        if HandleKind::of(token).is_some() {
            return Presented::Handle;
        }
        let shape = match token.bytes().filter(|byte| *byte == b'.').count() {
            2 => Some(Presented::Jwt),
            4 if !self.cookies.is_empty() => Some(Presented::Cookie),
            _ => None,
        };
        let is_shapeless = shape.is_none();
        match self.opaque_issuer(token, is_shapeless) {
            Some(entry) => Presented::Opaque(entry),
            None if is_shapeless && !self.tables.is_empty() && is_bearer(token) => {
                Presented::Row(self.table_of(name))
            }
            None => shape.unwrap_or(Presented::Jwt),
        }
    }

    /// What a credential is cached by. A cookie is good under its own name alone, so that counts where there are any.
    pub(super) fn digest(&self, token: &str, name: &str) -> TokenDigest {
        let by_itself = || TokenDigest::of(token.as_bytes());
        if name.is_empty() || self.cookies.is_empty() && self.tables.is_empty() {
            return by_itself();
        }
        match self.presented(token, name) {
            Presented::Opaque(_) => by_itself(),
            Presented::Row(Some(_)) if self.tables.len() == 1 => by_itself(),
            Presented::Row(_) | Presented::Handle | Presented::Cookie | Presented::Jwt => {
                TokenDigest::of_named(name, token.as_bytes())
            }
        }
    }

    /// The table whose tokens are kept in cookies of this name; without a name the only one there is.
    fn table_of(&self, name: &str) -> Option<&Arc<IssuerEntry>> {
        match self.tables.as_slice() {
            [only] if name.is_empty() => Some(only),
            tables => tables.iter().find(|entry| {
                let rows = entry.settings.table.as_ref();
                rows.is_some_and(|rows| rows.cookies().iter().any(|cookie| cookie == name))
            }),
        }
    }

    /// Whose opaque token it is. An issuer without a prefix takes what has no other kind's shape.
    fn opaque_issuer(&self, token: &str, is_shapeless: bool) -> Option<&Arc<IssuerEntry>> {
        // What can't be a bearer token is not shown to anybody.
        if self.opaque.is_empty() || token.len() > self.max_token_bytes || !is_bearer(token) {
            return None;
        }
        let is_its = |entry: &&Arc<IssuerEntry>| match entry.settings.opaque.as_ref() {
            Some(opaque) if opaque.prefix.is_empty() => is_shapeless,
            Some(opaque) => token.starts_with(opaque.prefix.as_str()),
            None => false,
        };
        self.opaque.iter().find(is_its)
    }
}

/// One or more of the characters of a bearer token, then padding (RFC 6750 §2.1).
fn is_bearer(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bearer_token_is_shown_to_nobody() {
        for good in ["a", "ory_at_x.y", "AbC-._~+/019", "abc=="] {
            assert!(is_bearer(good), "{good}");
        }
        for bad in ["", "=", "a b", "a=b", "a\n", "a\"", "ä", "a&b=c", "a%20"] {
            assert!(!is_bearer(bad), "{bad:?}");
        }
    }
}
