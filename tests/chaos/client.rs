//! Calls over real gRPC, each written down.

use crate::fleet::{Fleet, SECRET};
use crate::history::{Answer, Call, How, Kind, Recorder, SessionNo, Span, Target, TokenNo, What};
use countersign::grpc::v1::consistency::Requirement;
use countersign::grpc::v1::revoke_request::Target as Wire;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{
    Attributes, Consistency, CreateSessionRequest, RefreshRequest, RevokeRequest, Tokens,
    UpdateSessionRequest, VerifyRequest,
};
use countersign::keys::HandleKeys;
use countersign::token::Revision;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// How long a probe may be undecided on a machine that is busy, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// A token in a client's hands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) no: TokenNo,
    pub(crate) text: String,
}

/// What a login or a refresh gives.
pub(crate) struct Given {
    pub(crate) access: Token,
    pub(crate) refresh: Option<Token>,
}

/// A client of every sidecar.
#[derive(Clone)]
pub(crate) struct Client {
    recorder: Arc<Recorder>,
    channels: Vec<Channel>,
    handles: Arc<HandleKeys>,
    timeout: Duration,
    /// From here on everything has to be decided.
    probing: bool,
}

impl Client {
    pub(crate) fn new(recorder: &Arc<Recorder>, fleet: &Fleet) -> Self {
        let channel = |sidecar| {
            let address = format!("unix:{}", fleet.socket(sidecar).display());
            Endpoint::from_shared(address).unwrap().connect_lazy()
        };
        Self {
            recorder: Arc::clone(recorder),
            channels: (0..fleet.size()).map(channel).collect(),
            handles: Arc::new(fleet.handles()),
            timeout: Duration::from_secs(4),
            probing: false,
        }
    }

    pub(crate) fn probing(mut self) -> Self {
        self.probing = true;
        self
    }

    pub(crate) fn size(&self) -> usize {
        self.channels.len()
    }

    pub(crate) fn now(&self) -> Duration {
        self.recorder.now()
    }

    pub(crate) async fn login(
        &self,
        sidecar: usize,
        subject: &str,
        policy: &str,
    ) -> Option<(SessionNo, String, Given)> {
        let request = CreateSessionRequest {
            subject: subject.to_owned(),
            policy: policy.to_owned(),
            ..CreateSessionRequest::default()
        };
        let began = self.now();
        let result = SessionServiceClient::new(self.channels[sidecar].clone())
            .create_session(self.request(request))
            .await;
        let span = Span { began, ended: self.now() };
        match result {
            Ok(answer) => {
                let answer = answer.into_inner();
                let session = self.recorder.session(subject, span);
                self.write_down(span, sidecar, What::Login, Answer::Opened(session));
                let given = self.given(session, answer.tokens.unwrap_or_default(), span);
                Some((session, answer.session.unwrap_or_default().session_id, given))
            }
            Err(status) => {
                self.write_down(span, sidecar, What::Login, refused(&status));
                None
            }
        }
    }

    pub(crate) async fn verify(&self, sidecar: usize, token: &Token, how: How) -> Answer {
        let until = self.now() + PATIENCE;
        loop {
            let answer = self.verify_once(sidecar, token, how, until).await;
            if !self.tries_again(&answer, until) {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn verify_once(&self, sidecar: usize, token: &Token, how: How, until: Duration) -> Answer {
        let requirement = match how {
            How::Latency => Requirement::MinimizeLatency(true),
            How::Fresh(revision) => Requirement::AtLeastAsFresh(revision.to_string()),
            How::Fully => Requirement::FullyConsistent(true),
        };
        let request = VerifyRequest {
            token: Some(token.text.clone()),
            consistency: Some(Consistency { requirement: Some(requirement) }),
            ..VerifyRequest::default()
        };
        let began = self.now();
        let result =
            TokenServiceClient::new(self.channels[sidecar].clone()).verify(self.request(request)).await;
        let span = Span { began, ended: self.now() };
        let answer = result.map_or_else(|status| refused(&status), |_| Answer::Accepted);
        self.write_down_try(span, sidecar, What::Verify { token: token.no, how }, answer, until)
    }

    pub(crate) async fn refresh(
        &self,
        sidecar: usize,
        session: SessionNo,
        token: &Token,
    ) -> (Answer, Option<Given>) {
        let until = self.now() + PATIENCE;
        loop {
            let (answer, given) = self.refresh_once(sidecar, session, token, until).await;
            if !self.tries_again(&answer, until) {
                return (answer, given);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn refresh_once(
        &self,
        sidecar: usize,
        session: SessionNo,
        token: &Token,
        until: Duration,
    ) -> (Answer, Option<Given>) {
        let request = RefreshRequest { refresh_token: Some(token.text.clone()), ..RefreshRequest::default() };
        let began = self.now();
        let result =
            TokenServiceClient::new(self.channels[sidecar].clone()).refresh(self.request(request)).await;
        let span = Span { began, ended: self.now() };
        let what = What::Refresh { token: token.no };
        match result {
            Ok(answer) => {
                let given = self.given(session, answer.into_inner().tokens.unwrap_or_default(), span);
                let generation = given.refresh.as_ref().map(|refresh| self.generation(&refresh.text));
                let answer = generation.map_or_else(
                    || Answer::Wrong("no refresh token".to_owned()),
                    |generation| Answer::Refreshed { generation },
                );
                (self.write_down_try(span, sidecar, what, answer, until), Some(given))
            }
            Err(status) => (self.write_down_try(span, sidecar, what, refused(&status), until), None),
        }
    }

    pub(crate) async fn revoke(&self, sidecar: usize, target: Target, wire: Wire) -> Answer {
        let request = RevokeRequest { target: Some(wire), reason: String::new() };
        let began = self.now();
        let result =
            TokenServiceClient::new(self.channels[sidecar].clone()).revoke(self.request(request)).await;
        let span = Span { began, ended: self.now() };
        let answer =
            result.map_or_else(|status| refused(&status), |answer| done(&answer.into_inner().revision));
        self.write_down(span, sidecar, What::Revoke(target), answer)
    }

    pub(crate) async fn update(&self, sidecar: usize, session: SessionNo, id: &str, role: &str) -> Answer {
        let attributes = Attributes { roles: vec![role.to_owned()], ..Attributes::default() };
        let request = UpdateSessionRequest { session_id: id.to_owned(), attributes: Some(attributes) };
        let began = self.now();
        let result = SessionServiceClient::new(self.channels[sidecar].clone())
            .update_session(self.request(request))
            .await;
        let span = Span { began, ended: self.now() };
        let answer =
            result.map_or_else(|status| refused(&status), |answer| done(&answer.into_inner().revision));
        self.write_down(span, sidecar, What::Update { session }, answer)
    }

    fn tries_again(&self, answer: &Answer, until: Duration) -> bool {
        let undecided = matches!(answer, Answer::Undecided(_) | Answer::Lost(_));
        self.probing && undecided && self.now() < until
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
        request.set_timeout(self.timeout);
        request
    }

    fn write_down(&self, span: Span, sidecar: usize, what: What, answer: Answer) -> Answer {
        self.write_down_try(span, sidecar, what, answer, Duration::ZERO)
    }

    /// A probe is one try of several where the machine is busy: only the last has to be decided.
    fn write_down_try(
        &self,
        span: Span,
        sidecar: usize,
        what: What,
        answer: Answer,
        until: Duration,
    ) -> Answer {
        let probe = self.probing && !self.tries_again(&answer, until);
        self.recorder.call(Call { span, sidecar, what, answer: answer.clone(), probe });
        answer
    }

    fn given(&self, session: SessionNo, tokens: Tokens, made: Span) -> Given {
        let kind = if tokens.access_token.starts_with("css_") { Kind::Opaque } else { Kind::Access };
        let token = |text: String, kind| Token { no: self.recorder.token(&text, session, kind, made), text };
        let refresh = (!tokens.refresh_token.is_empty()).then(|| {
            let generation = self.generation(&tokens.refresh_token);
            token(tokens.refresh_token, Kind::Refresh { generation })
        });
        Given { access: token(tokens.access_token, kind), refresh }
    }

    fn generation(&self, refresh: &str) -> u64 {
        self.handles.open(refresh).map_or(u64::MAX, |handle| handle.generation)
    }
}

fn done(revision: &str) -> Answer {
    revision.parse::<Revision>().map_or_else(|_| Answer::Wrong(format!("revision {revision}")), Answer::Done)
}

fn refused(status: &Status) -> Answer {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    match (reason, status.code()) {
        (Some(reason), Code::Unauthenticated | Code::NotFound) => Answer::Denied(reason),
        (Some(reason), Code::Unavailable | Code::ResourceExhausted) => Answer::Undecided(reason),
        (Some(reason), code) => Answer::Wrong(format!("{code:?} {reason}: {}", status.message())),
        // Whatever has no reason is the transport's, or the deadline's.
        (None, code) => Answer::Lost(format!("{code:?}: {}", status.message())),
    }
}
