//! Mutual TLS: a caller is known by the URI in a certificate of the configured authority, and nobody else gets in.

use crate::support::{Home, assert_refused};
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::{CreateSessionRequest, ListSessionsRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::time::Duration;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

const CALLER: &str = "spiffe://example.com/user";

pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn issued(authority: &CertifiedIssuer<'static, KeyPair>, name: SanType) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![name];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

async fn connect(api: &str, authority: &str, identity: Option<(String, String)>) -> Result<Channel, Error> {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{api}")).unwrap().timeout(Duration::from_secs(5));
    endpoint.tls_config(tls).unwrap().connect().await
}

#[tokio::test]
async fn a_caller_is_known_by_its_client_certificate_and_nobody_else_gets_in() {
    let home = Home::new();
    let ours = authority();
    let (certificate, key) = issued(&ours, SanType::DnsName("localhost".try_into().unwrap()));
    for (name, content) in [("server.pem", &certificate), ("server.key", &key), ("ca.pem", &ours.pem())] {
        std::fs::write(home.path(name), content).unwrap();
    }
    let folder = home.path("").display().to_string();
    let sections = format!(
        "api:\n  tcp: 127.0.0.1:0\n  unix: {folder}run/api.sock\n  workers: 1\n  serve: [verify, refresh, revoke, sessions]\n  \
         tls: {{certificate: {folder}server.pem, key: {folder}server.key, client_ca: {folder}ca.pem}}\n\
         callers:\n  - {{name: user, certificate: \"{CALLER}\", may: [sessions.create]}}\n"
    );
    let sidecar = home.start(&sections).await;
    let login = || CreateSessionRequest { subject: "alice".into(), ..Default::default() };

    let channel = connect(&sidecar.api, &ours.pem(), Some(issued(&ours, uri(CALLER)))).await.unwrap();
    let opened =
        SessionServiceClient::new(channel.clone()).create_session(login()).await.unwrap().into_inner();
    assert_eq!(opened.session.unwrap().client_id, "user");
    let list = ListSessionsRequest { subject: "alice".into(), ..Default::default() };
    let beyond = SessionServiceClient::new(channel).list_sessions(list).await;
    assert_refused(beyond, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE");

    let other = issued(&ours, uri("spiffe://example.com/other"));
    let channel = connect(&sidecar.api, &ours.pem(), Some(other)).await.unwrap();
    let unnamed = SessionServiceClient::new(channel).create_session(login()).await;
    assert_refused(unnamed, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE");

    let stranger = authority();
    for identity in [None, Some(issued(&stranger, uri(CALLER)))] {
        // The server's refusal may reach the client at the handshake or at its first call.
        if let Ok(channel) = connect(&sidecar.api, &ours.pem(), identity).await {
            let refused = SessionServiceClient::new(channel).create_session(login()).await.unwrap_err();
            assert_ne!(
                refused.code(),
                Code::PermissionDenied,
                "it does not get as far as a call: {refused:?}"
            );
        }
    }
}
