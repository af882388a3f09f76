//! The claims of an access token (RFC 9068 §2.2), written in a fixed order.
//!
//! Beside the registered ones: `sct`, the login's creation stamp in milliseconds, by which cut-offs judge; `pol`, the
//! policy's name; `sav`, the version of the attributes it carries. `sid` and `sav` are absent where no record is kept.

use crate::clock::Timestamp;
use crate::revocation::StoreError;
use crate::session::extra::Extra;
use crate::session::policy::Policy;
use crate::session::record::{Attributes, SessionRecord};
use crate::token::SessionId;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Whom a token is for, and from which login.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) subject: &'a str,
    pub(super) client_id: &'a str,
    pub(super) attributes: &'a Attributes,
    /// The session and its attributes' version, where a record is kept.
    pub(super) session: Option<(SessionId, u64)>,
    pub(super) logged_in_at: Timestamp,
    pub(super) absolute_end: Timestamp,
}

impl<'a> Holder<'a> {
    pub(super) fn of(record: &'a SessionRecord, policy: &Policy) -> Self {
        Self {
            subject: &record.subject,
            client_id: &record.client_id,
            attributes: &record.attributes,
            session: policy.keeps_records().then_some((record.id, record.attributes_version)),
            logged_in_at: record.created_at,
            absolute_end: record.absolute_end,
        }
    }

    /// The same, with the longest a version can ever be written.
    pub(super) fn at_its_longest(self) -> Self {
        Self { session: self.session.map(|(id, _)| (id, u64::MAX)), ..self }
    }
}

/// From when to when a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Validity {
    /// From now, whatever the login's stamp: that may be ahead of this clock, and a token of the future would be good
    /// nowhere. Not longer than the session. Both in whole seconds, rounded down.
    pub(super) fn of(policy: &Policy, holder: &Holder<'_>, now: Timestamp) -> Self {
        let issued_at = now;
        let life = policy.access_token_life().unwrap_or_else(|| policy.absolute());
        let expires_at = issued_at.after(life).min(holder.absolute_end);
        let whole = |at: Timestamp| Timestamp::from_secs(at.as_secs());
        Self { issued_at: whole(issued_at), expires_at: whole(expires_at) }
    }
}

/// What an access token of a session would say now, as JSON, but for `jti`: from the login to the session's end. For
/// answers about session tokens, which say nothing by themselves.
///
/// # Errors
/// [`StoreError::Corrupt`] when the record's further claims are not what this room lets in.
pub fn session_claims(issuer: &str, policy: &Policy, record: &SessionRecord) -> Result<Vec<u8>, StoreError> {
    const UNREADABLE: StoreError = StoreError::Corrupt("a session's further claims");
    let extra = Extra::read(&record.attributes.claims_json).map_err(|_| UNREADABLE)?;
    let validity = Validity { issued_at: record.created_at, expires_at: record.ends_at() };
    let holder = Holder::of(record, policy);
    let claims = AccessClaims { issuer, policy, holder, extra: &extra, token_id: None, validity };
    serde_json::to_vec(&claims).map_err(|_| UNREADABLE)
}

/// An access token's payload.
pub(super) struct AccessClaims<'a> {
    pub(super) issuer: &'a str,
    pub(super) policy: &'a Policy,
    pub(super) holder: Holder<'a>,
    pub(super) extra: &'a Extra<'a>,
    /// `None`: these are a session's claims, not one token's.
    pub(super) token_id: Option<&'a str>,
    pub(super) validity: Validity,
}

impl Serialize for AccessClaims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { issuer, policy, holder, extra, token_id, validity } = self;
        let mut claims = serializer.serialize_map(None)?;
        claims.serialize_entry("iss", issuer)?;
        claims.serialize_entry("sub", holder.subject)?;
        match policy.audience() {
            [one] => claims.serialize_entry("aud", one)?,
            several => claims.serialize_entry("aud", several)?,
        }
        claims.serialize_entry("client_id", holder.client_id)?;
        claims.serialize_entry("iat", &validity.issued_at.as_secs())?;
        claims.serialize_entry("exp", &validity.expires_at.as_secs())?;
        if let Some(token_id) = token_id {
            claims.serialize_entry("jti", token_id)?;
        }
        if let Some((id, version)) = &holder.session {
            claims.serialize_entry("sid", &id.to_string())?;
            claims.serialize_entry("sav", version)?;
        }
        claims.serialize_entry("auth_time", &holder.logged_in_at.as_secs())?;
        claims.serialize_entry("sct", &holder.logged_in_at.as_millis())?;
        claims.serialize_entry("pol", policy.name())?;
        let Attributes { roles, scopes, claims_json: _ } = holder.attributes;
        if !roles.is_empty() && policy.carries("roles") {
            claims.serialize_entry("roles", roles)?;
        }
        if !scopes.is_empty() && policy.carries("scope") {
            claims.serialize_entry("scope", &scopes.join(" "))?;
        }
        for (name, value) in extra.members().filter(|(name, _)| policy.carries(name)) {
            claims.serialize_entry(name, value)?;
        }
        claims.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::policy::{Overrides, Preset};
    use std::time::Duration;

    const LOGIN: Timestamp = Timestamp::from_millis(1_800_000_000_750);
    const MINUTE: Duration = Duration::from_secs(60);

    fn policy(preset: Preset, said: Overrides) -> Policy {
        Policy::new("p", preset, said, "https://auth.example.com").unwrap()
    }

    fn attributes() -> Attributes {
        Attributes {
            roles: vec!["buyer".to_owned()],
            scopes: vec!["a".to_owned(), "b".to_owned()],
            claims_json: r#"{"tenant":12345678901234567890123,"plan":"x"}"#.to_owned(),
        }
    }

    fn holder<'a>(attributes: &'a Attributes, policy: &Policy) -> Holder<'a> {
        Holder {
            subject: "alice",
            client_id: "shop",
            attributes,
            session: policy.keeps_records().then_some((SessionId::from_bytes([0; 16]), 3)),
            logged_in_at: LOGIN,
            absolute_end: LOGIN.after(policy.absolute()),
        }
    }

    fn payload(policy: &Policy) -> String {
        let attributes = attributes();
        let holder = holder(&attributes, policy);
        let claims = AccessClaims {
            issuer: "https://auth.example.com",
            policy,
            holder,
            extra: &Extra::read(&attributes.claims_json).unwrap(),
            token_id: Some("t"),
            validity: Validity::of(policy, &holder, LOGIN.after(MINUTE)),
        };
        serde_json::to_string(&claims).unwrap()
    }

    #[test]
    fn claims_are_written_in_order_and_extra_ones_as_given() {
        assert_eq!(
            payload(&policy(Preset::Medium, Overrides::default())),
            concat!(
                r#"{"iss":"https://auth.example.com","sub":"alice","aud":"https://auth.example.com","#,
                r#""client_id":"shop","iat":1800000060,"exp":1800000960,"jti":"t","#,
                r#""sid":"AAAAAAAAAAAAAAAAAAAAAA","sav":3,"auth_time":1800000000,"sct":1800000000750,"pol":"p","#,
                r#""roles":["buyer"],"scope":"a b","tenant":12345678901234567890123,"plan":"x"}"#
            )
        );
    }

    #[test]
    fn without_a_record_there_is_no_sid_and_no_version() {
        let payload = payload(&policy(Preset::Low, Overrides::default()));
        assert!(!payload.contains("\"sid\"") && !payload.contains("\"sav\""), "{payload}");
        assert!(payload.contains("\"sct\":1800000000750"), "{payload}");
    }

    #[test]
    fn a_session_s_claims_are_its_tokens_but_for_the_token_s_id() {
        let policy = policy(Preset::High, Overrides::default());
        let record = SessionRecord {
            id: SessionId::from_bytes([0; 16]),
            issuer: "https://auth.example.com".into(),
            subject: "alice".to_owned(),
            policy: "p".to_owned(),
            client_id: "shop".to_owned(),
            device: Default::default(),
            attributes: attributes(),
            attributes_version: 3,
            created_at: LOGIN,
            last_active_at: LOGIN.after(MINUTE),
            idle: policy.idle(),
            absolute_end: LOGIN.after(policy.absolute()),
            generation: 0,
            generation_began_at: LOGIN,
        };
        let claims = session_claims("https://auth.example.com", &policy, &record).unwrap();
        let claims = String::from_utf8(claims).unwrap();
        let lived =
            r#""client_id":"shop","iat":1800000000,"exp":1800001860,"sid":"AAAAAAAAAAAAAAAAAAAAAA","sav":3"#;
        assert!(claims.contains(lived) && claims.ends_with(r#""plan":"x"}"#), "{claims}");

        let unreadable = Attributes { claims_json: "[]".to_owned(), ..Attributes::default() };
        let record = SessionRecord { attributes: unreadable, ..record };
        assert!(session_claims("https://auth.example.com", &policy, &record).is_err());
    }

    #[test]
    fn several_audiences_are_an_array() {
        let audience = Some(vec!["a".to_owned(), "b".to_owned()]);
        let payload = payload(&policy(Preset::Medium, Overrides { audience, ..Overrides::default() }));
        assert!(payload.contains(r#""aud":["a","b"]"#), "{payload}");
    }

    #[test]
    fn only_the_attributes_the_policy_lists_are_carried() {
        let access_token_attributes = Some(vec!["scope".to_owned(), "plan".to_owned()]);
        let said = Overrides { access_token_attributes, ..Overrides::default() };
        let payload = payload(&policy(Preset::Medium, said));
        assert!(payload.ends_with(r#""pol":"p","scope":"a b","plan":"x"}"#), "{payload}");
    }

    #[test]
    fn a_login_stamped_ahead_of_this_clock_gives_a_token_that_is_good_now() {
        let policy = policy(Preset::Medium, Overrides::default());
        let attributes = attributes();
        let validity = Validity::of(&policy, &holder(&attributes, &policy), LOGIN.before(MINUTE));
        assert_eq!(validity.issued_at, Timestamp::from_secs(1_799_999_940));
        assert_eq!(validity.expires_at, Timestamp::from_secs(1_800_000_840));
    }

    #[test]
    fn a_token_does_not_outlive_its_session() {
        let policy = policy(Preset::Medium, Overrides::default());
        let attributes = attributes();
        let holder = holder(&attributes, &policy);
        let validity = Validity::of(&policy, &holder, holder.absolute_end.before(MINUTE));
        assert!(validity.expires_at <= holder.absolute_end);
        assert_eq!(validity.expires_at.as_secs(), holder.absolute_end.as_secs());
    }
}
