//! Sends spans to a collector: OTLP over gRPC, a message at a time, from one background task.
//!
//! A collector that is away costs memory up to the queue's bound and nothing else: a message is tried a few times with
//! growing pauses, then given up and counted.

use super::otlp::{ExportRequest, ExportResponse, Span};
use super::{BATCH, Tracer};
use crate::token::{NoRandomness, random_bytes};
use http::uri::PathAndQuery;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
/// Times a message is sent before it is given up.
const ATTEMPTS: u32 = 4;
/// The pause after the first; doubled after each.
const PAUSE: Duration = Duration::from_secs(1);
/// What is left is sent within this when the sidecar ends.
const LAST: Duration = Duration::from_secs(2);
/// A file of headers is no larger.
const LARGEST_HEADERS: u64 = 16 * 1024;

/// How spans are sent.
#[derive(Debug)]
pub struct ExporterSettings {
    /// To whom; may connect lazily.
    pub channel: Channel,
    /// `service.name`.
    pub service: Arc<str>,
    /// `NAME: VALUE` lines sent along, read before each message.
    pub headers_file: Option<PathBuf>,
    /// How long one message may take.
    pub timeout: Duration,
    /// How often what there is is sent, if no message is full before.
    pub send_every: Duration,
}

/// Sends what a [`Tracer`] holds.
pub struct Exporter {
    tracer: Arc<Tracer>,
    settings: ExporterSettings,
    instance: String,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("service", &self.settings.service).finish_non_exhaustive()
    }
}

/// Why a file of headers can't be used. Says no value.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// It can't be read.
    #[error("can't be read")]
    Unreadable(#[source] std::io::Error),
    /// It is larger than 16 KiB.
    #[error("larger than 16 KiB")]
    TooLarge,
    /// A line, counted from 1, is no `NAME: VALUE` that gRPC can send.
    #[error("line {0} is not `NAME: VALUE` with a lower-case name that gRPC may send")]
    Line(usize),
}

/// Reads a file of headers. Blocks on the file system.
///
/// # Errors
/// [`HeadersError`].
pub fn read_headers(file: &std::path::Path) -> Result<MetadataMap, HeadersError> {
    let length = std::fs::metadata(file).map_err(HeadersError::Unreadable)?.len();
    if length > LARGEST_HEADERS {
        return Err(HeadersError::TooLarge);
    }
    let text = std::fs::read_to_string(file).map_err(HeadersError::Unreadable)?;
    let mut headers = MetadataMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let wrong = || HeadersError::Line(index + 1);
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: MetadataKey<Ascii> = name.trim().parse().map_err(|_| wrong())?;
        let mut value: MetadataValue<Ascii> = value.trim().parse().map_err(|_| wrong())?;
        // Kept out of Debug and of the header table.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

impl Exporter {
    /// For one tracer.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(tracer: Arc<Tracer>, settings: ExporterSettings) -> Result<Self, NoRandomness> {
        let instance = format!("{:032x}", u128::from_be_bytes(random_bytes()?));
        Ok(Self { tracer, settings, instance })
    }

    /// Sends until `cancel`, then what is left, within two seconds.
    pub async fn run(self, cancel: CancellationToken) {
        let mut away = false;
        while !cancel.is_cancelled() {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.tracer.ripe.notified() => {}
                () = tokio::time::sleep(self.settings.send_every) => {}
            }
            while !cancel.is_cancelled() {
                let spans = self.tracer.take();
                let last = spans.len() < BATCH;
                self.send(spans, &cancel, &mut away).await;
                if last {
                    break;
                }
            }
        }
        let rest = async {
            loop {
                let spans = self.tracer.take();
                if spans.is_empty() {
                    return;
                }
                self.send(spans, &cancel, &mut away).await;
            }
        };
        if tokio::time::timeout(LAST, rest).await.is_err() {
            tracing::warn!("the last spans were not taken in time");
            loop {
                let left = self.tracer.take().len();
                if left == 0 {
                    return;
                }
                self.tracer.metrics.spans_sent(0, left);
            }
        }
    }

    /// Sends one message, again where that may help, but not once the sidecar ends.
    async fn send(&self, spans: Vec<Span>, cancel: &CancellationToken, away: &mut bool) {
        if spans.is_empty() {
            return;
        }
        let count = spans.len();
        let message = ExportRequest::new(&self.settings.service, &self.instance, spans);
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let sending = tokio::time::timeout(self.settings.timeout, self.attempt(message.clone()));
            // An end that comes meanwhile waits no longer than for the last ones.
            let ended = async {
                cancel.cancelled().await;
                tokio::time::sleep(LAST / 2).await;
            };
            let sent = tokio::select! {
                sent = sending => sent,
                () = ended => Ok(Err(Status::deadline_exceeded(""))),
            };
            let status = match sent {
                Ok(Ok(rejected)) => {
                    if std::mem::take(away) {
                        tracing::info!("the collector takes spans again");
                    }
                    self.tracer.metrics.spans_sent(count - rejected.min(count), rejected.min(count));
                    return;
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(""),
            };
            if !std::mem::replace(away, true) {
                // The code alone: a collector's words are its own, and might repeat what it was sent.
                tracing::warn!(code = ?status.code(), "the collector takes no spans; calls are not affected");
            }
            if attempt == ATTEMPTS || !may_help(status.code()) || cancel.is_cancelled() {
                break;
            }
            let _ended = cancel.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause *= 2;
        }
        self.tracer.metrics.spans_sent(0, count);
    }

    /// How many were rejected.
    async fn attempt(&self, message: ExportRequest) -> Result<usize, Status> {
        let mut request = Request::new(message);
        if let Some(file) = self.settings.headers_file.clone() {
            let read = tokio::task::spawn_blocking(move || read_headers(&file)).await;
            let headers = read.map_err(|_| Status::unavailable(""))?;
            *request.metadata_mut() = headers.map_err(|error| {
                tracing::warn!(%error, "the collector's headers can't be used");
                Status::unavailable("")
            })?;
        }
        let mut client = Grpc::new(self.settings.channel.clone());
        client.ready().await.map_err(|_| Status::unavailable(""))?;
        let codec: ProstCodec<ExportRequest, ExportResponse> = ProstCodec::default();
        let answer = client.unary(request, EXPORT, codec).await?.into_inner();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or(0))
    }
}

/// Whether the protocol lets a message be sent again after this.
const fn may_help(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MetadataMap, HeadersError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("headers");
        std::fs::write(&file, text).unwrap();
        read_headers(&file)
    }

    #[test]
    fn headers_are_read_and_not_shown() {
        let headers = read("authorization: Bearer a:b\n\nx-tenant: 7\n").unwrap();
        assert_eq!(headers.get("authorization").unwrap().to_str().unwrap(), "Bearer a:b");
        assert_eq!(headers.len(), 2);
        assert!(!format!("{headers:?}").contains("a:b"));
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_not_shown() {
        for bad in ["x: 1\nsecret", "x: 1\nsecret-bin: AAAA", "x: 1\nsec ret: 1", "x: 1\nx: \u{7f}secret"] {
            let error = read(bad).unwrap_err();
            assert!(matches!(error, HeadersError::Line(2)), "{bad:?}");
            assert!(!error.to_string().contains("sec"), "{error}");
        }
        assert!(matches!(read(&"x".repeat(20_000)), Err(HeadersError::TooLarge)));
    }
}
