//! Traces: which calls are followed, what is noted of them, and how that gets to a collector.
//!
//! A call is followed where its caller's trace says so (W3C Trace Context), or, without one, by a share of chance.
//! What isn't followed costs a look at one header; where tracing is off, a branch. Spans go into a bounded queue, and
//! what finds no room is dropped and counted, so no call ever waits for a collector.
//!
//! A span's words are constants of ours and the configured issuers: no token, claim, subject or path of a caller's.

mod call;
mod context;
mod export;
mod otlp;

pub use call::{Call, note, note_reason, waiting};
pub use export::{Exporter, ExporterSettings, HeadersError, read_headers};

use crate::clock::Clock;
use crate::ops::Metrics;
use crate::token::{NoRandomness, random_bytes};
use context::TraceContext;
use http::HeaderMap;
use otlp::Span;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;

/// Spans sent in one message.
const BATCH: usize = 512;

/// Decides which calls are followed, and holds their spans until they are sent.
pub struct Tracer {
    /// A draw below it is followed, of 2^53.
    below: u64,
    draws: AtomicU64,
    queue: Mutex<VecDeque<Span>>,
    /// Spans held at most.
    room: usize,
    ripe: Notify,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("room", &self.room).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Follows `ratio` (0 to 1) of the calls that bring no trace of their own, and holds at most `room` spans.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(ratio: f64, room: usize, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, NoRandomness> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^53")]
        let below = (ratio.clamp(0.0, 1.0) * WHOLE as f64) as u64;
        let draws = AtomicU64::new(u64::from_le_bytes(random_bytes()?));
        let queue = Mutex::new(VecDeque::new());
        Ok(Self { below, draws, queue, room, ripe: Notify::new(), clock, metrics })
    }

    /// The call as it is followed, or `None` where it isn't. `method` is asked for its name then.
    pub fn begin(
        self: &Arc<Self>,
        headers: &HeaderMap,
        method: impl FnOnce() -> &'static str,
    ) -> Option<Call> {
        match TraceContext::read(headers) {
            Some(context) if context.sampled() => Call::begin(self, Some(&context), headers, method()),
            Some(_) => None,
            None if self.below > 0 && self.draw() < self.below => Call::begin(self, None, headers, method()),
            None => None,
        }
    }

    /// One of 2^53 with equal chance. Not for secrets: it decides what is looked at.
    fn draw(&self) -> u64 {
        let step = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        let mixed = (step ^ (step >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % WHOLE
    }

    /// Puts spans in the queue, as far as there is room.
    fn keep(&self, spans: impl ExactSizeIterator<Item = Span>) {
        let given = spans.len();
        let (held, taken) = {
            let mut queue = self.queue.lock();
            let taken = given.min(self.room.saturating_sub(queue.len()));
            queue.extend(spans.take(taken));
            (queue.len(), taken)
        };
        if taken < given {
            self.metrics.spans_dropped(given - taken);
        }
        if held >= BATCH {
            self.ripe.notify_one();
        }
    }

    /// The oldest spans, at most a message full.
    fn take(&self) -> Vec<Span> {
        let mut queue = self.queue.lock();
        let many = queue.len().min(BATCH);
        queue.drain(..many).collect()
    }
}

const WHOLE: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn tracer(ratio: f64, room: usize) -> Arc<Tracer> {
        let (clock, _hands) = Clock::manual(Timestamp::from_secs(1_900_000_000));
        Arc::new(Tracer::new(ratio, room, clock, Arc::new(Metrics::new())).unwrap())
    }

    fn headers(traceparent: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), traceparent.parse().unwrap())])
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    #[test]
    fn a_trace_s_own_word_goes_before_chance() {
        let (never, always) = (tracer(0.0, 8), tracer(1.0, 8));
        assert!(never.begin(&headers(&format!("{PARENT}1")), || "m").is_some());
        assert!(always.begin(&headers(&format!("{PARENT}0")), || "m").is_none());
        assert!(never.begin(&HeaderMap::new(), || "m").is_none());
        assert!(always.begin(&HeaderMap::new(), || "m").is_some());
        assert!(never.begin(&headers("junk"), || "m").is_none(), "what can't be read is no trace");
    }

    #[test]
    fn a_share_of_chance_is_about_that_share() {
        let tracer = tracer(0.1, 8);
        let followed = (0..100_000).filter(|_| tracer.draw() < tracer.below).count();
        assert!((9_000..11_000).contains(&followed), "{followed}");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let tracer = tracer(1.0, 3);
        for _ in 0..5 {
            drop(tracer.begin(&HeaderMap::new(), || "m"));
        }
        assert_eq!(tracer.take().len(), 3);
        let text = tracer.metrics.render();
        assert!(text.contains("countersign_trace_spans_total{result=\"dropped\"} 2\n"), "{text}");
    }
}
