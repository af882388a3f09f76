//! A no-op prost service on the product's server, with the product's layers: a place among the calls in flight, a
//! deadline, the path, a span, a counter and a histogram.

use countersign::clock::Clock;
use countersign::grpc::callers::Peer;
use countersign::grpc::codec::StrictCodec;
use countersign::grpc::limits::{InFlight, deadline, within};
use countersign::grpc::listener::Listener;
use countersign::grpc::serve::{self, Answer};
use countersign::grpc::v1::{VerifyRequest, VerifyResponse};
use countersign::ops::{Metrics, VerifyOk};
use http::{Request, Response};
use hyper::body::Incoming;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};

#[derive(Clone)]
struct Noop {
    in_flight: InFlight,
    counted: VerifyOk,
    clock: Clock,
    answer: Arc<VerifyResponse>,
}

impl Answer for Noop {
    async fn answer(&self, _: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let Some(_place) = self.in_flight.enter() else {
            return tonic::Status::resource_exhausted("full").into_http();
        };
        let deadline = deadline(request.headers(), Duration::from_secs(5));
        let call = pin!(async {
            match request.uri().path() {
                "/countersign.v1.TokenService/Verify" => {
                    let codec = StrictCodec::<VerifyResponse, VerifyRequest>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(256 * 1024);
                    grpc.unary(NoopCall(self), request).await
                }
                _ => tonic::Status::unimplemented("").into_http(),
            }
        });
        within(deadline, call).await.unwrap()
    }
}

struct NoopCall<'a>(&'a Noop);

impl UnaryService<VerifyRequest> for NoopCall<'_> {
    type Response = VerifyResponse;
    type Future = std::future::Ready<Result<tonic::Response<VerifyResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<VerifyRequest>) -> Self::Future {
        let started = self.0.clock.now();
        let request = request.into_inner();
        assert!(request.token.is_some());
        let answer = (*self.0.answer).clone();
        self.0.counted.record(self.0.clock.elapsed().saturating_sub(started.elapsed));
        std::future::ready(Ok(tonic::Response::new(answer)))
    }
}

/// Serves until killed; prints where.
pub(crate) fn serve() {
    let metrics = Metrics::new();
    let noop = Noop {
        in_flight: InFlight::new(4096),
        counted: metrics.verify_source("https://issuer.example.com", "cache"),
        clock: Clock::system(),
        answer: Arc::new(VerifyResponse { claims_json: vec![b'x'; 300], ..VerifyResponse::default() }),
    };
    let (deal, dealt) = mpsc::channel(64);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve::work(
            dealt,
            noop,
            None,
            serve::Settings::default(),
            CancellationToken::new(),
        ));
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        println!("listening {}", listener.address());
        serve::accept(listener, Arc::new(Semaphore::new(1024)), vec![deal], CancellationToken::new()).await;
    });
}
