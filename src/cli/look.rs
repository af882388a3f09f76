//! `countersign inspect`: prints what can be said about a token offline.

use crate::cli::inspect::inspect;
use crate::cli::output::Output;
use crate::cli::{NO, YES};
use crate::clock::Clock;

/// The exit code is "no" where a verification would refuse the token under any configuration.
pub(crate) fn run(token: &str, output: &Output) -> u8 {
    let report = inspect(token, Clock::system().now().judged);
    output.line(report.to_string().trim_end());
    if report.refusals.iter().any(|refusal| refusal.always) { NO } else { YES }
}
