//! A no-op on tonic as it comes: its own server and codec, the multi-thread runtime with one worker, the system's
//! allocator.

use countersign::grpc::v1::{VerifyRequest, VerifyResponse};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;

#[derive(Clone)]
struct Noop;

impl NamedService for Noop {
    const NAME: &'static str = "countersign.v1.TokenService";
}

impl Service<http::Request<Body>> for Noop {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<VerifyResponse, VerifyRequest>::default());
            Ok(grpc.unary(NoopCall, request).await)
        })
    }
}

struct NoopCall;

impl UnaryService<VerifyRequest> for NoopCall {
    type Response = VerifyResponse;
    type Future = std::future::Ready<Result<tonic::Response<VerifyResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<VerifyRequest>) -> Self::Future {
        assert!(request.into_inner().token.is_some());
        let answer = VerifyResponse { claims_json: vec![b'x'; 300], ..VerifyResponse::default() };
        std::future::ready(Ok(tonic::Response::new(answer)))
    }
}

/// Serves until killed; prints where.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening {}", listener.local_addr().unwrap());
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tonic::transport::Server::builder().add_service(Noop).serve_with_incoming(incoming).await.unwrap();
    });
}
