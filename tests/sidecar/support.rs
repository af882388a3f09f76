//! A sidecar to test against: the real app on a temporary directory, with clients for its services.

use countersign::app::Assembly;
use countersign::clock::{Clock, ManualClock, Timestamp};
use countersign::config;
use countersign::grpc::v1::key_service_client::KeyServiceClient;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{
    Attributes, Consistency, CreateSessionRequest, CreateSessionResponse, RefreshRequest, RefreshResponse,
    RevokeRequest, RevokeResponse, VerifyRequest, VerifyResponse, consistency::Requirement,
    revoke_request::Target,
};
use countersign::keys::{KeyFile, NewKey, SigningAlgorithm};
use countersign::ops::Readiness;
use countersign::revocation::Feed;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// Our own issuer in every test.
pub(crate) const ISSUER: &str = "https://auth.example.com";
/// The secret of the one caller with every right.
pub(crate) const SECRET: &str = "a secret of the tests";
/// Where manual clocks start.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_900_000_000);

/// A directory with keys, a store and whatever a test adds.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap() };
        let now = Clock::system().now().judged;
        let made = now.min(START);
        let signing = KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), made).unwrap();
        signing.create(&home.path("signing.json")).unwrap();
        KeyFile::generate(NewKey::Handles, made).unwrap().create(&home.path("handles.json")).unwrap();
        std::fs::write(home.path("caller.secret"), SECRET).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration with everything served, with these lines added or put in place of the section they name.
    pub(crate) fn config(&self, sections: &str) -> String {
        let directory = self.directory.path().display();
        let mut text = String::new();
        let given = |name: &str| sections.lines().any(|line| line.starts_with(&format!("{name}:")));
        let mut default = |name: &str, section: String| {
            if !given(name) {
                text.push_str(&section);
            }
        };
        default(
            "api",
            format!(
                "api:\n  tcp: 127.0.0.1:0\n  unix: {directory}/run/api.sock\n  workers: 2\n  \
                 serve: [verify, refresh, revoke, sessions, jwks]\n"
            ),
        );
        default("ops", "ops:\n  address: 127.0.0.1:0\n".to_owned());
        default("drain", "drain:\n  grace: 0s\n  deadline: 1s\n".to_owned());
        default("store", format!("store: sqlite:{directory}/store.db\n"));
        default("own", self.own(""));
        default("callers", self.callers());
        text.push_str(sections);
        text
    }

    /// The section of our own tokens, with these policies.
    pub(crate) fn own(&self, policies: &str) -> String {
        let directory = self.directory.path().display();
        let policies = if policies.is_empty() { "    medium: {preset: medium}\n" } else { policies };
        format!(
            "own:\n  issuer: {ISSUER}\n  signing_keys: {directory}/signing.json\n  \
             handle_keys: {directory}/handles.json\n  policies:\n{policies}"
        )
    }

    fn callers(&self) -> String {
        let secret = self.path("caller.secret");
        format!(
            "callers:\n  - name: tests\n    secret_file: {}\n    \
             may: [sessions.create, sessions.read, sessions.update, revoke.session, revoke.subject, revoke.issuer]\n",
            secret.display()
        )
    }

    /// Starts a sidecar on the machine's clock.
    pub(crate) async fn start(&self, sections: &str) -> Sidecar {
        Sidecar::start(&self.config(sections), Clock::system(), self.directory.path()).await
    }

    /// Starts a sidecar on a clock that the test moves.
    pub(crate) async fn start_at(&self, sections: &str) -> (Sidecar, ManualClock) {
        let (clock, hands) = Clock::manual(START);
        (Sidecar::start(&self.config(sections), clock, self.directory.path()).await, hands)
    }
}

/// A running sidecar; ends when dropped.
pub(crate) struct Sidecar {
    pub(crate) api: String,
    pub(crate) unix: Option<String>,
    pub(crate) ops: String,
    pub(crate) channel: Channel,
    feed: Arc<Feed>,
    shutdown: CancellationToken,
    ended: Option<std::thread::JoinHandle<()>>,
}

impl Sidecar {
    pub(crate) async fn start(text: &str, clock: Clock, directory: &Path) -> Self {
        let (sidecar, readiness) = Self::launch(text, clock, directory, || ()).await;
        let ready = tokio::time::timeout(Duration::from_secs(10), readiness.reached()).await;
        assert!(ready.unwrap(), "it gets ready");
        sidecar
    }

    /// Starts it and does not wait until it is ready. `built` is called when its rooms are built and none runs yet.
    pub(crate) async fn launch(
        text: &str,
        clock: Clock,
        directory: &Path,
        built: impl FnOnce() + Send + 'static,
    ) -> (Self, Readiness) {
        let file = directory
            .join(format!("countersign-{}.yaml", countersign::token::random_bytes::<1>().unwrap()[0]));
        std::fs::write(&file, text).unwrap();
        let config = config::load(Some(&file), &config::Overlay::default())
            .unwrap_or_else(|faults| panic!("the configuration is good:\n{faults}\n{text}"));
        let shutdown = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let stop = shutdown.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let assembly =
                    Assembly::new(config, clock).unwrap_or_else(|error| panic!("it is built: {error:?}"));
                built();
                let feed = Arc::clone(assembly.feed());
                let app = assembly.bind().await.unwrap_or_else(|error| panic!("it is bound: {error:?}"));
                let readiness = app.readiness();
                tell.send((app.api_addresses(), app.ops_address().to_string(), readiness, feed))
                    .ok()
                    .unwrap();
                app.run(stop).await.unwrap();
            });
        });
        let (addresses, ops, readiness, feed) = told.await.unwrap();
        let unix = addresses.iter().find(|address| address.starts_with("unix:")).cloned();
        let api = addresses.iter().find(|address| !address.starts_with("unix:")).cloned().unwrap_or_default();
        let plain = !text.contains("tls:") && !api.is_empty();
        let channel = connect(if plain { &api } else { unix.as_deref().unwrap() }).await;
        (Self { api, unix, ops, channel, feed, shutdown, ended: Some(ended) }, readiness)
    }

    /// Lets time pass on the manual clock, and the feed confirm that it holds everything as of then.
    pub(crate) async fn pass(&self, hands: &ManualClock, by: Duration) {
        hands.advance(by);
        self.feed.reach_head(Duration::from_secs(5)).await.unwrap();
    }

    pub(crate) fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone())
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone())
    }

    /// A login under a policy.
    pub(crate) async fn login(&self, subject: &str, policy: &str) -> CreateSessionResponse {
        self.try_login(subject, policy, Attributes::default()).await.unwrap()
    }

    pub(crate) async fn try_login(
        &self,
        subject: &str,
        policy: &str,
        attributes: Attributes,
    ) -> Result<CreateSessionResponse, Status> {
        let request = CreateSessionRequest {
            subject: subject.to_owned(),
            policy: policy.to_owned(),
            attributes: Some(attributes),
            ..CreateSessionRequest::default()
        };
        Ok(self.sessions().create_session(as_caller(request)).await?.into_inner())
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<VerifyResponse, Status> {
        self.verify_demanding(verify_request(token)).await
    }

    pub(crate) async fn verify_consistently(&self, token: &str) -> Result<VerifyResponse, Status> {
        let mut request = verify_request(token);
        request.consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
        self.verify_demanding(request).await
    }

    pub(crate) async fn verify_after(&self, token: &str, revision: &str) -> Result<VerifyResponse, Status> {
        let mut request = verify_request(token);
        request.consistency =
            Some(Consistency { requirement: Some(Requirement::AtLeastAsFresh(revision.to_owned())) });
        self.verify_demanding(request).await
    }

    pub(crate) async fn verify_demanding(&self, request: VerifyRequest) -> Result<VerifyResponse, Status> {
        Ok(self.tokens().verify(request).await?.into_inner())
    }

    pub(crate) async fn refresh(&self, token: &str) -> Result<RefreshResponse, Status> {
        let request = RefreshRequest { refresh_token: Some(token.to_owned()), ..RefreshRequest::default() };
        Ok(self.tokens().refresh(request).await?.into_inner())
    }

    pub(crate) async fn revoke(&self, target: Target) -> Result<RevokeResponse, Status> {
        let request = RevokeRequest { target: Some(target), reason: String::new() };
        Ok(self.tokens().revoke(as_caller(request)).await?.into_inner())
    }

    /// Ends the sidecar and waits for it.
    pub(crate) fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(ended) = self.ended.take() {
            assert!(ended.join().is_ok(), "the app ended well");
        }
    }

    /// Tells it to go away, without waiting.
    pub(crate) fn tell_to_stop(&self) {
        self.shutdown.cancel();
    }
}

impl Drop for Sidecar {
    /// Does not wait: while a test's thread waits here, its clients can't hang up, and the drain takes its whole time.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) async fn connect(address: &str) -> Channel {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    Endpoint::from_shared(uri).unwrap().timeout(Duration::from_secs(10)).connect().await.unwrap()
}

pub(crate) fn verify_request(token: &str) -> VerifyRequest {
    VerifyRequest { token: Some(token.to_owned()), ..VerifyRequest::default() }
}

/// The message, with the secret of the caller with every right.
pub(crate) fn as_caller<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
    request
}

/// What a status says: code, reason, action.
pub(crate) fn told(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info().cloned();
    let reason = info.as_ref().map(|info| info.reason.clone()).unwrap_or_default();
    let action = info.and_then(|info| info.metadata.get("action").cloned()).unwrap_or_default();
    (status.code(), reason, action)
}

/// Asserts a refusal with this reason and action, and the code that goes with them.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    action: &str,
) {
    match result {
        Ok(answer) => panic!("accepted instead of {reason}: {answer:?}"),
        Err(status) => assert_eq!(told(&status), (code, reason.to_owned(), action.to_owned()), "{status:?}"),
    }
}

/// Asserts a denial of the credential.
#[track_caller]
pub(crate) fn assert_denied<T: std::fmt::Debug>(result: Result<T, Status>, reason: &str, action: &str) {
    assert_refused(result, Code::Unauthenticated, reason, action);
}

/// Waits until something holds, at most twenty seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in twenty seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
