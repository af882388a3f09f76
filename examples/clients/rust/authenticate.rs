//! A layer for tonic's server that lets those calls in whose bearer token the sidecar accepts.

use crate::sidecar::verify;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{VerifyRequest, VerifyResponse};
use http::{HeaderMap, Request, header::AUTHORIZATION};
use std::pin::Pin;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::BoxError;
use tower::filter::{AsyncFilterLayer, AsyncPredicate};

/// Demands all of these scopes. What it refuses with is a [`Status`], which tonic answers the call with.
pub(crate) fn authenticate(
    sidecar: TokenServiceClient<Channel>,
    scopes: &'static [&'static str],
) -> AsyncFilterLayer<Authenticate> {
    AsyncFilterLayer::new(Authenticate { sidecar, scopes })
}

/// Whom the sidecar accepted.
///
/// # Errors
/// INTERNAL in a call that was not authenticated.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<&VerifyResponse, Status> {
    request.extensions().get().ok_or_else(|| Status::internal("served without authenticate"))
}

#[derive(Clone)]
pub(crate) struct Authenticate {
    sidecar: TokenServiceClient<Channel>,
    scopes: &'static [&'static str],
}

impl AsyncPredicate<Request<Body>> for Authenticate {
    type Future = Pin<Box<dyn Future<Output = Result<Self::Request, BoxError>> + Send>>;
    type Request = Request<Body>;

    fn check(&mut self, mut call: Request<Body>) -> Self::Future {
        let (sidecar, scopes) =
            (self.sidecar.clone(), self.scopes.iter().map(|&scope| scope.into()).collect());
        Box::pin(async move {
            let token = bearer(call.headers()).unwrap_or_default().to_owned();
            let request = VerifyRequest { token: Some(token), scopes, ..VerifyRequest::default() };
            let claims = verify(&sidecar, request).await?;
            call.extensions_mut().insert(claims);
            Ok(call)
        })
    }
}

/// The token of the one authorization header. Without one it is empty, which the sidecar denies as MALFORMED.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (scheme, token) = sent.next().filter(|_| sent.next().is_none())?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
