//! Who may call what, which calls are served, and what a call that is none gets.

use crate::support::{Home, SECRET, assert_refused, connect, told, verify_request};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::{
    CreateSessionRequest, GetJwksRequest, GetSessionRequest, ListSessionsRequest, RefreshRequest,
    RevokeRequest, SessionRevocation, SubjectRevocation, UpdateSessionRequest, VerifyRequest,
    VerifyStreamRequest,
};
use tonic::{Code, Request, Status};

fn with_authorization<T>(message: T, value: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value.parse().unwrap());
    request
}

fn login() -> CreateSessionRequest {
    CreateSessionRequest { subject: "alice".into(), ..Default::default() }
}

#[tokio::test]
async fn another_container_in_the_pod_may_only_make_the_free_calls() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let opened = sidecar.login("alice", "medium").await;
    let (id, tokens) = (opened.session.unwrap().session_id, opened.tokens.unwrap());
    let mut sessions = sidecar.sessions();
    let refused = |result: Result<(), Status>| {
        assert_refused(result, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE")
    };
    let nothing = |_| ();
    refused(sessions.create_session(login()).await.map(nothing));
    refused(sessions.get_session(GetSessionRequest { session_id: id.clone() }).await.map(|_| ()));
    refused(sessions.list_sessions(ListSessionsRequest::default()).await.map(|_| ()));
    refused(sessions.update_session(UpdateSessionRequest::default()).await.map(|_| ()));
    for target in [
        Target::Session(SessionRevocation { session_id: id, issuer: None }),
        Target::Subject(SubjectRevocation { subject: "alice".into(), ..Default::default() }),
        Target::Issuer(Default::default()),
    ] {
        let request = RevokeRequest { target: Some(target), reason: String::new() };
        refused(sidecar.tokens().revoke(request).await.map(|_| ()));
    }
    assert!(sidecar.verify(&tokens.access_token).await.is_ok(), "nothing was revoked");
    assert!(sidecar.refresh(&tokens.refresh_token).await.is_ok());
    assert!(sidecar.keys().get_jwks(GetJwksRequest {}).await.is_ok());
}

#[tokio::test]
async fn a_wrong_caller_secret_is_permission_denied() {
    let home = Home::new();
    let sidecar = home.start("").await;
    for value in ["Bearer wrong", "Bearer ", "Basic YTpi", SECRET] {
        let result = sidecar.sessions().create_session(with_authorization(login(), value)).await;
        assert_refused(result, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE");
    }
}

#[tokio::test]
async fn a_caller_s_rights_end_where_the_configuration_ends_them() {
    let home = Home::new();
    std::fs::write(home.path("support.secret"), "support\n").unwrap();
    let callers = format!(
        "callers:\n  - name: support\n    secret_file: {}\n    may: [sessions.read]\n",
        home.path("support.secret").display()
    );
    let sidecar = home.start(&callers).await;
    let list = ListSessionsRequest { subject: "alice".into(), ..Default::default() };
    assert!(sidecar.sessions().list_sessions(with_authorization(list, "Bearer support")).await.is_ok());
    let result = sidecar.sessions().create_session(with_authorization(login(), "Bearer support")).await;
    assert_refused(result, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE");
}

#[tokio::test]
async fn a_peer_on_the_unix_socket_is_known_by_its_uid() {
    let home = Home::new();
    let uid = rustix_uid();
    let known =
        home.start(&format!("callers:\n  - {{name: me, uid: {uid}, may: [sessions.create]}}\n")).await;
    let channel = connect(known.unix.as_deref().unwrap()).await;
    let opened = SessionServiceClient::new(channel).create_session(login()).await.unwrap().into_inner();
    assert_eq!(opened.session.unwrap().client_id, "me");
    // The same process over TCP is nobody.
    let result = known.sessions().create_session(login()).await;
    assert_refused(result, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE");

    let other_home = Home::new();
    let callers = format!("callers:\n  - {{name: other, uid: {}, may: [sessions.create]}}\n", uid + 1);
    let other = other_home.start(&callers).await;
    let channel = connect(other.unix.as_deref().unwrap()).await;
    let result = SessionServiceClient::new(channel).create_session(login()).await;
    assert_refused(result, Code::PermissionDenied, "CALLER_NOT_ALLOWED", "NONE");
}

fn rustix_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

#[tokio::test]
async fn a_rpc_that_is_not_served_is_unimplemented() {
    let home = Home::new();
    let api = "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify]\n";
    let sidecar = home.start(api).await;
    let code = |result: Result<(), Status>| result.unwrap_err().code();
    let refresh = sidecar.tokens().refresh(RefreshRequest::default()).await;
    assert_eq!(code(refresh.map(|_| ())), Code::Unimplemented);
    assert_eq!(
        code(sidecar.tokens().revoke(RevokeRequest::default()).await.map(|_| ())),
        Code::Unimplemented
    );
    assert_eq!(code(sidecar.sessions().create_session(login()).await.map(|_| ())), Code::Unimplemented);
    assert_eq!(code(sidecar.keys().get_jwks(GetJwksRequest {}).await.map(|_| ())), Code::Unimplemented);
}

#[tokio::test]
async fn a_call_without_a_token_is_malformed_and_an_empty_token_is_denied() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let missing = sidecar.verify_demanding(VerifyRequest::default()).await;
    assert_refused(missing, Code::InvalidArgument, "BAD_CALL", "NONE");
    assert_refused(sidecar.verify("").await, Code::Unauthenticated, "MALFORMED", "NONE");
    let missing = sidecar.tokens().refresh(RefreshRequest::default()).await;
    assert_refused(missing, Code::InvalidArgument, "BAD_CALL", "NONE");
}

#[tokio::test]
async fn a_message_larger_than_is_read_is_malformed_and_a_large_token_too_large() {
    let home = Home::new();
    let sidecar = home.start("").await;
    assert_refused(sidecar.verify(&"a".repeat(17 * 1024)).await, Code::Unauthenticated, "TOO_LARGE", "NONE");
    let huge = sidecar.verify(&"a".repeat(1024 * 1024)).await;
    assert_refused(huge, Code::InvalidArgument, "BAD_CALL", "NONE");
}

#[tokio::test]
async fn a_stream_answers_each_item_by_its_id_and_a_bad_one_does_not_end_it() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let good = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let item = |id, verify| VerifyStreamRequest { id, verify };
    let mut consistent = verify_request(&good);
    consistent.consistency = Some(countersign::grpc::v1::Consistency {
        requirement: Some(countersign::grpc::v1::consistency::Requirement::FullyConsistent(true)),
    });
    let items = vec![
        item(1, Some(verify_request(&good))),
        item(2, Some(verify_request("junk"))),
        item(3, None),
        item(4, Some(VerifyRequest::default())),
        item(5, Some(consistent)),
        item(6, Some(verify_request(&good))),
    ];
    let mut answers = sidecar.tokens().verify_stream(tokio_stream::iter(items)).await.unwrap().into_inner();
    let mut codes = std::collections::BTreeMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        use countersign::grpc::v1::verify_stream_response::Result as Said;
        let code = match answer.result.unwrap() {
            Said::Accepted(accepted) => {
                assert_eq!(accepted.subject, "alice");
                Code::Ok
            }
            Said::Status(status) => {
                assert!(!status.details.is_empty(), "an item's status carries its details");
                Code::from(status.code)
            }
        };
        codes.insert(answer.id, code);
    }
    let expected =
        [Code::Ok, Code::Unauthenticated, Code::InvalidArgument, Code::InvalidArgument, Code::Ok, Code::Ok];
    assert_eq!(codes.into_values().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn at_the_limit_of_calls_in_flight_more_are_shed() {
    let home = Home::new();
    let api = "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, sessions]\n  max_in_flight: 1\n";
    let sidecar = home.start(api).await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    // A call that waits for a revision nobody has takes the one place.
    let far = format!("{}.999999", sidecar.verify(&token).await.unwrap().revision.split_once('.').unwrap().0);
    let waiting = sidecar.verify_after(&token, &far);
    let shed = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        sidecar.verify(&token).await.unwrap_err()
    };
    let (waited, shed) = tokio::join!(waiting, shed);
    assert_refused(waited, Code::Unavailable, "NOT_FRESH", "NONE");
    assert_eq!(told(&shed), (Code::ResourceExhausted, "OVERLOADED".into(), "NONE".into()));
    crate::support::eventually("the place is free again", || async { sidecar.verify(&token).await.is_ok() })
        .await;
}
