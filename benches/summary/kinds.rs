//! Other kinds of credential than JWTs, warm: each in turn with JWTs on one sidecar, on one core.

use crate::load::{self, Plan};
use crate::report::Report;
use crate::servers::{Server, pin_to_core};
use crate::{CALLS, FULL, TURNS, VERIFY, median};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::Clock;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::{CreateSessionRequest, VerifyRequest};
use countersign::keys::{
    ContentEncryption, CookieKeys, CookieSettings, CookieVersion, KeyFile, NewKey, SigningAlgorithm,
    SigningKeys,
};
use prost::Message;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tonic::Request;

/// Credentials of each kind.
const COUNT: usize = 20_000;
const COOKIE: &str = "authjs.session-token";
const SECRET: &str = "a secret of the bench, of a usual length";

pub fn measure(report: &mut Report) {
    pin_to_core(1);
    let home = tempfile::tempdir().unwrap();
    let server = serve(&home);
    let jwts = jwts(home.path());
    let cookies = cookies(home.path());
    let sessions = sessions(&server);
    for bodies in [&jwts, &cookies, &sessions] {
        server.check(&bodies[0]);
        load::run(&server.tcp, VERIFY, bodies, Plan { calls: bodies.len(), ..FULL });
    }
    let run = |bodies: &[Vec<u8>]| load::run(&server.tcp, VERIFY, bodies, FULL).per_second;
    let turns: Vec<[f64; 3]> = (0..TURNS).map(|_| [run(&jwts), run(&cookies), run(&sessions)]).collect();
    let ratio = |kind: usize| median(turns.iter().map(|turn| turn[kind] / turn[0]).collect());
    let jwt = median(turns.iter().map(|turn| turn[0]).collect());
    let about = format!("goal 0.95; JWTs {jwt:.0} calls/s");
    report.value("verify_warm_authjs_cookie_vs_jwt", ratio(1), "ratio", CALLS * TURNS, &about);
    report.value("verify_warm_session_token_vs_jwt", ratio(2), "ratio", CALLS * TURNS, &about);
}

fn serve(home: &TempDir) -> Server {
    let path = |name: &str| home.path().join(name);
    let now = Clock::system().now().judged;
    let signing = KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), now).unwrap();
    signing.create(&path("signing.json")).unwrap();
    KeyFile::generate(NewKey::Handles, now).unwrap().create(&path("handles.json")).unwrap();
    std::fs::write(path("secret"), SECRET).unwrap();
    // JWTs of an issuer whose keys are the ones in our own file.
    let keys = SigningKeys::load(path("signing.json")).unwrap().public_jwks();
    std::fs::write(path("jwks.json"), keys.as_ref()).unwrap();
    let config = "api: {tcp: \"127.0.0.1:0\", workers: 1, serve: [verify, sessions]}\n\
         ops: {address: \"127.0.0.1:0\"}\nstore: sqlite:store.db\n\
         own: {issuer: https://auth.example.com, signing_keys: signing.json, handle_keys: handles.json, policies: {web: \
         {preset: high, floor: minimize_latency, staleness_bound: 1h, idle: 12h, absolute: 24h, update_age: 2h}}}\n\
         issuers:\n  - {issuer: https://issuer.example.com, audiences: [orders], keys: {jwks_file: jwks.json}}\n  \
         - {issuer: web, audiences: [orders], authjs: {secret_files: secret, cookies: authjs.session-token}}\n\
         callers: [{name: bench, secret_file: secret, may: [sessions]}]\nlog: {format: json, level: info}\n";
    std::fs::write(path("countersign.yaml"), config).unwrap();
    Server::serving(&path("countersign.yaml"), path("run/api.sock"), "0")
}

fn claims(number: usize) -> String {
    let now = Clock::system().now().judged.as_secs();
    format!(
        r#"{{"iss":"https://issuer.example.com","sub":"user-{number:08}","aud":"orders","iat":{now},"exp":{},"jti":"{:032x}","sid":"{:032x}","scope":"orders:read orders:write","roles":["customer"],"email":"user{number:08}@example.com","tenant":"example-01"}}"#,
        now + 3600,
        number as u128 * 7919,
        number as u128 * 104_729,
    )
}

fn body(credential: String, name: &str) -> Vec<u8> {
    VerifyRequest { token: Some(credential), credential_name: name.to_owned(), ..VerifyRequest::default() }
        .encode_to_vec()
}

fn jwts(home: &Path) -> Vec<Vec<u8>> {
    let keys = SigningKeys::load(home.join("signing.json")).unwrap();
    let now = Clock::system().now().judged;
    let token = |number| keys.sign(now, claims(number).as_bytes()).unwrap();
    (0..COUNT).map(|number| body(token(number), "")).collect()
}

fn cookies(home: &Path) -> Vec<Vec<u8>> {
    let settings = CookieSettings {
        version: CookieVersion::AuthJs5,
        names: vec![COOKIE.to_owned()],
        secret_files: vec![home.join("secret")],
        max_age: Duration::from_secs(30 * 86_400),
        withhold: Vec::new(),
    };
    let loaded = CookieKeys::load(settings).unwrap().loaded();
    let key = loaded.candidates(COOKIE, None, ContentEncryption::A256CbcHs512).next().unwrap().content_key();
    let header = format!(r#"{{"alg":"dir","enc":"A256CBC-HS512","kid":"{}"}}"#, key.thumbprint());
    let header = URL_SAFE_NO_PAD.encode(header);
    let cookie = |number| {
        let sealed = key.seal(header.as_bytes(), claims(number).as_bytes()).unwrap();
        let [iv, content, tag] =
            [sealed.iv, sealed.ciphertext, sealed.tag].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}..{iv}.{content}.{tag}")
    };
    (0..COUNT).map(|number| body(cookie(number), COOKIE)).collect()
}

fn sessions(server: &Server) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let load::Address::Tcp(address) = &server.tcp else { panic!("it listens on TCP") };
        let sessions = SessionServiceClient::connect(format!("http://{address}")).await.unwrap();
        let login = |number: usize| {
            let mut sessions = sessions.clone();
            async move {
                let subject = format!("user-{number:08}");
                let mut request =
                    Request::new(CreateSessionRequest { subject, ..CreateSessionRequest::default() });
                request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
                let created = sessions.create_session(request).await.unwrap().into_inner();
                body(created.tokens.unwrap().access_token, "")
            }
        };
        let mut bodies = Vec::new();
        for from in (0..COUNT).step_by(500) {
            bodies.extend(futures_util::future::join_all((from..from + 500).map(login)).await);
        }
        bodies
    })
}
