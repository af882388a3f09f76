//! What is counted, under the names the operations manual promises.
//!
//! Every label's values are known before the first call arrives: constants of ours, and the configured issuers. So
//! no input makes the set of series grow, and no token, subject or key id can end up in one.

use crate::ops::striped::{Counter as Striped, Histogram};
use crate::ops::verifications::Verifications;
pub use crate::ops::verifications::{DENIED, UNDECIDED};
use crate::token::Reason;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = [(&'static str, &'static str); 1];
type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of the process. Shared as an `Arc`; every method is cheap and takes `&self`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    verifications: Arc<Verifications>,
    cache_hits: Striped,
    cache_misses: Striped,
    refresh: Family<Label, Counter>,
    refresh_fast_forward: Counter,
    refresh_ambiguous: Counter,
    revoke: Family<Label, Counter>,
    feed_resync: Family<Label, Counter>,
    feed_restored: Counter,
    feed_failures: Counter,
    clock_step: Family<Label, Counter>,
    jwks_fetch: Family<Vec<(&'static str, String)>, Counter>,
    jwks_age: Family<Vec<(&'static str, String)>, Seconds>,
    jwks_max_age: Family<Vec<(&'static str, String)>, Seconds>,
    staleness: Seconds,
    staleness_bound: Seconds,
    revision: Gauge<u64, AtomicU64>,
    denylist_entries: Gauge<u64, AtomicU64>,
    denylist_capacity_ratio: Gauge<f64, AtomicU64>,
    trace_spans: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything. Staleness starts at infinity: nothing was confirmed yet, and an alert must see that.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("countersign"),
            verifications: Arc::default(),
            cache_hits: Striped::default(),
            cache_misses: Striped::default(),
            refresh: Family::default(),
            refresh_fast_forward: Counter::default(),
            refresh_ambiguous: Counter::default(),
            revoke: Family::default(),
            feed_resync: Family::default(),
            feed_restored: Counter::default(),
            feed_failures: Counter::default(),
            clock_step: Family::default(),
            jwks_fetch: Family::default(),
            jwks_age: Family::default(),
            jwks_max_age: Family::default(),
            staleness: Seconds::default(),
            staleness_bound: Seconds::default(),
            revision: Gauge::default(),
            denylist_entries: Gauge::default(),
            denylist_capacity_ratio: Gauge::default(),
            trace_spans: Family::default(),
        };
        metrics.staleness.set(f64::INFINITY);
        metrics.begin_at_zero();
        metrics.registered()
    }

    /// What alerts ask for the increase of must be there before it increases.
    fn begin_at_zero(&self) {
        for result in ["ok", Reason::RefreshReused.as_str()] {
            let _zero = self.refresh.get_or_create(&[("result", result)]);
        }
        for direction in ["forward", "back"] {
            let _zero = self.clock_step.get_or_create(&[("direction", direction)]);
        }
        self.spans_sent(0, 0);
        self.spans_dropped(0);
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("build", "The running build", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register_collector(Box::new(Arc::clone(&self.verifications)));
        r.register("cache_hits", "Verifications found in the claims cache", self.cache_hits.clone());
        r.register("cache_misses", "Verifications not found in the claims cache", self.cache_misses.clone());
        r.register("refresh", "Refreshes by result", self.refresh.clone());
        r.register(
            "refresh_fast_forward",
            "Refresh tokens newer than the store, which went back in time",
            self.refresh_fast_forward.clone(),
        );
        r.register(
            "refresh_ambiguous",
            "Relayed refreshes sent after one of which nobody knows what came",
            self.refresh_ambiguous.clone(),
        );
        r.register("revoke", "Revocations by kind", self.revoke.clone());
        r.register("feed_resync", "Full reads of the revocation log by cause", self.feed_resync.clone());
        r.register(
            "feed_restored",
            "Entries given back to a log that had lost them",
            self.feed_restored.clone(),
        );
        r.register(
            "feed_failures",
            "Reads and writes of the revocation log that failed",
            self.feed_failures.clone(),
        );
        r.register("clock_step", "Steps of the wall clock by direction", self.clock_step.clone());
        r.register("jwks_fetch", "Key-set fetches by issuer and result", self.jwks_fetch.clone());
        r.register_with_unit(
            "jwks_age",
            "Time since an issuer's key set was last read whole",
            Unit::Seconds,
            self.jwks_age.clone(),
        );
        r.register_with_unit(
            "jwks_max_age",
            "How old an issuer's key set may become before answers are undecided",
            Unit::Seconds,
            self.jwks_max_age.clone(),
        );
        r.register_with_unit(
            "staleness_bound",
            "The tightest staleness bound of any policy and issuer",
            Unit::Seconds,
            self.staleness_bound.clone(),
        );
        r.register_with_unit(
            "staleness",
            "Time since the denylist was last confirmed complete",
            Unit::Seconds,
            self.staleness.clone(),
        );
        r.register("revision", "Sequence number the denylist has reached", self.revision.clone());
        r.register("denylist_entries", "Live denials held in memory", self.denylist_entries.clone());
        r.register(
            "denylist_capacity_ratio",
            "Share of the denylist's capacity in use",
            self.denylist_capacity_ratio.clone(),
        );
        r.register("trace_spans", "Spans of traces by what became of them", self.trace_spans.clone());
        self
    }

    /// Everything as OpenMetrics text ([`CONTENT_TYPE`]). Sampled gauges show what was last set.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string does not fail; if an encoder ever does, an exposition without its end marker is
            // one that no scraper takes for whole.
            Err(fmt::Error) => String::new(),
        }
    }

    /// Makes `issuer` known as a label and resolves the handle for its acceptances from `source` (`cache`,
    /// `signature`, `store`, `introspection`). To be called when verification is built, once per pair; calling it
    /// again gives a handle to the same series.
    #[must_use]
    pub fn verify_source(&self, issuer: &str, source: &'static str) -> VerifyOk {
        VerifyOk(self.verifications.accepted(issuer, source))
    }

    /// Counts a verification that was not accepted. `result` is [`DENIED`] or [`UNDECIDED`]; anything else counts as
    /// denied. An `issuer` that [`Self::verify_source`] was never called for counts under the empty one, so a caller
    /// may pass what a token claims to be from.
    pub fn verify_refused(&self, result: &'static str, reason: Reason, issuer: &str, took: Duration) {
        self.verifications.refused(result == UNDECIDED, reason, issuer, took);
    }

    /// Counts a verification that the claims cache answered.
    pub fn cache_hit(&self) {
        self.cache_hits.increment();
    }

    /// Counts a verification that the claims cache could not answer.
    pub fn cache_miss(&self) {
        self.cache_misses.increment();
    }

    /// Counts a refresh.
    pub fn refresh(&self, result: &'static str) {
        self.refresh.get_or_create(&[("result", result)]).inc();
    }

    /// Sets how many refreshes found the store behind the presented generation. Their own room counts them.
    pub fn set_refresh_fast_forwards(&self, count: u64) {
        self.refresh_fast_forward.inner().store(count, Ordering::Relaxed);
    }

    /// Sets how many relayed refreshes were sent after one of which nobody knows what came.
    pub fn set_refresh_ambiguous(&self, count: u64) {
        self.refresh_ambiguous.inner().store(count, Ordering::Relaxed);
    }

    /// Counts a revocation.
    pub fn revoke(&self, kind: &'static str) {
        self.revoke.get_or_create(&[("kind", kind)]).inc();
    }

    /// Sets how many full reads of the revocation log there were for a cause. The feed counts them.
    pub fn set_feed_resyncs(&self, cause: &'static str, count: u64) {
        self.feed_resync.get_or_create(&[("cause", cause)]).inner().store(count, Ordering::Relaxed);
    }

    /// Sets how many entries were given back to the log, and how many of its reads and writes failed. The feed counts
    /// them.
    pub fn set_feed(&self, restored: u64, failures: u64) {
        self.feed_restored.inner().store(restored, Ordering::Relaxed);
        self.feed_failures.inner().store(failures, Ordering::Relaxed);
    }

    /// Counts a step of the wall clock.
    pub fn clock_step(&self, direction: &'static str) {
        self.clock_step.get_or_create(&[("direction", direction)]).inc();
    }

    /// Sets how many fetches of a configured issuer's key set were good and bad. The key ring counts them.
    pub fn set_jwks_fetches(&self, issuer: &str, good: u64, bad: u64) {
        for (result, count) in [("ok", good), ("failed", bad)] {
            let labels = vec![("issuer", issuer.to_owned()), ("result", result.to_owned())];
            self.jwks_fetch.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
        }
    }

    /// Sets how old a configured issuer's key set is; `None` when it was never read, which shows as infinity.
    pub fn set_jwks_age(&self, issuer: &str, age: Option<Duration>) {
        self.jwks_age.get_or_create(&vec![("issuer", issuer.to_owned())]).set(seconds(age));
    }

    /// Sets the tightest staleness bound of any policy and issuer.
    pub fn set_staleness_bound(&self, bound: Duration) {
        self.staleness_bound.set(bound.as_secs_f64());
    }

    /// Sets how old a configured issuer's key set may become.
    pub fn set_jwks_max_age(&self, issuer: &str, bound: Duration) {
        self.jwks_max_age.get_or_create(&vec![("issuer", issuer.to_owned())]).set(bound.as_secs_f64());
    }

    /// Sets how long ago the denylist was confirmed; `None` when it never was, which shows as infinity.
    pub fn set_staleness(&self, staleness: Option<Duration>) {
        self.staleness.set(seconds(staleness));
    }

    /// Sets the sequence number the denylist has reached. The epoch is not shown: it only names a log.
    pub fn set_revision(&self, seq: u64) {
        self.revision.set(seq);
    }

    /// Counts spans that a collector took, and spans that it was not brought to take.
    pub fn spans_sent(&self, exported: usize, failed: usize) {
        self.spans("exported", exported);
        self.spans("failed", failed);
    }

    /// Counts spans that found no room in the queue.
    pub fn spans_dropped(&self, count: usize) {
        self.spans("dropped", count);
    }

    fn spans(&self, result: &'static str, count: usize) {
        self.trace_spans.get_or_create(&[("result", result)]).inc_by(count as u64);
    }

    /// Sets how full the denylist is.
    pub fn set_denylist(&self, entries: usize, capacity_ratio: f64) {
        self.denylist_entries.set(entries as u64);
        self.denylist_capacity_ratio.set(capacity_ratio);
    }
}

fn seconds(duration: Option<Duration>) -> f64 {
    duration.map_or(f64::INFINITY, |duration| duration.as_secs_f64())
}

/// Counts acceptances for one issuer and source. Clones count together.
#[derive(Clone, Debug)]
pub struct VerifyOk(Arc<Histogram>);

impl VerifyOk {
    /// Counts an acceptance that took this long: two relaxed additions, no lock, no allocation.
    pub fn record(&self, took: Duration) {
        self.0.observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MS: Duration = Duration::from_millis(1);

    /// Touches every metric once.
    fn touched() -> Metrics {
        let metrics = Metrics::new();
        metrics.verify_source("https://a.example", "cache").record(MS);
        metrics.verify_refused(DENIED, Reason::Expired, "https://a.example", MS);
        metrics.cache_hit();
        metrics.cache_miss();
        metrics.refresh("ok");
        metrics.set_refresh_fast_forwards(1);
        metrics.revoke("session");
        metrics.set_feed_resyncs("start", 1);
        metrics.set_feed(2, 1);
        metrics.clock_step("back");
        metrics.set_jwks_fetches("https://a.example", 1, 0);
        metrics.set_jwks_age("https://a.example", Some(MS));
        metrics.set_jwks_max_age("https://a.example", MS);
        metrics.set_staleness_bound(MS);
        metrics.set_staleness(Some(MS));
        metrics.set_revision(7);
        metrics.set_denylist(3, 0.5);
        metrics
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|l| l == line)
    }

    #[test]
    fn the_names_are_those_of_the_manual() {
        let text = touched().render();
        let names: BTreeSet<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .collect();
        let expected = BTreeSet::from([
            "countersign_build_info",
            "countersign_cache_hits_total",
            "countersign_cache_misses_total",
            "countersign_clock_step_total",
            "countersign_denylist_capacity_ratio",
            "countersign_denylist_entries",
            "countersign_feed_failures_total",
            "countersign_feed_resync_total",
            "countersign_feed_restored_total",
            "countersign_jwks_age_seconds",
            "countersign_jwks_fetch_total",
            "countersign_jwks_max_age_seconds",
            "countersign_refresh_fast_forward_total",
            "countersign_refresh_ambiguous_total",
            "countersign_refresh_total",
            "countersign_revision",
            "countersign_revoke_total",
            "countersign_staleness_bound_seconds",
            "countersign_staleness_seconds",
            "countersign_trace_spans_total",
            "countersign_verify_duration_seconds_bucket",
            "countersign_verify_duration_seconds_count",
            "countersign_verify_duration_seconds_sum",
            "countersign_verify_total",
        ]);
        assert_eq!(names, expected);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_verification_is_counted_with_its_four_labels() {
        let text = touched().render();
        let ok =
            r#"countersign_verify_total{result="ok",reason="",issuer="https://a.example",source="cache"} 1"#;
        let no = r#"countersign_verify_total{result="denied",reason="EXPIRED",issuer="https://a.example",source=""} 1"#;
        assert!(has(&text, ok), "{text}");
        assert!(has(&text, no), "{text}");
        let count = r#"countersign_verify_duration_seconds_count{result="ok",source="cache"} 1"#;
        assert!(has(&text, count), "{text}");
        let bucket = r#"countersign_verify_duration_seconds_bucket{le="0.001",result="ok",source="cache"} 1"#;
        assert!(has(&text, bucket), "{text}");
    }

    #[test]
    fn an_issuer_made_up_by_a_token_makes_no_series() {
        let metrics = Metrics::new();
        for n in 0..1_000 {
            metrics.verify_refused(DENIED, Reason::UnknownIssuer, &format!("https://{n}.evil.example"), MS);
        }
        let text = metrics.render();
        assert!(!text.contains("evil"));
        let line =
            r#"countersign_verify_total{result="denied",reason="UNKNOWN_ISSUER",issuer="",source=""} 1000"#;
        assert!(has(&text, line), "{text}");
    }

    #[test]
    fn an_issuer_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        metrics.verify_source("a\"} 1\nforged 1", "cache").record(MS);
        assert!(!metrics.render().lines().any(|line| line.starts_with("forged")));
    }

    #[test]
    fn what_was_never_confirmed_is_infinitely_stale() {
        let text = Metrics::new().render();
        assert!(has(&text, "countersign_staleness_seconds inf"), "{text}");
    }

    #[test]
    fn asking_for_a_handle_twice_counts_in_one_series() {
        let metrics = Metrics::new();
        metrics.verify_source("i", "store").record(MS);
        metrics.verify_source("i", "store").record(MS);
        let line = r#"countersign_verify_total{result="ok",reason="",issuer="i",source="store"} 2"#;
        assert!(has(&metrics.render(), line));
    }

    #[test]
    fn every_reason_has_its_own_counter() {
        let metrics = Metrics::new();
        for (times, reason) in Reason::ALL.iter().enumerate() {
            for _ in 0..=times {
                metrics.verify_refused(UNDECIDED, *reason, "", MS);
            }
        }
        let text = metrics.render();
        for (times, reason) in Reason::ALL.iter().enumerate() {
            let line = format!(
                r#"countersign_verify_total{{result="undecided",reason="{reason}",issuer="",source=""}} {}"#,
                times + 1
            );
            assert!(has(&text, &line), "{line}");
        }
    }
}
