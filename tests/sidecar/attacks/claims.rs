//! Attacks by what a well-signed token claims: for whom it is, what it is, whose it is.

use super::Attacked;
use crate::mint::Claims;
use crate::support::assert_refused;
use tonic::Code;

#[tokio::test]
async fn aud_must_be_there_and_of_strings_alone() {
    let attacked = Attacked::start().await;
    attacked.denies_claims("MISSING_CLAIM", [("none", Claims::good().without("aud"))]).await;
    let no_strings =
        ["123", "null", "{}", "true", "[\"shop\",1]", "[1,\"shop\"]", "[\"shop\",null]", "[[\"shop\"]]"];
    let claims = no_strings.map(|aud| (aud, Claims::good().with("aud", aud)));
    attacked.denies_claims("INVALID_CLAIM", claims).await;
}

#[tokio::test]
async fn aud_is_matched_exactly() {
    let attacked = Attacked::start().await;
    for aud in ["\"shop\"", "[\"shop\"]", "[\"other\",\"bank\"]", r#""\u0073hop""#] {
        attacked.accepts_claims([(aud, Claims::good().with("aud", aud))]).await;
    }
    let others = [
        "[]",
        "\"\"",
        "\"Shop\"",
        "\"shop \"",
        "\"shopper\"",
        "\"shop,bank\"",
        "\"shop bank\"",
        "[\"sh\",\"op\"]",
        "\"*\"",
        "\"https://shop.example.com\"",
    ];
    let claims = others.map(|aud| (aud, Claims::good().with("aud", aud)));
    attacked.denies_claims("WRONG_AUDIENCE", claims).await;
}

#[tokio::test]
async fn an_id_token_or_a_logout_token_is_no_access_token() {
    let attacked = Attacked::start().await;
    let header = |typ: &str| format!(r#"{{"alg":"EdDSA","kid":"ed25519"{typ}}}"#);
    let others = [
        "",
        r#","typ":"JWT""#,
        r#","typ":"ID""#,
        r#","typ":"id_token+jwt""#,
        r#","typ":"logout+jwt""#,
        r#","typ":"dpop+jwt""#,
        r#","typ":"secevent+jwt""#,
        r#","typ":"at+jwt ""#,
        r#","typ":"text/at+jwt""#,
        r#","typ":"application/x/at+jwt""#,
        r#","typ":"""#,
    ];
    let logout =
        Claims::good().with("events", r#"{"http://schemas.openid.net/event/backchannel-logout":{}}"#);
    for claims in [Claims::good(), logout] {
        let tokens = others.map(|typ| (typ, attacked.ed25519.token_of(header(typ), claims.text())));
        attacked.denies_each("UNSUPPORTED_TYPE", tokens).await;
    }
    for typ in ["null", "7", "[\"at+jwt\"]"] {
        let header = header(&format!(",\"typ\":{typ}"));
        attacked
            .denies_each("MALFORMED", [(typ, attacked.ed25519.token_of(header, Claims::good().text()))])
            .await;
    }
    for typ in ["AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let token = attacked.ed25519.token_of(header(&format!(",\"typ\":\"{typ}\"")), Claims::good().text());
        assert!(attacked.verify(&token).await.is_ok(), "{typ} is the same media type");
    }
}

#[tokio::test]
async fn iss_that_is_no_string_is_refused() {
    let attacked = Attacked::start().await;
    attacked.denies_claims("MISSING_CLAIM", [("none", Claims::good().without("iss"))]).await;
    let odd = [
        "{}",
        "[]",
        "[\"https://login.example.net\"]",
        "[\"evil\",\"https://login.example.net\"]",
        "1",
        "null",
        "true",
    ];
    let claims = odd.map(|iss| (iss, Claims::good().with("iss", iss)));
    attacked.denies_claims("INVALID_CLAIM", claims).await;
    attacked.denies_claims("UNKNOWN_ISSUER", [("empty", Claims::good().with("iss", "\"\""))]).await;
}

#[tokio::test]
async fn sub_that_is_missing_empty_or_no_string_is_refused() {
    let attacked = Attacked::start().await;
    attacked.denies_claims("MISSING_CLAIM", [("none", Claims::good().without("sub"))]).await;
    let long = format!("\"{}\"", "a".repeat(1025));
    for sub in ["1", "null", "{}", "[\"alice\"]", "\"\"", &long] {
        attacked.denies_claims("INVALID_CLAIM", [(sub, Claims::good().with("sub", sub))]).await;
    }
}

#[tokio::test]
async fn optional_claims_of_a_wrong_type_are_refused() {
    let attacked = Attacked::start().await;
    for (name, values) in [
        ("jti", &["1", "null", "{}", "[\"t1\"]", "\"\""][..]),
        ("sid", &["1", "null", "[\"s1\"]", "\"\""]),
        ("client_id", &["1", "null", "\"\""]),
        ("azp", &["1", "[\"app\"]"]),
        ("scope", &["1", "null", "{}", "[\"read\",1]", "[[\"read\"]]"]),
        ("roles", &["1", "null", "{}", "[\"admin\",null]"]),
    ] {
        for value in values {
            attacked.denies_claims("INVALID_CLAIM", [(*value, Claims::good().with(name, value))]).await;
        }
        attacked.accepts_claims([(name, Claims::good().without(name))]).await;
    }
}

#[tokio::test]
async fn a_foreign_token_chooses_neither_its_policy_nor_its_login_nor_its_version() {
    let attacked = Attacked::start().await;
    // What our own tokens say so: it means nothing in another issuer's.
    let claims = Claims::good().with("pol", "\"low\"").with("sct", "99999999999999").with("sav", "-1");
    attacked.accepts_claims([("ignored", claims)]).await;
}

#[tokio::test]
async fn a_scope_is_granted_whole_or_not_at_all() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    assert!(attacked.demanding(&token, &[], &["write", "read"]).await.is_ok());
    for scopes in [&["admin"][..], &["read", "admin"], &["read write"], &["rea"], &["Read"], &[""]] {
        let result = attacked.demanding(&token, &[], scopes).await;
        assert_refused(result, Code::PermissionDenied, "INSUFFICIENT_SCOPE", "NONE");
    }
    let listed = attacked.ed25519.token(&Claims::good().with("scope", "[\"read write\"]"));
    let result = attacked.demanding(&listed, &[], &["read"]).await;
    assert_refused(result, Code::PermissionDenied, "INSUFFICIENT_SCOPE", "NONE");
}
