//! Clerk's session tokens: the active organisation's role and permissions, which version 2 packs into masks, and the
//! instant of the login, which it gives as an age.
//!
//! The role reads as a role, a permission as a scope. What is malformed grants nothing: it never widens anything.

use crate::clock::Timestamp;
use crate::token::Reason;
use crate::verify::claims::{number, text, texts};
use crate::verify::json::{Json, Object};
use crate::verify::refusal::Denied;
use std::borrow::Cow;
use std::time::Duration;

/// What the active organisation grants.
#[derive(Default)]
pub(super) struct Granted<'a> {
    pub(super) roles: Vec<Cow<'a, str>>,
    pub(super) permissions: Vec<Cow<'a, str>>,
}

/// Reads role and permissions, of version 2 where the token says so, else of version 1.
///
/// # Errors
/// INVALID_CLAIM, where a claim has the wrong type or the session has tasks left, which Clerk takes for signed out.
pub(super) fn granted<'a>(claims: &Object<'a>) -> Result<Granted<'a>, Denied> {
    if claims.get("sts").is_some_and(|status| status.as_text() == Some("pending")) {
        return Err(Denied::new(Reason::InvalidClaim, "sts: the session is pending, not signed in"));
    }
    if number(claims.get("v"), "v is no number")? != Some(2) {
        let role = text(claims.get("org_role").filter(is_there), "org_role is not text")?;
        let permissions = texts(
            claims.get("org_permissions").filter(is_there),
            "org_permissions are not an array of texts",
        )?;
        return Ok(Granted {
            roles: role.into_iter().collect(),
            permissions: permissions.unwrap_or_default(),
        });
    }
    let Some(organisation) = claims.get("o").filter(is_there) else { return Ok(Granted::default()) };
    let organisation =
        organisation.as_object().ok_or(Denied::new(Reason::InvalidClaim, "o is not an object"))?;
    let role = text(organisation.get("rol"), "o.rol is not text")?;
    Ok(Granted {
        roles: role.map(|role| Cow::Owned(format!("org:{role}"))).into_iter().collect(),
        permissions: permissions(claims, organisation).unwrap_or_default(),
    })
}

/// Without an active organisation its claims may be `null`.
fn is_there(value: &&Json<'_>) -> bool {
    !matches!(value, Json::Null)
}

/// The n-th mask of `fpm` belongs to the n-th organisation feature of `fea`; its least significant bit is the first
/// name of `per`. `None` where anything is missing or malformed.
fn permissions<'a>(claims: &Object<'a>, organisation: &Object<'a>) -> Option<Vec<Cow<'a, str>>> {
    let features = organisation_features(claims.get("fea")?.as_text()?)?;
    let names: Vec<&str> = organisation.get("per")?.as_text()?.split(',').map(str::trim).collect();
    let masks = organisation.get("fpm")?.as_text()?.split(',').map(mask).collect::<Option<Vec<_>>>()?;
    let granted = features.iter().zip(masks).flat_map(|(feature, mask)| {
        let held = names.iter().take(128).enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1);
        held.map(move |(_, name)| Cow::Owned(format!("org:{feature}:{name}")))
    });
    Some(granted.collect())
}

/// Features are told as `o:name` (the organisation's), `u:name` (the user's) or both.
fn organisation_features(list: &str) -> Option<Vec<&str>> {
    let mut features = Vec::new();
    for element in list.split(',') {
        let (scope, name) = element.trim().split_once(':')?;
        if matches!(scope, "o" | "ou" | "uo") {
            features.push(name);
        }
    }
    Some(features)
}

/// A decimal number that is not negative.
fn mask(text: &str) -> Option<u128> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// When the user last proved who they are, from `fva`: minutes before `iat`, rounded down, or −1 for never. A whole
/// minute earlier, so that a login before a cut-off is never taken for one after it.
pub(super) fn login(claims: &Object<'_>, issued_at: Option<Timestamp>) -> Option<Timestamp> {
    let Json::Array(ages) = claims.get("fva")? else { return None };
    let Json::Unsigned(minutes) = ages.first()? else { return None };
    let age = Duration::from_secs(minutes.checked_add(1)?.checked_mul(60)?);
    Some(issued_at?.before(age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::json::parse;

    fn read(claims: &str) -> Result<(Vec<String>, Vec<String>), Reason> {
        let claims = parse(claims.as_bytes()).unwrap();
        let granted = granted(&claims).map_err(|denied| denied.reason)?;
        let owned = |names: Vec<Cow<'_, str>>| names.into_iter().map(Cow::into_owned).collect();
        Ok((owned(granted.roles), owned(granted.permissions)))
    }

    fn scopes(fea: &str, per: &str, fpm: &str) -> Vec<String> {
        let claims =
            format!(r#"{{"v":2,"fea":"{fea}","o":{{"id":"o1","rol":"admin","per":"{per}","fpm":"{fpm}"}}}}"#);
        let (roles, scopes) = read(&claims).unwrap();
        assert_eq!(roles, ["org:admin"]);
        scopes
    }

    #[test]
    fn masks_are_read_from_their_least_significant_bit_by_organisation_feature() {
        assert_eq!(
            scopes("u:impersonation,o:dashboard,ou:teams", "manage,read", "3,2"),
            ["org:dashboard:manage", "org:dashboard:read", "org:teams:read"]
        );
        assert_eq!(scopes("o:a, o:b", " x , y", "1 , 0"), ["org:a:x"]);
        assert_eq!(scopes("o:a", "x", "255"), ["org:a:x"], "bits beyond the names grant nothing");
        assert_eq!(scopes("o:a,o:b", "x", "1"), ["org:a:x"], "a feature without a mask has none");
        assert_eq!(scopes("o:a", "x", "1,1"), ["org:a:x"], "a mask without a feature is nobody's");
    }

    #[test]
    fn what_is_malformed_or_negative_grants_nothing() {
        for (fea, per, fpm) in [
            ("o:a", "x", "-1"),
            ("o:a", "x", "+1"),
            ("o:a", "x", "0x1"),
            ("o:a", "x", ""),
            ("o:a", "x", "1.0"),
            ("o:a", "x", "340282366920938463463374607431768211456"),
            ("dashboard", "x", "1"),
            ("u:a", "x", "1"),
        ] {
            assert_eq!(scopes(fea, per, fpm), Vec::<String>::new(), "{fea} {per} {fpm}");
        }
        for claims in
            [r#"{"v":2}"#, r#"{"v":2,"o":{"rol":"admin"}}"#, r#"{"v":2,"o":{"per":1,"fpm":"1"},"fea":"o:a"}"#]
        {
            assert_eq!(read(claims).unwrap().1, Vec::<String>::new(), "{claims}");
        }
    }

    #[test]
    fn version_1_names_role_and_permissions() {
        let claims = r#"{"org_id":"o1","org_role":"org:admin","org_permissions":["org:a:x","org:b:y"]}"#;
        assert_eq!(
            read(claims),
            Ok((vec!["org:admin".to_owned()], vec!["org:a:x".to_owned(), "org:b:y".to_owned()]))
        );
        assert_eq!(read(r#"{"org_role":null,"org_permissions":null}"#), Ok((vec![], vec![])));
        assert_eq!(read(r#"{"v":2,"o":null}"#), Ok((vec![], vec![])));
        // Claims of the other version count for nothing.
        assert_eq!(read(r#"{"v":2,"org_role":"org:admin"}"#), Ok((vec![], vec![])));
        assert_eq!(read(r#"{"o":{"rol":"admin"}}"#), Ok((vec![], vec![])));
    }

    #[test]
    fn a_pending_session_and_wrong_types_are_refused() {
        for claims in [
            r#"{"sts":"pending"}"#,
            r#"{"v":"2"}"#,
            r#"{"v":2,"o":[]}"#,
            r#"{"v":2,"o":{"rol":7}}"#,
            r#"{"org_role":7}"#,
            r#"{"org_permissions":[7]}"#,
        ] {
            assert_eq!(read(claims), Err(Reason::InvalidClaim), "{claims}");
        }
        assert!(read(r#"{"sts":"active"}"#).is_ok());
    }

    #[test]
    fn the_login_is_the_first_factor_s_age_and_a_minute_before_iat() {
        let at =
            |claims: &str| login(&parse(claims.as_bytes()).unwrap(), Some(Timestamp::from_secs(1_000_000)));
        assert_eq!(at(r#"{"fva":[7,-1]}"#), Some(Timestamp::from_secs(1_000_000 - 480)));
        for claims in
            [r#"{"fva":[-1,-1]}"#, r#"{"fva":[]}"#, r#"{"fva":7}"#, "{}", r#"{"fva":[18446744073709551615]}"#]
        {
            assert_eq!(at(claims), None, "{claims}");
        }
    }
}
