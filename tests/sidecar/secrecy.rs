//! A canary: at the finest log level, over a whole life of good and bad calls, no token, secret or claim comes out.

use crate::durability::{Process, as_caller, login};
use crate::support::{Home, SECRET, verify_request};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{
    Attributes, CreateSessionRequest, RefreshRequest, RevokeRequest, UpdateSessionRequest, VerifyRequest,
};

#[tokio::test]
async fn no_token_secret_or_claim_is_in_any_output() {
    let home = Home::new();
    let process = Process::start(&home, "").await;
    let channel = process.channel().await;
    let mut tokens = TokenServiceClient::new(channel.clone());
    let mut sessions = SessionServiceClient::new(channel.clone());
    let attributes = Attributes {
        roles: vec!["canary-role".into()],
        scopes: vec!["canary:scope".into()],
        claims_json: r#"{"canary":"canary-claim"}"#.into(),
    };
    let request = CreateSessionRequest {
        subject: "canary-subject".into(),
        attributes: Some(attributes.clone()),
        ..Default::default()
    };
    let opened = sessions.create_session(as_caller(request)).await.unwrap().into_inner();
    let (session, first) = (opened.session.unwrap().session_id, opened.tokens.unwrap());
    let mut messages = Vec::new();
    let mut keep = |status: tonic::Status| messages.push(format!("{status:?} {status}"));

    tokens.verify(verify_request(&first.access_token)).await.unwrap();
    for cut in [1, 10, 50] {
        keep(
            tokens
                .verify(verify_request(&first.access_token[..first.access_token.len() - cut]))
                .await
                .unwrap_err(),
        );
        keep(tokens.verify(verify_request(&first.access_token[cut..])).await.unwrap_err());
        let refresh = first.refresh_token[..first.refresh_token.len() - cut].to_owned();
        keep(
            tokens
                .refresh(RefreshRequest { refresh_token: Some(refresh), ..RefreshRequest::default() })
                .await
                .unwrap_err(),
        );
    }
    let second = tokens
        .refresh(RefreshRequest {
            refresh_token: Some(first.refresh_token.clone()),
            ..RefreshRequest::default()
        })
        .await
        .unwrap();
    let second = second.into_inner().tokens.unwrap();
    let update = UpdateSessionRequest { session_id: session, attributes: Some(attributes) };
    sessions.update_session(as_caller(update)).await.unwrap();
    keep(tokens.verify(verify_request(&second.access_token)).await.unwrap_err());
    let revoke =
        RevokeRequest { target: Some(Target::Token(second.refresh_token.clone())), reason: String::new() };
    tokens.revoke(revoke).await.unwrap();
    keep(
        tokens
            .refresh(RefreshRequest {
                refresh_token: Some(second.refresh_token.clone()),
                ..RefreshRequest::default()
            })
            .await
            .unwrap_err(),
    );
    let (_, other) = login(&channel).await;
    let (_, metrics) = crate::lifecycle::get(&process.ops, "/metrics").await;

    let (_, log) = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    assert!(log.contains("revoked"), "the log was written: {log}");
    let output = format!("{log}\n{metrics}\n{}", messages.join("\n"));
    let signing = std::fs::read_to_string(home.path("signing.json")).unwrap();
    let handles = std::fs::read_to_string(home.path("handles.json")).unwrap();
    for token in
        [&first, &second, &other].into_iter().flat_map(|tokens| [&tokens.access_token, &tokens.refresh_token])
    {
        let parts = token.split(['.', '_']).filter(|part| part.len() > 16);
        for part in parts {
            assert!(!output.contains(&part[..16.max(part.len() / 2)]), "part of a token is in the output");
        }
    }
    for secret in [SECRET, "canary-role", "canary:scope", "canary-claim", "canary-subject"] {
        assert!(!output.contains(secret), "{secret} is in the output");
    }
    for file in [signing, handles] {
        let long = file.split('"').filter(|text| text.len() > 40);
        for secret in long {
            assert!(!output.contains(secret), "key material is in the output");
        }
    }
}

#[tokio::test]
async fn no_cookie_opaque_token_or_secret_of_theirs_is_in_any_output() {
    use crate::foreign::cookies::{App, NAME, SECRET as APP_SECRET};
    let home = Home::new();
    std::fs::write(home.path("auth.secret"), APP_SECRET).unwrap();
    std::fs::write(home.path("client.secret"), "canary-client-secret").unwrap();
    // Nobody listens where the opaque tokens would be shown.
    let process = Process::start(
        &home,
        &format!(
            "issuers:\n  - {{issuer: web, audiences: [shop], authjs: {{cookies: {NAME}, secret_files: {}}}}}\n  \
             - {{issuer: \"https://id.example\", audiences: [shop], client: {{id: shop, secret_file: {}}}, \
             introspection: {{url: \"http://127.0.0.1:1/canary\"}}}}\n",
            home.path("auth.secret").display(),
            home.path("client.secret").display()
        ),
    )
    .await;
    let mut tokens = TokenServiceClient::new(process.channel().await);
    let now = countersign::clock::Clock::system().now().judged.as_secs();
    let claims = serde_json::json!({
        "sub": "canary-subject", "access_token": "canary-provider", "iat": now, "exp": now + 600, "jti": "canary-id",
    });
    let cookie = App::v5().cookie(&claims);
    let header =
        VerifyRequest { cookie_header: Some(format!("{NAME}={cookie}")), ..VerifyRequest::default() };
    let mut messages = vec![format!("{header:?}")];
    messages.push(format!("{:?}", tokens.verify(header).await.unwrap()));
    let refresh =
        RefreshRequest { refresh_token: Some(cookie.clone()), credential_name: NAME.into(), issuer: None };
    let renewed = tokens.refresh(refresh).await.unwrap();
    messages.push(format!("{renewed:?} {:?}", renewed.get_ref().cookies));
    let renewed = renewed.into_inner().tokens.unwrap().access_token;
    for bad in [&cookie[..cookie.len() - 3], &cookie[3..], "canary-opaque-token"] {
        messages.push(format!("{:?}", tokens.verify(verify_request(bad)).await.unwrap_err()));
    }
    let revoke = RevokeRequest { target: Some(Target::Token(cookie.clone())), reason: String::new() };
    messages.push(format!("{revoke:?}"));
    tokens.revoke(revoke).await.unwrap();
    messages.push(format!("{:?}", tokens.verify(verify_request(&renewed)).await.unwrap_err()));
    let (_, metrics) = crate::lifecycle::get(&process.ops, "/metrics").await;
    let (_, log) = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    assert!(log.contains("introspection failed"), "the log was written: {log}");
    let output = format!("{log}\n{metrics}\n{}", messages.join("\n"));
    for secret in [
        APP_SECRET,
        "canary-client-secret",
        "canary-subject",
        "canary-provider",
        "canary-id",
        "canary-opaque",
    ] {
        assert!(!output.contains(secret), "{secret} is in the output");
    }
    for value in [&cookie, &renewed] {
        for part in value.split('.').skip(2) {
            assert!(!output.contains(&part[..16]), "part of a cookie is in the output");
        }
    }
}
