//! Which call goes where, and what stands before each: is it served here, is there room, how long may it take.

use crate::grpc::callers::{Callers, Peer, Right};
use crate::grpc::codec::{VerifyCodec, VerifyStreamCodec};
use crate::grpc::limits::{self, InFlight, Place, within};
use crate::grpc::serve::Answer;
use crate::grpc::v1::key_service_server::KeyServiceServer;
use crate::grpc::v1::session_service_server::SessionServiceServer;
use crate::grpc::{check, codec, revoke, status, stream, token, traced, v1};
use crate::keys::{HandleKeys, SigningKeys};
use crate::ops::Metrics;
use crate::ops::trace::Tracer;
use crate::revocation::{Denylist, Revoker};
use crate::session::{Relay, Sessions};
use crate::token::Issuer;
use crate::verify::Verifier;
use arc_swap::ArcSwap;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;

/// A group of calls that can be served or not, by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rpc {
    /// Verify and VerifyStream.
    Verify,
    /// Refresh.
    Refresh,
    /// Revoke.
    Revoke,
    /// SessionService.
    Sessions,
    /// GetJwks.
    Jwks,
    /// Envoy's Check.
    Check,
}

/// What the edge itself is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The calls served here; any other is UNIMPLEMENTED.
    pub served: Vec<Rpc>,
    /// Calls under way on one worker; one more is RESOURCE_EXHAUSTED.
    pub max_in_flight: usize,
    /// How long a call may take that brings no shorter deadline.
    pub deadline: Duration,
    /// Items of one VerifyStream that may wait for keys or the store at once.
    pub max_waiting_per_stream: usize,
    /// How proxies are answered.
    pub check: check::Told,
}

/// The rooms a call can reach.
pub struct Parts {
    /// Verify.
    pub verifier: Arc<Verifier>,
    /// Refresh and SessionService, where they are served.
    pub sessions: Option<Arc<Sessions>>,
    /// Revoke.
    pub revoker: Arc<Revoker>,
    /// For the revision of answers that wrote nothing.
    pub denylist: Arc<Denylist>,
    /// GetJwks.
    pub signing: Option<Arc<SigningKeys>>,
    /// Our own issuer.
    pub own_issuer: Option<Issuer>,
    /// Who refreshes sessions of other issuers.
    pub relays: Vec<Arc<Relay>>,
    /// Tells refresh and session tokens from forgeries, for whoever revokes by holding one.
    pub handles: Option<Arc<HandleKeys>>,
    /// Who may call what; replaced whole when secrets are read again.
    pub callers: Arc<ArcSwap<Callers>>,
    /// What time it is.
    pub clock: crate::clock::Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Follows calls, where tracing is configured.
    pub tracer: Option<Arc<Tracer>>,
    /// What the edge itself is told.
    pub settings: Settings,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Parts {
    /// Whether a group of calls is served here.
    #[must_use]
    pub fn serves(&self, rpc: Rpc) -> bool {
        self.settings.served.contains(&rpc)
    }
}

/// Answers calls. One per worker: the count of calls under way is the worker's own.
#[derive(Clone, Debug)]
pub struct Api {
    parts: Arc<Parts>,
    in_flight: InFlight,
    rest: Routes,
}

/// Messages larger than this are refused before they are read: room for the largest token and many demands.
const MAX_MESSAGE: usize = 256 * 1024;

impl Api {
    /// For one worker. `rest` answers what is not ours: health and reflection.
    #[must_use]
    pub fn new(parts: Arc<Parts>, mut rest: Routes) -> Self {
        if parts.serves(Rpc::Sessions) {
            let service = SessionServiceServer::new(super::session::SessionCalls::new(Arc::clone(&parts)));
            rest = rest.add_service(service.max_decoding_message_size(MAX_MESSAGE));
        }
        if parts.serves(Rpc::Jwks) {
            rest = rest.add_service(
                KeyServiceServer::new(super::key::KeyCalls::new(Arc::clone(&parts)))
                    .max_decoding_message_size(1024),
            );
        }
        let in_flight = InFlight::new(parts.settings.max_in_flight);
        Self { parts, in_flight, rest: rest.prepare() }
    }

    /// The same for another worker, with its own count of calls under way.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        let in_flight = InFlight::new(self.parts.settings.max_in_flight);
        Self { parts: Arc::clone(&self.parts), in_flight, rest: self.rest.clone() }
    }

    async fn dispatch(
        &self,
        peer: Arc<Peer>,
        mut request: Request<Incoming>,
        deadline: Duration,
        place: Place,
    ) -> Response<Body> {
        let parts = &self.parts;
        match request.uri().path() {
            "/countersign.v1.TokenService/Verify" if parts.serves(Rpc::Verify) => {
                let mut grpc = Grpc::new(VerifyCodec).max_decoding_message_size(MAX_MESSAGE);
                let _place = place;
                grpc.unary(token::VerifyCall { parts, deadline }, request).await
            }
            "/countersign.v1.TokenService/VerifyStream" if parts.serves(Rpc::Verify) => {
                let mut grpc = Grpc::new(VerifyStreamCodec).max_decoding_message_size(MAX_MESSAGE);
                let call = stream::VerifyStreamCall {
                    parts: Arc::clone(parts),
                    peer,
                    in_flight: self.in_flight.clone(),
                    place: Some(place),
                };
                grpc.streaming(call, request).await
            }
            "/countersign.v1.TokenService/Refresh" if parts.serves(Rpc::Refresh) => {
                let codec = codec::StrictCodec::<v1::RefreshResponse, v1::RefreshRequest>::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                let _place = place;
                grpc.unary(token::RefreshCall { parts }, request).await
            }
            "/countersign.v1.TokenService/Revoke" if parts.serves(Rpc::Revoke) => {
                let codec = codec::StrictCodec::<v1::RevokeResponse, v1::RevokeRequest>::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                let _place = place;
                grpc.unary(revoke::RevokeCall { parts, peer: &peer }, request).await
            }
            "/envoy.service.auth.v3.Authorization/Check" if parts.serves(Rpc::Check) => {
                let mut grpc = Grpc::new(check::CheckCodec).max_decoding_message_size(MAX_MESSAGE);
                let _place = place;
                grpc.unary(check::CheckCall { parts, deadline }, request).await
            }
            _ => {
                request.extensions_mut().insert(peer);
                let mut rest = self.rest.clone();
                let _place = place;
                match rest.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        }
    }
}

/// A stream lives as long as its connection; every item has a deadline of its own.
fn is_long_lived(path: &str) -> bool {
    path.ends_with("/VerifyStream")
        || path == "/grpc.health.v1.Health/Watch"
        || path.ends_with("/ServerReflectionInfo")
}

impl Answer for Api {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        match self.parts.tracer.as_ref().and_then(|tracer| traced::begin(tracer, &request)) {
            None => self.admit(peer, request).await,
            // In a box, so that a call which isn't followed carries no room for this.
            Some(call) => Box::pin(traced::follow(call, self.admit(peer, request))).await,
        }
    }
}

impl Api {
    async fn admit(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let Some(place) = self.in_flight.enter() else { return status::overloaded().into_http() };
        let deadline = limits::deadline(request.headers(), self.parts.settings.deadline);
        let long_lived = is_long_lived(request.uri().path());
        let call = pin!(self.dispatch(peer, request, deadline, place));
        let answered = if long_lived { Some(call.await) } else { within(deadline, call).await };
        answered.map_or_else(|| status::deadline_exceeded().into_http(), told_our_way)
    }
}

/// What the gRPC library says by itself of a message it can't read is the caller's fault, said our way. A status of
/// ours carries details; one of its own does not.
fn told_our_way(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let Some(code) = headers.get(Status::GRPC_STATUS) else { return response };
    if headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    let code = Code::from_bytes(code.as_bytes());
    if code == Code::OutOfRange {
        status::bad_call("", "the message is larger than this sidecar reads").into_http()
    } else if code == Code::Internal {
        status::bad_call("", "send exactly one whole message").into_http()
    } else {
        response
    }
}

impl Parts {
    /// The named caller behind a call, if it has the right.
    pub(super) fn allow(&self, right: Right, peer: &Peer, headers: &HeaderMap) -> Result<Arc<str>, Status> {
        let callers = self.callers.load();
        callers.allow(right, peer, headers).map_err(|_| {
            tracing::info!(target: "countersign::audit", ?right, uid = peer.uid, "a caller without the right was refused");
            status::caller_not_allowed()
        })
    }
}
