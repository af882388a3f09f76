//! Bounds on one call: how long it may take, and how many may be under way.

use http::HeaderMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// What a caller allows a call to take: `grpc-timeout`, at most `ceiling`, and `ceiling` where there is none or none
/// that can be read.
#[must_use]
pub fn deadline(headers: &HeaderMap, ceiling: Duration) -> Duration {
    headers
        .get("grpc-timeout")
        .and_then(|value| parse_timeout(value.as_bytes()))
        .map_or(ceiling, |asked| asked.min(ceiling))
}

fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0_u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Calls under way on one worker. At the limit further ones are shed before any work is done.
#[derive(Clone, Debug)]
pub struct InFlight {
    count: Arc<AtomicUsize>,
    limit: usize,
}

impl InFlight {
    /// At most `limit` at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { count: Arc::new(AtomicUsize::new(0)), limit }
    }

    /// A place, or `None` at the limit.
    #[must_use]
    pub fn enter(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.count));
        (self.count.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(place)
    }
}

/// A call under way; ends when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `call`, and gives up after `allowed`. The timer is set only if the call does not answer at once, which a
/// verification from memory does.
pub fn within<F: Future>(allowed: Duration, call: F) -> Within<F> {
    Within { call, allowed, timer: None }
}

/// A call with its deadline. Resolves to `None` when that passes.
pub struct Within<F> {
    call: F,
    allowed: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.call).poll(context) {
            return Poll::Ready(Some(output));
        }
        let allowed = self.allowed;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(allowed)));
        timer.as_mut().poll(context).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &'static str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        deadline(&headers, Duration::from_secs(5))
    }

    #[test]
    fn a_caller_s_deadline_is_kept_up_to_the_ceiling() {
        assert_eq!(asked("250m"), Duration::from_millis(250));
        assert_eq!(asked("1S"), Duration::from_secs(1));
        assert_eq!(asked("99999999H"), Duration::from_secs(5));
        assert_eq!(deadline(&HeaderMap::new(), Duration::from_secs(5)), Duration::from_secs(5));
    }

    #[test]
    fn an_unreadable_deadline_is_the_ceiling() {
        for junk in ["", "S", "1", "-1S", "123456789S", "1x", "1.5S"] {
            assert_eq!(asked(junk), Duration::from_secs(5), "{junk:?}");
        }
    }

    #[test]
    fn at_the_limit_a_call_is_shed_and_its_place_is_not_lost() {
        let in_flight = InFlight::new(2);
        let first = in_flight.enter();
        let second = in_flight.enter();
        assert!(first.is_some() && second.is_some());
        assert!(in_flight.enter().is_none());
        assert!(in_flight.enter().is_none());
        drop(first);
        assert!(in_flight.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_does_not_answer_is_given_up() {
        let never = Box::pin(std::future::pending::<()>());
        assert_eq!(within(Duration::from_secs(1), never).await, None);
        assert_eq!(within(Duration::from_secs(1), std::future::ready(7)).await, Some(7));
    }
}
