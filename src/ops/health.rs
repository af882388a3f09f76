//! The gRPC health service (`grpc.health.v1`): what probes, meshes and clients ask whether to send calls here.
//!
//! Written here rather than taken from the library, whose `""` starts out serving and whose `Watch` refuses unknown
//! services; the messages are the library's.

pub use crate::ops::readiness::{Gate, Phase, Readiness};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::HealthServer;

/// Open `Watch` calls at once, over all listeners.
const MAX_WATCHES: usize = 512;
/// A request names one service; no name of ours comes near this many bytes.
const MAX_REQUEST_BYTES: usize = 1024;

/// The health service. Clones are the same service, and may be served on several listeners.
///
/// Known services: `""`, `readiness` and every served gRPC service follow readiness; `liveness` is always serving.
#[derive(Clone, Debug)]
pub struct Health {
    readiness: Readiness,
    served: Arc<[Box<str>]>,
    watches: Arc<Semaphore>,
    closing: CancellationToken,
}

impl Health {
    /// Health of `served`, the full names of the gRPC services. Every `Watch` ends once `closing` is cancelled.
    #[must_use]
    pub fn new<'a>(
        readiness: Readiness,
        served: impl IntoIterator<Item = &'a str>,
        closing: CancellationToken,
    ) -> Self {
        let served = served.into_iter().map(Box::from).collect();
        Self { readiness, served, watches: Arc::new(Semaphore::new(MAX_WATCHES)), closing }
    }

    /// The readiness it reports.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The service as a server takes it, with its requests bounded.
    #[must_use]
    pub fn server(&self) -> HealthServer<Self> {
        HealthServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn subject(&self, service: &str) -> Subject {
        match service {
            "" | "readiness" => Subject::Readiness,
            "liveness" => Subject::Liveness,
            served if self.served.iter().any(|name| **name == *served) => Subject::Readiness,
            _ => Subject::Unknown,
        }
    }
}

/// What a service's name stands for.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Liveness,
    Readiness,
    Unknown,
}

impl Subject {
    fn status(self, phase: Phase) -> ServingStatus {
        match (self, phase) {
            (Self::Liveness, _) | (Self::Readiness, Phase::Ready) => ServingStatus::Serving,
            (Self::Readiness, Phase::Starting | Phase::Draining) => ServingStatus::NotServing,
            (Self::Unknown, _) => ServingStatus::ServiceUnknown,
        }
    }
}

/// The answers of one `Watch`.
pub type Answers = Pin<Box<dyn futures_util::Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::health_server::Health for Health {
    type WatchStream = Answers;

    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        let status = self.subject(&request.get_ref().service).status(self.readiness.phase());
        if status == ServingStatus::ServiceUnknown {
            return Err(Status::not_found("no such service"));
        }
        Ok(Response::new(pb::HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Answers>, Status> {
        let permit = Arc::clone(&self.watches)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many open watches"))?;
        let watch = Watch {
            subject: self.subject(&request.get_ref().service),
            phases: self.readiness.watch(),
            told: None,
            closing: self.closing.clone(),
            ended: false,
            _readiness: self.readiness.clone(),
            _permit: permit,
        };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(watch, Watch::next))))
    }
}

/// One open `Watch`.
struct Watch {
    subject: Subject,
    phases: watch::Receiver<Phase>,
    told: Option<ServingStatus>,
    closing: CancellationToken,
    ended: bool,
    // Keeps the sending side of `phases` alive.
    _readiness: Readiness,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// The next answer: at once the first time, then whenever the status changed, and at the end that it is over. A
    /// change comes before the end, so a watcher hears of the drain first.
    async fn next(mut self) -> Option<(Result<pb::HealthCheckResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            let status = self.subject.status(*self.phases.borrow_and_update());
            if self.told.replace(status) != Some(status) {
                return Some((Ok(pb::HealthCheckResponse { status: status.into() }), self));
            }
            let over = tokio::select! {
                biased;
                changed = self.phases.changed() => changed.is_err(),
                () = self.closing.cancelled() => true,
            };
            if over {
                self.ended = true;
                return Some((Err(Status::unavailable("shutting down")), self));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt};
    use pb::health_server::Health as _;
    use tonic::Code;

    const SERVED: &str = "countersign.v1.TokenService";

    fn health() -> (Health, CancellationToken) {
        let closing = CancellationToken::new();
        (Health::new(Readiness::new(), [SERVED], closing.clone()), closing)
    }

    fn request(service: &str) -> Request<pb::HealthCheckRequest> {
        Request::new(pb::HealthCheckRequest { service: service.to_owned() })
    }

    async fn check(health: &Health, service: &str) -> Result<ServingStatus, Code> {
        match health.check(request(service)).await {
            Ok(answer) => Ok(answer.get_ref().status()),
            Err(status) => Err(status.code()),
        }
    }

    async fn watch(health: &Health, service: &str) -> Answers {
        health.watch(request(service)).await.expect("a watch").into_inner()
    }

    fn told(answer: Option<Result<pb::HealthCheckResponse, Status>>) -> Result<ServingStatus, Code> {
        answer.expect("an open stream").map(|a| a.status()).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn nothing_but_liveness_serves_at_the_start() {
        let (health, _closing) = health();
        assert_eq!(check(&health, "liveness").await, Ok(ServingStatus::Serving));
        for service in ["", "readiness", SERVED] {
            assert_eq!(check(&health, service).await, Ok(ServingStatus::NotServing), "{service}");
        }
    }

    #[tokio::test]
    async fn all_but_liveness_follow_readiness() {
        let (health, _closing) = health();
        health.readiness().gate("keys").open();
        for service in ["", "readiness", SERVED] {
            assert_eq!(check(&health, service).await, Ok(ServingStatus::Serving), "{service}");
        }
        health.readiness().drain();
        assert_eq!(check(&health, SERVED).await, Ok(ServingStatus::NotServing));
        assert_eq!(check(&health, "liveness").await, Ok(ServingStatus::Serving));
    }

    #[tokio::test]
    async fn check_does_not_know_an_unknown_service() {
        let (health, _closing) = health();
        assert_eq!(check(&health, "countersign.v1.Nothing").await, Err(Code::NotFound));
    }

    #[tokio::test]
    async fn watch_tells_changes_only() {
        let (health, _closing) = health();
        let gate = health.readiness().gate("keys");
        let mut answers = watch(&health, "readiness").await;
        assert_eq!(told(answers.next().await), Ok(ServingStatus::NotServing));
        assert!(answers.next().now_or_never().is_none());
        gate.open();
        assert_eq!(told(answers.next().await), Ok(ServingStatus::Serving));
        gate.open();
        assert!(answers.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_drain_before_readiness_is_no_change_to_a_watcher() {
        let (health, _closing) = health();
        let mut answers = watch(&health, "").await;
        assert_eq!(told(answers.next().await), Ok(ServingStatus::NotServing));
        health.readiness().drain();
        assert!(answers.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn watch_of_an_unknown_service_stays_open() {
        let (health, closing) = health();
        let mut answers = watch(&health, "countersign.v1.Nothing").await;
        assert_eq!(told(answers.next().await), Ok(ServingStatus::ServiceUnknown));
        health.readiness().gate("keys").open();
        assert!(answers.next().now_or_never().is_none());
        closing.cancel();
        assert_eq!(told(answers.next().await), Err(Code::Unavailable));
    }

    #[tokio::test]
    async fn a_watcher_hears_of_the_drain_before_the_end() {
        let (health, closing) = health();
        health.readiness().gate("keys").open();
        let mut answers = watch(&health, SERVED).await;
        assert_eq!(told(answers.next().await), Ok(ServingStatus::Serving));
        health.readiness().drain();
        closing.cancel();
        assert_eq!(told(answers.next().await), Ok(ServingStatus::NotServing));
        assert_eq!(told(answers.next().await), Err(Code::Unavailable));
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_flood_of_watches_is_refused() {
        let (health, _closing) = health();
        let mut open = Vec::new();
        for _ in 0..MAX_WATCHES {
            open.push(watch(&health, "liveness").await);
        }
        let refused = health.watch(request("liveness")).await.err().map(|status| status.code());
        assert_eq!(refused, Some(Code::ResourceExhausted));
        open.pop();
        assert!(health.watch(request("liveness")).await.is_ok());
    }
}
