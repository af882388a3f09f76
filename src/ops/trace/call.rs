//! One call that is followed: its server span, and a child for each time it waits.

use super::Tracer;
use super::context::{self, TraceContext};
use super::otlp::{INTERNAL, KeyValue, REMOTE, REMOTE_KNOWN, SERVER, Span, SpanStatus};
use crate::token::{Issuer, random_bytes};
use http::HeaderMap;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

tokio::task_local! {
    static CURRENT: Arc<Following>;
}

/// Children of one call at most; a loop of reads must not make a message grow.
const MOST_CHILDREN: usize = 32;
/// Sampled, and the id made by chance.
const NEW_TRACE: u8 = 0b11;

/// A call under way that is followed. Its span ends when this is dropped.
#[derive(Debug)]
pub struct Call(Arc<Following>);

#[derive(Debug)]
struct Following {
    tracer: Arc<Tracer>,
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
    flags: u8,
    state: String,
    method: &'static str,
    /// Nanoseconds since the epoch at the call's begin, and the counted time then.
    begun: u64,
    begun_at: Duration,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    code: Option<Code>,
    reason: Option<String>,
    issuer: Option<Issuer>,
    source: Option<&'static str>,
    waits: Vec<Wait>,
}

#[derive(Debug)]
struct Wait {
    what: &'static str,
    begun: u64,
    ended: u64,
}

impl Call {
    /// `None` where the system gives no randomness for ids.
    pub(super) fn begin(
        tracer: &Arc<Tracer>,
        context: Option<&TraceContext>,
        headers: &HeaderMap,
        method: &'static str,
    ) -> Option<Self> {
        let now = tracer.clock.now();
        let trace = match context {
            Some(context) => context.trace,
            None => random_bytes().ok()?,
        };
        Some(Self(Arc::new(Following {
            trace,
            span: random_bytes().ok()?,
            parent: context.map(|context| context.parent),
            flags: context.map_or(NEW_TRACE, |context| context.flags),
            state: context.map(|_| context::state(headers)).unwrap_or_default(),
            method,
            begun: now.judged.as_millis().saturating_mul(1_000_000),
            begun_at: now.elapsed,
            noted: Mutex::default(),
            tracer: Arc::clone(tracer),
        })))
    }

    /// Runs `work` as this call's, so that [`note`] and [`waiting`] know of it.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(Arc::clone(&self.0), work)
    }

    /// How it ended, and for which reason of ours. Without it, it was cancelled.
    pub fn ended(&self, code: Code, reason: Option<String>) {
        let mut noted = self.0.noted.lock();
        noted.code = Some(code);
        noted.reason = reason.or(noted.reason.take());
    }
}

/// Notes on the call that this code runs for, where it is followed, whose credential it was and where the answer is from.
pub fn note(issuer: Option<&Issuer>, source: Option<&'static str>) {
    let noting = |call: &Arc<Following>| {
        let mut noted = call.noted.lock();
        noted.issuer = issuer.map(Arc::clone);
        noted.source = source;
    };
    // Outside of a followed call there is nothing to note.
    let _ = CURRENT.try_with(noting);
}

/// The same of the reason why not, where the answer says so within an OK.
pub fn note_reason(reason: &str) {
    let _ = CURRENT.try_with(|call| call.noted.lock().reason = Some(reason.to_owned()));
}

/// Runs what a call waits for, as a child of its span where the call is followed.
pub async fn waiting<F: Future>(what: &'static str, work: F) -> F::Output {
    let Ok(call) = CURRENT.try_with(Arc::clone) else { return work.await };
    let begun = call.now();
    // Noted when dropped, so that what a deadline cuts is there, too.
    let _wait = Waiting { call, what, begun };
    work.await
}

struct Waiting {
    call: Arc<Following>,
    what: &'static str,
    begun: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let wait = Wait { what: self.what, begun: self.begun, ended: self.call.now() };
        let mut noted = self.call.noted.lock();
        if noted.waits.len() < MOST_CHILDREN {
            noted.waits.push(wait);
        }
    }
}

impl Following {
    fn now(&self) -> u64 {
        let passed = self.tracer.clock.elapsed().saturating_sub(self.begun_at);
        self.begun.saturating_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
    }

    fn span(&self, id: [u8; 8], parent: Option<[u8; 8]>, remote: bool) -> Span {
        Span {
            trace_id: self.trace.to_vec(),
            span_id: id.to_vec(),
            trace_state: self.state.clone(),
            parent_span_id: parent.map(|id| id.to_vec()).unwrap_or_default(),
            flags: u32::from(self.flags) | REMOTE_KNOWN | if remote { REMOTE } else { 0 },
            ..Span::default()
        }
    }

    fn server_span(&self, noted: &Noted) -> Span {
        let code = noted.code.unwrap_or(Code::Cancelled);
        let mut attributes = vec![
            KeyValue::text("rpc.system.name", "grpc"),
            KeyValue::text("rpc.method", self.method),
            KeyValue::text("rpc.response.status_code", name(code)),
        ];
        if is_ours_to_mend(code) {
            attributes.push(KeyValue::text("error.type", name(code)));
        }
        let more = [
            ("countersign.reason", noted.reason.as_deref()),
            ("countersign.issuer", noted.issuer.as_deref()),
            ("countersign.source", noted.source),
        ];
        attributes.extend(more.into_iter().filter_map(|(key, value)| Some(KeyValue::text(key, value?))));
        Span {
            name: self.method.to_owned(),
            kind: SERVER,
            start_time_unix_nano: self.begun,
            end_time_unix_nano: self.now(),
            attributes,
            status: is_ours_to_mend(code).then_some(SpanStatus::ERROR),
            ..self.span(self.span, self.parent, self.parent.is_some())
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let noted = std::mem::take(&mut *self.0.noted.lock());
        let mut spans = vec![self.0.server_span(&noted)];
        for wait in &noted.waits {
            let Ok(id) = random_bytes() else { break };
            spans.push(Span {
                name: wait.what.to_owned(),
                kind: INTERNAL,
                start_time_unix_nano: wait.begun,
                end_time_unix_nano: wait.ended,
                ..self.0.span(id, Some(self.0.span), false)
            });
        }
        self.0.tracer.keep(spans.into_iter());
    }
}

/// The codes that the conventions count as a server's errors; a denial is an answer.
const fn is_ours_to_mend(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}

const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
