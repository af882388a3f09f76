//! Calls that are followed: which they are, and how each ended.

use crate::ops::trace::{Call, Tracer};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Every rpc that can be served. A path that is none of them is the caller's own words, which no span shows.
const METHODS: [&str; 14] = [
    "countersign.v1.TokenService/Verify",
    "countersign.v1.TokenService/VerifyStream",
    "countersign.v1.TokenService/Refresh",
    "countersign.v1.TokenService/Revoke",
    "countersign.v1.SessionService/CreateSession",
    "countersign.v1.SessionService/GetSession",
    "countersign.v1.SessionService/ListSessions",
    "countersign.v1.SessionService/UpdateSession",
    "countersign.v1.KeyService/GetJwks",
    "envoy.service.auth.v3.Authorization/Check",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// What the conventions call any other.
const OTHER: &str = "_OTHER";

/// The call as it is followed, where it is.
pub(super) fn begin(tracer: &Arc<Tracer>, request: &Request<Incoming>) -> Option<Call> {
    tracer.begin(request.headers(), || method(request.uri().path()))
}

fn method(path: &str) -> &'static str {
    let known = |method: &&&str| path.strip_prefix('/').is_some_and(|asked| asked == **method);
    METHODS.iter().find(known).unwrap_or(&OTHER)
}

/// Runs a call and ends its span with its answer: at once where the headers say how it ended, else behind the body.
pub(super) async fn follow(call: Call, work: impl Future<Output = Response<Body>>) -> Response<Body> {
    let response = call.within(work).await;
    if let Some((code, reason)) = outcome(response.headers()) {
        call.ended(code, reason);
        return response;
    }
    response.map(|body| Body::new(Followed { body, call }))
}

fn outcome(headers: &HeaderMap) -> Option<(Code, Option<String>)> {
    let status = Status::from_header_map(headers)?;
    let reason = status.get_details_error_info().map(|info| info.reason);
    Some((status.code(), reason))
}

/// An answer's body, with the call that ends behind it.
struct Followed {
    body: Body,
    call: Call,
}

impl http_body::Body for Followed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some((code, reason)) = frame.trailers_ref().and_then(outcome)
        {
            self.call.ended(code, reason);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::v1::DESCRIPTORS;
    use prost::Message;

    #[test]
    fn a_path_of_the_caller_s_making_is_not_shown() {
        assert_eq!(method("/countersign.v1.TokenService/Verify"), "countersign.v1.TokenService/Verify");
        for path in ["/countersign.v1.TokenService/Verify/eyJ", "/eyJhbGciOiJ", "", "//"] {
            assert_eq!(method(path), "_OTHER");
        }
    }

    #[test]
    fn every_rpc_of_ours_has_its_name() {
        let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        for file in set.file.iter().filter(|file| file.package().starts_with("countersign")) {
            for service in &file.service {
                for rpc in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), rpc.name());
                    assert_eq!(method(&format!("/{name}")), name);
                }
            }
        }
    }
}
