//! Counters that several worker threads add to without meeting on a cache line.
//!
//! The client library's histogram takes a mutex for each observation, and a shared atomic bounces between cores. A
//! verification from the cache takes a few microseconds in all, so what it counts is spread over stripes, one per
//! thread as far as they go round, and summed up when somebody looks.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const STRIPES: usize = 4;

/// Upper bounds of the buckets, in nanoseconds, inclusive: 1 µs to 1 s. What is slower falls in one more.
const BOUNDS: [u64; 19] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;
const NANOS_PER_SECOND: f64 = 1e9;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = NEXT.fetch_add(1, Relaxed) % STRIPES;
}

/// The calling thread's own among `stripes`.
fn own<T>(stripes: &[T; STRIPES]) -> Option<&T> {
    stripes.get(STRIPE.with(|stripe| *stripe))
}

/// A counter. Clones share the count.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<[CounterStripe; STRIPES]>);

// Two lines apart: processors fetch cache lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct CounterStripe(AtomicU64);

impl Counter {
    /// Counts one.
    pub(super) fn increment(&self) {
        if let Some(stripe) = own(&self.0) {
            stripe.0.fetch_add(1, Relaxed);
        }
    }

    /// All that was counted so far.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Relaxed)).sum()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.total()).finish()
    }
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::NoLabelSet;
        encoder.encode_counter::<NoLabelSet, u64, u64>(&self.total(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A distribution of durations. To observe one is two relaxed additions on the thread's own cache lines.
#[derive(Default)]
pub(super) struct Histogram([HistogramStripe; STRIPES]);

#[derive(Default)]
#[repr(align(128))]
struct HistogramStripe {
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        if let Some(stripe) = own(&self.0) {
            stripe.nanos.fetch_add(nanos, Relaxed);
            if let Some(bucket) = stripe.buckets.get(bucket) {
                bucket.fetch_add(1, Relaxed);
            }
        }
    }

    /// How many were observed so far.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().flat_map(|stripe| &stripe.buckets).map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Adds what was observed so far to `sum`.
    pub(super) fn add_to(&self, sum: &mut Distribution) {
        for stripe in &self.0 {
            sum.nanos = sum.nanos.wrapping_add(stripe.nanos.load(Relaxed));
            for (to, from) in sum.buckets.iter_mut().zip(&stripe.buckets) {
                *to += from.load(Relaxed);
            }
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.count()).finish()
    }
}

/// What one or several histograms observed, ready to be written out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distribution {
    nanos: u64,
    buckets: [u64; BUCKETS],
}

impl Distribution {
    /// Writes the distribution out in seconds.
    pub(super) fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::NoLabelSet;
        let bounds = BOUNDS.iter().map(|nanos| seconds(*nanos)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets).collect();
        let count = self.buckets.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(self.nanos), count, &buckets, None)
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(durations: &[Duration]) -> Distribution {
        let histogram = Histogram::default();
        for took in durations {
            histogram.observe(*took);
        }
        let mut sum = Distribution::default();
        histogram.add_to(&mut sum);
        sum
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_it_closes() {
        let sum = distribution(&[Duration::ZERO, Duration::from_nanos(1_000), Duration::from_nanos(1_001)]);
        assert_eq!(sum.buckets[..3], [2, 1, 0]);
        assert_eq!(sum.nanos, 2_001);
    }

    #[test]
    fn what_is_slower_than_the_last_bound_is_counted_too() {
        let sum = distribution(&[Duration::from_secs(1), Duration::from_secs(2), Duration::MAX]);
        assert_eq!(sum.buckets[BUCKETS - 2..], [1, 2]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let counter = Counter::default();
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..9 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counter.increment();
                        histogram.observe(Duration::from_micros(3));
                    }
                });
            }
        });
        assert_eq!(counter.total(), 9_000);
        assert_eq!(histogram.count(), 9_000);
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
