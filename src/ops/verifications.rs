//! The two metrics of verification itself, which are counted on the path that has to be fast.

use crate::ops::striped::{Distribution, Histogram};
use crate::token::Reason;
use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const OK: &str = "ok";
/// The `result` of a definite no.
pub const DENIED: &str = "denied";
/// The `result` of a verification that could not be decided.
pub const UNDECIDED: &str = "undecided";

/// `countersign_verify_total` and `countersign_verify_duration_seconds`. An acceptance is written once, into the
/// distribution of its issuer and source; the counter is that distribution's count.
#[derive(Debug)]
pub(super) struct Verifications {
    issuers: RwLock<BTreeMap<Box<str>, IssuerSeries>>,
    denied: Histogram,
    undecided: Histogram,
}

#[derive(Debug, Default)]
struct IssuerSeries {
    accepted: BTreeMap<&'static str, Arc<Histogram>>,
    denied: ByReason,
    undecided: ByReason,
}

/// One counter per reason, in the order of [`Reason::ALL`].
#[derive(Debug)]
struct ByReason([AtomicU64; Reason::ALL.len()]);

impl Default for ByReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Default for Verifications {
    fn default() -> Self {
        let nobody = (Box::from(""), IssuerSeries::default());
        Self {
            issuers: RwLock::new(BTreeMap::from([nobody])),
            denied: Histogram::default(),
            undecided: Histogram::default(),
        }
    }
}

impl Verifications {
    /// The series of acceptances for this issuer, made known by this, from this source.
    pub(super) fn accepted(&self, issuer: &str, source: &'static str) -> Arc<Histogram> {
        let mut issuers = self.issuers.write();
        let series = issuers.entry(issuer.into()).or_default();
        Arc::clone(series.accepted.entry(source).or_default())
    }

    /// Counts a refusal; an unknown issuer's under the empty one.
    pub(super) fn refused(&self, undecided: bool, reason: Reason, issuer: &str, took: Duration) {
        if undecided { &self.undecided } else { &self.denied }.observe(took);
        let issuers = self.issuers.read();
        let Some(series) = issuers.get(issuer).or_else(|| issuers.get("")) else { return };
        let counts = if undecided { &series.undecided } else { &series.denied };
        if let Some(count) = counts.0.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn encode_total(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Verifications by result, reason, issuer and source";
        let mut encoder = encoder.encode_descriptor("verify", help, None, MetricType::Counter)?;
        let mut row = |result: &str, reason: &str, issuer: &str, source: &str, count: u64| {
            let labels = [("result", result), ("reason", reason), ("issuer", issuer), ("source", source)];
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)
        };
        for (issuer, series) in self.issuers.read().iter() {
            for (source, took) in &series.accepted {
                row(OK, "", issuer, source, took.count())?;
            }
            for (result, counts) in [(DENIED, &series.denied), (UNDECIDED, &series.undecided)] {
                for (reason, count) in Reason::ALL.iter().zip(&counts.0) {
                    match count.load(Relaxed) {
                        0 => {}
                        count => row(result, reason.as_str(), issuer, "", count)?,
                    }
                }
            }
        }
        Ok(())
    }

    fn encode_duration(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time one verification took, by result and source";
        let unit = Some(&Unit::Seconds);
        let mut encoder = encoder.encode_descriptor("verify_duration", help, unit, MetricType::Histogram)?;
        let mut sums: BTreeMap<(&str, &str), Distribution> = BTreeMap::new();
        for series in self.issuers.read().values() {
            for (source, took) in &series.accepted {
                took.add_to(sums.entry((OK, source)).or_default());
            }
        }
        self.denied.add_to(sums.entry((DENIED, "")).or_default());
        self.undecided.add_to(sums.entry((UNDECIDED, "")).or_default());
        for ((result, source), sum) in sums {
            sum.encode(&mut encoder.encode_family(&[("result", result), ("source", source)])?)?;
        }
        Ok(())
    }
}

impl Collector for Verifications {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_total(&mut encoder)?;
        self.encode_duration(&mut encoder)
    }
}
