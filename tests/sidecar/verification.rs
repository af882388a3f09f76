//! Verification.

use crate::support::Sidecar;

/// The sum of a metric's series that have all of these labels.
pub(crate) async fn counted(sidecar: &Sidecar, name: &str, has: &[&str]) -> f64 {
    let (_, metrics) = crate::lifecycle::get(&sidecar.ops, "/metrics").await;
    let of_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && has.iter().all(|part| line.contains(part))
    };
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    metrics.lines().filter(of_it).map(value).sum()
}
