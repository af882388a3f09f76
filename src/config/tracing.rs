//! `tracing`: where spans of calls go.

use super::reader::{Content, Section};
use super::scalar;
use std::path::PathBuf;
use std::time::Duration;

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The collector: `http://…` or `https://…`, without a path.
    pub endpoint: String,
    /// The share of calls without a trace of their own that is followed, 0 to 1.
    pub ratio: f64,
    /// `service.name`.
    pub service_name: String,
    /// `NAME: VALUE` lines, sent with each message.
    pub headers_file: Option<PathBuf>,
    /// Authorities for the collector's certificate; by default the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one message may take.
    pub timeout: Duration,
    /// Spans held at most.
    pub queue: usize,
    /// How often they are sent.
    pub send_every: Duration,
}

/// Reads `tracing`.
pub(super) fn read_tracing(section: &Section<'_>) -> Tracing {
    let endpoint = section.parsed("endpoint", scalar::collector_url).unwrap_or_default();
    let headers_file = section.file("headers_file", Content::Secret);
    if headers_file.is_some() && !endpoint.is_empty() && scalar::key_url(&endpoint).is_err() {
        section.fault_hinting(
            "headers_file",
            "headers would cross the network in clear",
            "use an https `endpoint`, or a collector on loopback",
        );
    }
    let spell = Duration::from_millis(100)..=Duration::from_secs(60);
    Tracing {
        endpoint,
        ratio: section.parsed("ratio", scalar::fraction).unwrap_or_default(),
        service_name: section.text("service_name").unwrap_or_default(),
        headers_file,
        ca_file: section.file("ca_file", Content::Public),
        timeout: section.duration("timeout", spell.clone()).unwrap_or_default(),
        queue: section.count("queue", 16..=1_000_000).unwrap_or_default(),
        send_every: section.duration("send_every", spell).unwrap_or_default(),
    }
}
