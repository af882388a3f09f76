//! VerifyStream: many verifications on one stream. What memory answers is answered at once; what has to wait for keys,
//! a revision or the store waits beside it, and takes a place among the calls in flight for as long.

use crate::grpc::callers::Peer;
use crate::grpc::codec::{StreamAnswer, StreamItem, VerifyAnswer};
use crate::grpc::limits::{InFlight, Place};
use crate::grpc::router::Parts;
use crate::grpc::status;
use crate::grpc::token::{verify, verify_now};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::server::StreamingService;
use tonic::{Code, Request, Response, Status, Streaming};

/// Answers given in a row before others on the same worker get a turn.
const BURST: u32 = 256;

/// One VerifyStream.
pub(super) struct VerifyStreamCall {
    pub(super) parts: Arc<Parts>,
    pub(super) peer: Arc<Peer>,
    pub(super) in_flight: InFlight,
    /// The stream's own place; held as long as the stream.
    pub(super) place: Option<Place>,
}

impl StreamingService<StreamItem> for VerifyStreamCall {
    type Response = StreamAnswer;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<StreamItem>>) -> Self::Future {
        let answers = Answers {
            parts: Arc::clone(&self.parts),
            items: Some(request.into_inner()),
            waiting: FuturesUnordered::new(),
            ending: None,
            leaving: Box::pin(self.peer.leaving.clone().cancelled_owned()),
            peer: Arc::clone(&self.peer),
            in_flight: self.in_flight.clone(),
            in_a_row: 0,
            _place: self.place.take(),
        };
        std::future::ready(Ok(Response::new(answers)))
    }
}

/// The answers of one stream, in the order they come to be.
pub(super) struct Answers {
    parts: Arc<Parts>,
    /// `None`: no more are taken; what waits is still answered.
    items: Option<Streaming<StreamItem>>,
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = StreamAnswer> + Send>>>,
    /// What to end with, where it is not well.
    ending: Option<Status>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    peer: Arc<Peer>,
    in_flight: InFlight,
    in_a_row: u32,
    _place: Option<Place>,
}

impl Stream for Answers {
    type Item = Result<StreamAnswer, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.items.is_some() && this.peer.leaving.is_cancelled() {
            this.end(Status::unavailable("this connection is going away; open the stream again on another"));
        }
        if this.in_a_row >= BURST {
            this.in_a_row = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        while let Some(items) = &mut this.items {
            match items.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(item))) => {
                    if let Some(answer) = this.take(item) {
                        this.in_a_row += 1;
                        return Poll::Ready(Some(Ok(answer)));
                    }
                }
                Poll::Ready(Some(Err(status))) => this.end(told_our_way(status)),
                Poll::Ready(None) => this.items = None,
                Poll::Pending => break,
            }
        }
        this.in_a_row = 0;
        match this.waiting.poll_next_unpin(context) {
            Poll::Ready(Some(answer)) => Poll::Ready(Some(Ok(answer))),
            Poll::Ready(None) if this.items.is_none() => Poll::Ready(this.ending.take().map(Err)),
            Poll::Ready(None) | Poll::Pending => {
                // Asked last, so that going away wakes a stream on which nothing else happens.
                if this.items.is_some() && this.leaving.as_mut().poll(context).is_ready() {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl Answers {
    /// Takes no more items; ends with this once nothing waits.
    fn end(&mut self, status: Status) {
        self.items = None;
        self.ending = Some(status);
    }

    /// Answers an item from memory, or sets it waiting.
    fn take(&mut self, item: StreamItem) -> Option<StreamAnswer> {
        let said = |result: Result<VerifyAnswer, Status>| result.map_err(|status| status::to_item(&status));
        let now = |id, result| Some(StreamAnswer { id, result: said(result) });
        let Ok(item) = item else {
            return now(0, Err(status::bad_call("", "the message does not decode as its type")));
        };
        let id = item.id;
        let Some(request) = item.verify else { return now(id, Err(status::bad_call("verify", "set it"))) };
        let deadline = self.parts.settings.deadline;
        if let Some(result) = verify_now(&self.parts, &request, deadline) {
            return now(id, result);
        }
        let room = self.waiting.len() < self.parts.settings.max_waiting_per_stream;
        let Some(place) = self.in_flight.enter().filter(|_| room) else {
            return now(id, Err(status::overloaded()));
        };
        let parts = Arc::clone(&self.parts);
        self.waiting.push(Box::pin(async move {
            let result = tokio::time::timeout(deadline, verify(&parts, &request, deadline)).await;
            drop(place);
            StreamAnswer { id, result: said(result.unwrap_or_else(|_| Err(status::deadline_exceeded()))) }
        }));
        None
    }
}

/// A message too large to be read ends the stream: where the next one begins is not known. It is the caller's fault.
fn told_our_way(status: Status) -> Status {
    if status.code() == Code::OutOfRange {
        status::bad_call("", "an item is larger than this sidecar reads")
    } else {
        status
    }
}
