//! A login as its caller reports it, and the limits of its fields. The caller is trusted to know who logged in, not to
//! know what fits into a token.

use crate::session::error::SessionError;
use crate::session::extra::Extra;
use crate::session::record::{Attributes, Device};
use std::fmt;

const MAX_NAME_BYTES: usize = 256;
const MAX_ATTRIBUTES: usize = 256;

/// Somebody logged in. `Debug` does not show who.
#[derive(Clone, Default)]
pub struct Login {
    /// Who: 1 to 256 bytes.
    pub subject: String,
    /// A configured policy; `None`: the default.
    pub policy: Option<String>,
    /// The OAuth client: 1 to 256 printable ASCII characters (RFC 6749 §A.1).
    pub client_id: String,
    /// Where from.
    pub device: Device,
    /// What the session says.
    pub attributes: Attributes,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("policy", &self.policy)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Checks every field but the policy's existence.
    ///
    /// # Errors
    /// [`SessionError::Invalid`], naming the first field that is out of bounds.
    pub fn check(&self) -> Result<(), SessionError> {
        check_subject(&self.subject)?;
        let printable = |b: u8| (0x20..=0x7e).contains(&b);
        let length = self.client_id.len();
        if !(1..=MAX_NAME_BYTES).contains(&length) || !self.client_id.bytes().all(printable) {
            return invalid("client_id", "must be 1 to 256 printable ASCII characters");
        }
        check_text(
            "device.name",
            &self.device.name,
            256,
            "must be at most 256 bytes, without control characters",
        )?;
        check_text(
            "device.ip_address",
            &self.device.ip_address,
            64,
            "must be at most 64 bytes, without control characters",
        )?;
        check_text(
            "device.user_agent",
            &self.device.user_agent,
            512,
            "must be at most 512 bytes, without control characters",
        )?;
        check_attributes(&self.attributes)
    }
}

/// Checks a subject.
///
/// # Errors
/// [`SessionError::Invalid`].
pub fn check_subject(subject: &str) -> Result<(), SessionError> {
    if subject.is_empty() {
        return invalid("subject", "is required");
    }
    check_text("subject", subject, MAX_NAME_BYTES, "must be at most 256 bytes, without control characters")
}

/// Checks attributes: roles not empty, scopes as RFC 6749 §3.3 spells them, further claims strict JSON without
/// reserved names. Does not check that they fit into a token.
///
/// # Errors
/// [`SessionError::Invalid`].
pub fn check_attributes(attributes: &Attributes) -> Result<(), SessionError> {
    if attributes.roles.len() > MAX_ATTRIBUTES {
        return invalid("attributes.roles", "must be at most 256");
    }
    for role in &attributes.roles {
        if role.is_empty() {
            return invalid("attributes.roles", "must not be empty strings");
        }
        let why = "must be at most 256 bytes each, without control characters";
        check_text("attributes.roles", role, MAX_NAME_BYTES, why)?;
    }
    if attributes.scopes.len() > MAX_ATTRIBUTES {
        return invalid("attributes.scopes", "must be at most 256");
    }
    if !attributes.scopes.iter().all(|scope| is_scope_token(scope)) {
        return invalid(
            "attributes.scopes",
            "must each be 1 to 256 printable ASCII characters without space, quote or backslash",
        );
    }
    let refused = |why| SessionError::Invalid { field: "attributes.claims_json", why };
    let extra = Extra::read(&attributes.claims_json).map_err(refused)?;
    if extra.names_reserved() {
        return Err(refused("must not name a registered claim or one of our own"));
    }
    Ok(())
}

/// A scope of one word (RFC 6749 §3.3), of at most 256 bytes.
#[must_use]
pub fn is_scope_token(scope: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&scope.len())
        && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

fn check_text(field: &'static str, text: &str, most: usize, why: &'static str) -> Result<(), SessionError> {
    if text.len() > most || text.chars().any(char::is_control) { invalid(field, why) } else { Ok(()) }
}

fn invalid(field: &'static str, why: &'static str) -> Result<(), SessionError> {
    Err(SessionError::Invalid { field, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login { subject: "alice".to_owned(), client_id: "shop".to_owned(), ..Login::default() }
    }

    fn refused(change: impl FnOnce(&mut Login)) -> &'static str {
        let mut login = login();
        change(&mut login);
        match login.check() {
            Err(SessionError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_login_at_every_limit_is_accepted() {
        let mut login = login();
        login.subject = "é".repeat(128);
        login.client_id = "c".repeat(256);
        login.device =
            Device { name: "n".repeat(256), ip_address: "i".repeat(64), user_agent: "u".repeat(512) };
        login.attributes.roles = vec!["r".repeat(256)];
        login.attributes.scopes = vec!["orders:read".to_owned(), "!#[]~".to_owned()];
        login.attributes.claims_json = r#"{"tenant":7}"#.to_owned();
        assert!(login.check().is_ok());
    }

    #[test]
    fn nobody_can_t_log_in() {
        assert_eq!(refused(|login| login.subject.clear()), "subject");
    }

    #[test]
    fn an_endless_subject_is_refused() {
        assert_eq!(refused(|login| login.subject = "a".repeat(257)), "subject");
    }

    #[test]
    fn control_characters_are_refused() {
        assert_eq!(refused(|login| login.subject = "a\0".to_owned()), "subject");
        assert_eq!(refused(|login| login.device.name = "a\nb".to_owned()), "device.name");
        assert_eq!(refused(|login| login.attributes.roles = vec!["a\u{85}".to_owned()]), "attributes.roles");
    }

    #[test]
    fn a_client_without_a_name_or_with_an_odd_one_is_refused() {
        for odd in ["", "é", "a\tb"] {
            assert_eq!(refused(|login| login.client_id = odd.to_owned()), "client_id");
        }
    }

    #[test]
    fn an_endless_device_is_refused() {
        assert_eq!(refused(|login| login.device.name = "a".repeat(257)), "device.name");
        assert_eq!(refused(|login| login.device.ip_address = "a".repeat(65)), "device.ip_address");
        assert_eq!(refused(|login| login.device.user_agent = "a".repeat(513)), "device.user_agent");
    }

    #[test]
    fn empty_and_endless_roles_are_refused() {
        for roles in [vec![String::new()], vec!["a".repeat(257)], vec!["a".to_owned(); 257]] {
            assert_eq!(refused(|login| login.attributes.roles = roles), "attributes.roles");
        }
    }

    #[test]
    fn two_scopes_in_one_are_refused() {
        for scope in ["", "read write", "a\"b", "a\\b", "é"] {
            assert_eq!(
                refused(|login| login.attributes.scopes = vec![scope.to_owned()]),
                "attributes.scopes"
            );
        }
        assert_eq!(refused(|login| login.attributes.scopes = vec!["a".to_owned(); 257]), "attributes.scopes");
    }

    #[test]
    fn a_login_can_t_make_itself_another_subject() {
        let smuggled = r#"{"sub":"root"}"#.to_owned();
        assert_eq!(refused(|login| login.attributes.claims_json = smuggled), "attributes.claims_json");
    }

    #[test]
    fn claims_with_a_member_twice_are_refused() {
        let twice = r#"{"a":1,"a":2}"#.to_owned();
        assert_eq!(refused(|login| login.attributes.claims_json = twice), "attributes.claims_json");
    }

    #[test]
    fn an_error_shows_no_value() {
        let mut login = login();
        login.subject = "hunter2\0".to_owned();
        let error = login.check().unwrap_err();
        assert!(!format!("{error} {error:?} {login:?}").contains("hunter2"));
    }
}
