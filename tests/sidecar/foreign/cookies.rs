//! Encrypted session cookies of Auth.js and NextAuth: under which key and name they open, how they are renewed and
//! taken back. That the keys and cookies are those of the libraries themselves is tested beside them, in tests/interop.

use crate::mint::encode;
use crate::support::{Home, START, Sidecar, as_caller, assert_denied, verify_request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::ManualClock;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{
    CredentialKind, RefreshRequest, RefreshResponse, RevokeRequest, SubjectRevocation, VerifyRequest,
    VerifyResponse,
};
use countersign::keys::{ContentEncryption, CookieKeys, CookieSettings, CookieVersion};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Code, Status};

pub(crate) const NAME: &str = "authjs.session-token";
const SECURE: &str = "__Secure-authjs.session-token";
pub(crate) const SECRET: &str = "a secret of thirty-two characters";
const DAY: Duration = Duration::from_secs(86_400);

/// A sidecar beside an application whose secret it knows.
struct World {
    sidecar: Sidecar,
    hands: ManualClock,
    home: Home,
}

impl World {
    async fn start() -> Self {
        Self::start_with("").await
    }

    async fn start_with(more: &str) -> Self {
        let home = Home::new();
        std::fs::write(home.path("auth.secret"), format!("{SECRET}\n")).unwrap();
        std::fs::write(home.path("old.secret"), "the secret before that one").unwrap();
        let files =
            [home.path("auth.secret"), home.path("old.secret")].map(|path| path.display().to_string());
        let issuers = format!(
            "issuers:\n  - issuer: shop-web\n    audiences: [orders]\n    authjs:\n      cookies: [{SECURE}, {NAME}]\n      secret_files: [{}]\n{more}",
            files.join(", ")
        );
        let (sidecar, hands) = home.start_at(&issuers).await;
        Self { sidecar, hands, home }
    }

    async fn verify(&self, cookie: &str, name: &str) -> Result<VerifyResponse, Status> {
        let request = VerifyRequest { credential_name: name.to_owned(), ..verify_request(cookie) };
        self.sidecar.verify_demanding(request).await
    }

    async fn header(&self, header: &str) -> Result<VerifyResponse, Status> {
        let request = VerifyRequest { cookie_header: Some(header.to_owned()), ..VerifyRequest::default() };
        self.sidecar.verify_demanding(request).await
    }

    async fn renew(&self, cookie: &str, name: &str) -> Result<RefreshResponse, Status> {
        let request = RefreshRequest {
            refresh_token: Some(cookie.to_owned()),
            credential_name: name.to_owned(),
            issuer: None,
        };
        Ok(self.sidecar.tokens().refresh(request).await?.into_inner())
    }

    async fn revoke(&self, cookie: &str) {
        let target = Some(Target::Token(cookie.to_owned()));
        self.sidecar.tokens().revoke(RevokeRequest { target, reason: "logout".into() }).await.unwrap();
    }
}

/// An application: its secret and the cookie's name.
pub(crate) struct App {
    keys: CookieKeys,
    name: &'static str,
}

impl App {
    fn new(version: CookieVersion, name: &'static str, secret: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), secret).unwrap();
        let settings = CookieSettings {
            version,
            names: vec![name.to_owned()],
            secret_files: vec![PathBuf::from(file.path())],
            max_age: 30 * DAY,
            withhold: Vec::new(),
        };
        Self { keys: CookieKeys::load(settings).unwrap(), name }
    }

    pub(crate) fn v5() -> Self {
        Self::new(CookieVersion::AuthJs5, NAME, SECRET)
    }

    /// A cookie as the library writes it.
    pub(crate) fn cookie(&self, claims: &Value) -> String {
        let version = self.keys.settings().version;
        self.cookie_in(version.encrypts_with(), version.names_keys(), &claims.to_string())
    }

    fn cookie_in(&self, encryption: ContentEncryption, with_kid: bool, claims: &str) -> String {
        let loaded = self.keys.loaded();
        let key = loaded.candidates(self.name, None, encryption).next().unwrap().content_key();
        let mut header = json!({"alg": "dir", "enc": encryption.as_str()});
        if with_kid {
            header["kid"] = json!(key.thumbprint());
        }
        let header = encode(header.to_string());
        let sealed = key.seal(header.as_bytes(), claims.as_bytes()).unwrap();
        let [iv, ciphertext, tag] = [sealed.iv, sealed.ciphertext, sealed.tag].map(encode);
        format!("{header}..{iv}.{ciphertext}.{tag}")
    }
}

fn claims() -> Value {
    let now = START.as_secs();
    json!({"name": "Alice", "sub": "alice", "iat": now, "exp": now + 2_592_000, "jti": "c1", "roles": ["buyer"]})
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

#[tokio::test]
async fn a_cookie_is_accepted_and_says_what_the_application_wrote() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&claims());
    for name in [NAME, "", NAME] {
        let answer = world.verify(&cookie, name).await.unwrap();
        assert_eq!((answer.issuer.as_str(), answer.subject.as_str()), ("shop-web", "alice"));
        assert_eq!(answer.audiences, ["orders"]);
        assert_eq!((answer.token_id.as_str(), answer.roles.as_slice()), ("c1", &["buyer".to_owned()][..]));
        assert_eq!(answer.kind(), CredentialKind::AuthjsCookie);
        assert_eq!(answer.claims_json, claims().to_string().into_bytes());
        let renew = answer.refresh_after.unwrap().seconds;
        assert_eq!(renew, (START.after(DAY)).as_secs() as i64, "a day after its issue");
    }
}

#[tokio::test]
async fn a_cookie_is_good_under_its_own_name_alone_cached_or_not() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&claims());
    for _ in 0..2 {
        assert_denied(world.verify(&cookie, SECURE).await, "UNKNOWN_KEY", "NONE");
        assert_denied(world.verify(&cookie, "session").await, "UNKNOWN_KEY", "NONE");
        world.verify(&cookie, NAME).await.unwrap();
    }
    let secure = App::new(CookieVersion::AuthJs5, SECURE, SECRET).cookie(&claims());
    world.verify(&secure, SECURE).await.unwrap();
    assert_denied(world.verify(&secure, NAME).await, "UNKNOWN_KEY", "NONE");
}

#[tokio::test]
async fn every_secret_decrypts_and_a_strange_one_does_not() {
    let world = World::start().await;
    let old = App::new(CookieVersion::AuthJs5, NAME, "the secret before that one");
    world.verify(&old.cookie(&claims()), NAME).await.unwrap();
    let strange = App::new(CookieVersion::AuthJs5, NAME, "guessed");
    assert_denied(world.verify(&strange.cookie(&claims()), NAME).await, "UNKNOWN_KEY", "NONE");
    // Without a kid the first secret alone is tried, as Auth.js does.
    let cbc = ContentEncryption::A256CbcHs512;
    let text = claims().to_string();
    world.verify(&App::v5().cookie_in(cbc, false, &text), NAME).await.unwrap();
    assert_denied(world.verify(&old.cookie_in(cbc, false, &text), NAME).await, "BAD_SIGNATURE", "NONE");
    world.verify(&App::v5().cookie_in(ContentEncryption::A256Gcm, true, &text), NAME).await.unwrap();
}

#[tokio::test]
async fn a_withdrawn_secret_takes_its_cookies_with_it() {
    let world = World::start().await;
    let old = App::new(CookieVersion::AuthJs5, NAME, "the secret before that one").cookie(&claims());
    world.verify(&old, NAME).await.unwrap();
    std::fs::write(world.home.path("old.secret"), "another").unwrap();
    let ended = async {
        while world.verify(&old, NAME).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    assert_denied(world.verify(&old, NAME).await, "UNKNOWN_KEY", "NONE");
    world.verify(&App::v5().cookie(&claims()), NAME).await.unwrap();
}

#[tokio::test]
async fn a_cookie_of_next_auth_4_opens_under_any_name_with_one_key() {
    let home = Home::new();
    std::fs::write(home.path("auth.secret"), SECRET).unwrap();
    let issuers = format!(
        "issuers:\n  - issuer: shop-web\n    audiences: [orders]\n    authjs: \
         {{version: 4, secret_files: {}, cookies: [next-auth.session-token, __Secure-next-auth.session-token]}}\n",
        home.path("auth.secret").display()
    );
    let (sidecar, hands) = home.start_at(&issuers).await;
    let world = World { sidecar, hands, home };
    let cookie = App::new(CookieVersion::NextAuth4, "next-auth.session-token", SECRET).cookie(&claims());
    for name in ["", "next-auth.session-token", "__Secure-next-auth.session-token"] {
        assert_eq!(world.verify(&cookie, name).await.unwrap().subject, "alice");
    }
    assert_denied(world.verify(&App::v5().cookie(&claims()), NAME).await, "UNKNOWN_KEY", "NONE");
    // One key for every name doesn't make it good under every name: others' cookies, and lines of a header, are none.
    for name in ["admin-session", "next-auth.session-token.0", "x; Domain=evil.example\r\nSet-Cookie: y"] {
        assert_denied(world.verify(&cookie, name).await, "UNKNOWN_KEY", "NONE");
        assert_denied(world.renew(&cookie, name).await, "UNKNOWN_KEY", "NONE");
    }
    let renewed = world.renew(&cookie, "next-auth.session-token").await.unwrap();
    let value = renewed.tokens.unwrap().access_token;
    assert_eq!(world.verify(&value, "").await.unwrap().subject, "alice");
}

#[tokio::test]
async fn every_bit_of_a_cookie_counts() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&claims());
    let parts: Vec<&str> = cookie.split('.').collect();
    for at in [2, 3, 4] {
        let mut bytes = URL_SAFE_NO_PAD.decode(parts[at]).unwrap();
        for bit in [0, bytes.len() * 8 - 1] {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut forged = parts.clone();
            let text = encode(&bytes);
            forged[at] = &text;
            assert_denied(world.verify(&forged.join("."), NAME).await, "BAD_SIGNATURE", "NONE");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for (header, reason) in [
        (json!({"alg": "dir", "enc": "A256CBC-HS512", "zip": "DEF"}), "UNSUPPORTED_TYPE"),
        (json!({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 1_000_000}), "UNSUPPORTED_ALGORITHM"),
        (json!({"alg": "RSA-OAEP-256", "enc": "A256GCM"}), "UNSUPPORTED_ALGORITHM"),
        (json!({"alg": "ECDH-ES", "enc": "A256GCM"}), "UNSUPPORTED_ALGORITHM"),
        (json!({"alg": "dir", "enc": "A128GCM"}), "UNSUPPORTED_ALGORITHM"),
    ] {
        let forged = format!("{}..{}.{}.{}", encode(header.to_string()), parts[2], parts[3], parts[4]);
        assert_denied(world.verify(&forged, NAME).await, reason, "NONE");
    }
    let wrapped = format!("{}.AAAA.{}.{}.{}", parts[0], parts[2], parts[3], parts[4]);
    assert_denied(world.verify(&wrapped, NAME).await, "MALFORMED", "NONE");
}

#[tokio::test]
async fn claims_are_held_to_types_times_and_lifetime() {
    let world = World::start().await;
    let app = App::v5();
    let now = START.as_secs();
    for (claims, reason) in [
        (with("sub", Value::Null), "INVALID_CLAIM"),
        (with("exp", "soon"), "INVALID_CLAIM"),
        (with("exp", now + 90 * 86_400), "INVALID_CLAIM"),
        (with("iat", now + 16), "NOT_YET_VALID"),
    ] {
        assert_denied(world.verify(&app.cookie(&claims), NAME).await, reason, "NONE");
    }
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    assert_denied(world.verify(&app.cookie(&endless), NAME).await, "MISSING_CLAIM", "NONE");
    let cbc = ContentEncryption::A256CbcHs512;
    for text in [r#"{"sub":"alice","sub":"bob"}"#, "[]", "", "{", "null"] {
        assert_denied(world.verify(&app.cookie_in(cbc, true, text), NAME).await, "MALFORMED", "NONE");
    }
    world.verify(&app.cookie(&with("iat", now + 15)), NAME).await.unwrap();
    // Expired by less than the fifteen seconds that Auth.js bears, then by those.
    let short = with("exp", now + 60);
    let short = app.cookie(&short);
    world.sidecar.pass(&world.hands, Duration::from_secs(74)).await;
    world.verify(&short, NAME).await.unwrap();
    world.sidecar.pass(&world.hands, Duration::from_secs(1)).await;
    assert_denied(world.verify(&short, NAME).await, "EXPIRED", "REAUTHENTICATE");
    assert_denied(world.renew(&short, NAME).await, "EXPIRED", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_renewed_cookie_says_the_same_under_new_dates() {
    let world = World::start().await;
    let text = format!(
        r#"{{"big":18446744073709551617,"sub":"alice","iat":{0},"exp":{1},"jti":"c1","é\n":[1.50,{{"iat":1}}]}}"#,
        START.as_secs(),
        START.as_secs() + 2_592_000
    );
    let cookie = App::v5().cookie_in(ContentEncryption::A256CbcHs512, true, &text);
    world.sidecar.pass(&world.hands, 2 * DAY).await;
    let renewed = world.renew(&cookie, NAME).await.unwrap();
    let tokens = renewed.tokens.unwrap();
    assert_eq!(
        (renewed.cookies[0].name.as_str(), renewed.cookies[0].value == tokens.access_token),
        (NAME, true)
    );
    assert_eq!(tokens.refresh_token, "");
    let answer = world.verify(&tokens.access_token, NAME).await.unwrap();
    assert_eq!(answer.expires_at, tokens.access_token_expires_at);
    assert_eq!(answer.expires_at.unwrap().seconds, START.after(32 * DAY).as_secs() as i64);
    assert_eq!(answer.token_id, "c1", "so that what takes back one takes back both");
    let claims = String::from_utf8(answer.claims_json).unwrap();
    let same = r#"{"big":18446744073709551617,"sub":"alice","jti":"c1","é\n":[1.50,{"iat":1}],"iat":"#;
    assert!(claims.starts_with(same), "{claims}");
    // The older one stays good until its end, as in Auth.js.
    world.verify(&cookie, NAME).await.unwrap();
    assert_eq!(world.renew(&cookie, "").await.unwrap_err().code(), Code::InvalidArgument);
    assert_denied(world.renew(&cookie, SECURE).await, "UNKNOWN_KEY", "NONE");
}

#[tokio::test]
async fn a_cookie_of_an_older_secret_is_renewed_under_the_first() {
    let world = World::start().await;
    let old = App::new(CookieVersion::AuthJs5, NAME, "the secret before that one").cookie(&claims());
    let renewed = world.renew(&old, NAME).await.unwrap().tokens.unwrap().access_token;
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(renewed.split('.').next().unwrap()).unwrap()).unwrap();
    let keys = App::v5().keys.loaded();
    let first = keys.candidates(NAME, None, ContentEncryption::A256CbcHs512).next().unwrap();
    assert_eq!(header["kid"], first.content_key().thumbprint());
}

#[tokio::test]
async fn a_revoked_cookie_is_refused_and_not_renewed() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&claims());
    world.verify(&cookie, NAME).await.unwrap();
    world.revoke(&cookie).await;
    for name in [NAME, ""] {
        assert_denied(world.verify(&cookie, name).await, "REVOKED", "REAUTHENTICATE");
    }
    assert_denied(world.renew(&cookie, NAME).await, "REVOKED", "REAUTHENTICATE");
    // Somebody else's holds nothing of it.
    let strange = App::new(CookieVersion::AuthJs5, NAME, "guessed").cookie(&with("jti", "c2"));
    world.revoke(&strange).await;
    world.verify(&App::v5().cookie(&with("jti", "c2")), NAME).await.unwrap();
}

#[tokio::test]
async fn a_cookie_that_names_its_session_takes_back_its_renewals_too() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&with("sid", "s1"));
    let renewed = world.renew(&cookie, NAME).await.unwrap();
    assert_eq!(renewed.session_id, "s1");
    let renewed = renewed.tokens.unwrap().access_token;
    world.verify(&renewed, NAME).await.unwrap();
    world.revoke(&cookie).await;
    assert_denied(world.verify(&renewed, NAME).await, "REVOKED", "REAUTHENTICATE");
    assert_denied(world.renew(&renewed, NAME).await, "REVOKED", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_cut_off_hits_renewals_by_the_login_and_lets_them_go_without_it() {
    let world = World::start_with("    claims: {login: login_at}\n").await;
    let (app, now) = (App::v5(), START.as_secs());
    let told = app.cookie(&with("login_at", now));
    let untold = app.cookie(&claims());
    world.sidecar.pass(&world.hands, DAY).await;
    let target = SubjectRevocation {
        subject: "alice".into(),
        issuer: Some("shop-web".into()),
        ..SubjectRevocation::default()
    };
    let renewed = [
        world.renew(&told, NAME).await.unwrap().tokens.unwrap().access_token,
        world.renew(&untold, NAME).await.unwrap().tokens.unwrap().access_token,
    ];
    world.sidecar.pass(&world.hands, Duration::from_secs(10)).await;
    let request = RevokeRequest { target: Some(Target::Subject(target)), reason: String::new() };
    world.sidecar.tokens().revoke(as_caller(request)).await.unwrap();
    for cookie in [&told, &untold, &renewed[0], &renewed[1]] {
        assert_denied(world.verify(cookie, NAME).await, "REVOKED", "REAUTHENTICATE");
        assert_denied(world.renew(cookie, NAME).await, "REVOKED", "REAUTHENTICATE");
    }
    // The application itself renews on: with the login in it a cookie stays cut off, without it nobody can tell.
    let later = now + 86_400 + 60;
    let mut again = with("login_at", now);
    again["iat"] = json!(later);
    world.sidecar.pass(&world.hands, Duration::from_secs(60)).await;
    assert_denied(world.verify(&app.cookie(&again), NAME).await, "REVOKED", "REAUTHENTICATE");
    world.verify(&app.cookie(&with("iat", later)), NAME).await.unwrap();
}

#[tokio::test]
async fn a_cookie_header_is_read_with_and_without_chunks() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&claims());
    for header in [
        format!("theme=dark; {NAME}={cookie}; lang=en"),
        format!("{NAME}.1={}; {NAME}.0={}", &cookie[200..], &cookie[..200]),
    ] {
        assert_eq!(world.header(&header).await.unwrap().subject, "alice", "{header}");
    }
    // A cookie under another name has another key.
    assert_denied(world.header(&format!("{SECURE}={cookie}")).await, "UNKNOWN_KEY", "NONE");
    assert_denied(world.header("theme=dark").await, "MALFORMED", "NONE");
    assert_denied(world.header(&format!("{NAME}.1={cookie}")).await, "MALFORMED", "NONE");
    // Any other credential in a cookie that is named.
    let own = world.sidecar.login("bob", "medium").await.tokens.unwrap().access_token;
    let request = VerifyRequest {
        cookie_header: Some(format!("__session={own}")),
        credential_name: "__session".into(),
        ..VerifyRequest::default()
    };
    assert_eq!(world.sidecar.verify_demanding(request).await.unwrap().subject, "bob");
    let both = VerifyRequest { cookie_header: Some(String::new()), ..verify_request(&own) };
    assert_eq!(world.sidecar.verify_demanding(both).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_long_cookie_is_renewed_in_chunks_that_browsers_keep() {
    let world = World::start().await;
    let cookie = App::v5().cookie(&with("picture", "x".repeat(6000)));
    let renewed = world.renew(&cookie, NAME).await.unwrap();
    let names: Vec<_> = renewed.cookies.iter().map(|cookie| cookie.name.as_str()).collect();
    assert_eq!(names, [format!("{NAME}.0"), format!("{NAME}.1"), format!("{NAME}.2")]);
    assert!(renewed.cookies.iter().all(|cookie| cookie.value.len() <= 3936));
    let header: Vec<_> =
        renewed.cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
    assert_eq!(world.header(&header.join("; ")).await.unwrap().subject, "alice");
}

#[tokio::test]
async fn a_jwt_in_the_application_s_name_is_refused() {
    let world = World::start().await;
    let key = crate::mint::Key::rsa("k");
    let header = r#"{"alg":"RS256","typ":"JWT","kid":"k"}"#;
    let claims = crate::mint::Claims::good().with("iss", "\"shop-web\"").with("aud", "\"orders\"");
    assert_denied(world.verify(&key.token_of(header, claims.text()), NAME).await, "UNKNOWN_KEY", "NONE");
}

#[tokio::test]
async fn an_encrypted_token_is_refused_where_no_issuer_has_cookies() {
    let home = Home::new();
    let sidecar = home.start("").await;
    assert_denied(sidecar.verify(&App::v5().cookie(&claims())).await, "UNSUPPORTED_TYPE", "NONE");
}

#[tokio::test]
async fn a_short_session_is_renewed_for_as_short() {
    let world = World::start().await;
    let eight_hours = 8 * 3600;
    let cookie = App::v5().cookie(&with("exp", START.as_secs() + eight_hours));
    let answer = world.verify(&cookie, NAME).await.unwrap();
    assert_eq!(answer.refresh_after.unwrap().seconds as u64, START.as_secs() + eight_hours / 2);
    world.sidecar.pass(&world.hands, Duration::from_secs(3600)).await;
    let mut value = cookie;
    for hour in 1..4_u64 {
        let tokens = world.renew(&value, NAME).await.unwrap().tokens.unwrap();
        let ends = START.as_secs() + hour * 3600 + eight_hours;
        assert_eq!(tokens.access_token_expires_at.unwrap().seconds as u64, ends);
        assert_eq!(tokens.refresh_after.unwrap().seconds as u64, ends - eight_hours / 2);
        value = tokens.access_token;
        world.sidecar.pass(&world.hands, Duration::from_secs(3600)).await;
    }
}

#[tokio::test]
async fn taking_back_one_cookie_takes_back_what_was_renewed_from_it_and_to_it() {
    let world = World::start().await;
    let first = App::v5().cookie(&claims());
    let second = world.renew(&first, NAME).await.unwrap().tokens.unwrap().access_token;
    let third = world.renew(&second, NAME).await.unwrap().tokens.unwrap().access_token;
    world.revoke(&second).await;
    for cookie in [&first, &second, &third] {
        assert_denied(world.verify(cookie, NAME).await, "REVOKED", "REAUTHENTICATE");
        assert_denied(world.renew(cookie, NAME).await, "REVOKED", "REAUTHENTICATE");
    }
}

#[tokio::test]
async fn providers_tokens_in_a_cookie_are_renewed_and_never_shown() {
    let world = World::start().await;
    let mut claims = with("access_token", "provider-secret");
    claims["refresh_token"] = json!("provider-refresh");
    let cookie = App::v5().cookie(&claims);
    let answer = world.verify(&cookie, NAME).await.unwrap();
    let shown = String::from_utf8(answer.claims_json).unwrap();
    assert!(!shown.contains("provider-") && shown.contains("Alice"), "{shown}");
    let renewed = world.renew(&cookie, NAME).await.unwrap().tokens.unwrap().access_token;
    let parts: Vec<Vec<u8>> =
        renewed.split('.').skip(2).map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    let [iv, ciphertext, tag] = parts.try_into().unwrap();
    let keys = App::v5().keys.loaded();
    let key = keys.candidates(NAME, None, ContentEncryption::A256CbcHs512).next().unwrap();
    let header = renewed.split('.').next().unwrap();
    let sealed = countersign::keys::Sealed { iv, ciphertext, tag };
    let content = String::from_utf8(key.content_key().open(header.as_bytes(), &sealed).unwrap()).unwrap();
    assert!(
        content.contains("provider-secret") && content.contains("provider-refresh"),
        "the application keeps them"
    );
}

#[tokio::test]
async fn columns_without_a_value_are_no_claims() {
    let world = World::start_with("    claims: {roles: /user/roles, login: login_at}\n").await;
    let mut claims = with("user", json!({"roles": null}));
    for name in ["sid", "azp", "client_id", "scope", "login_at", "email"] {
        claims[name] = Value::Null;
    }
    let answer = world.verify(&App::v5().cookie(&claims), NAME).await.unwrap();
    assert_eq!((answer.roles.len(), answer.session_id.as_str(), answer.client_id.as_str()), (0, "", ""));
}

#[tokio::test]
async fn a_cookie_that_two_issuers_keys_open_is_neither_s() {
    let home = Home::new();
    for (file, secret) in [("one.secret", SECRET), ("two.secret", "another secret altogether")] {
        std::fs::write(home.path(file), secret).unwrap();
    }
    let entry = |issuer: &str, file: &str| {
        let file = home.path(file);
        format!(
            "  - {{issuer: {issuer}, audiences: [{issuer}], authjs: {{cookies: {NAME}, secret_files: {}}}}}\n",
            file.display()
        )
    };
    let issuers = format!("issuers:\n{}{}", entry("one", "one.secret"), entry("two", "two.secret"));
    let (sidecar, hands) = home.start_at(&issuers).await;
    let world = World { sidecar, hands, home };
    let cookie = App::v5().cookie(&claims());
    assert_eq!(world.verify(&cookie, NAME).await.unwrap().issuer, "one");
    std::fs::write(world.home.path("two.secret"), SECRET).unwrap();
    let other = App::v5().cookie(&with("jti", "c2"));
    crate::support::eventually("the files are read again", || async {
        let fresh = App::v5().cookie(&with("jti", "c3"));
        world.verify(&fresh, NAME).await.is_err()
    })
    .await;
    assert_denied(world.verify(&other, NAME).await, "UNKNOWN_KEY", "NONE");
}
