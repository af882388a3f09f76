//! An error of ours logs nobody out: whatever is denied has a cause in what clients did.

use super::cuts::spares;
use super::{Index, Rule, STAMP, Violation};
use crate::history::{Answer, Call, Kind, Loss, SessionNo, Target, TokenNo, What};
use std::time::Duration;

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    for session in index.sessions() {
        for (number, call) in index.calls(session) {
            let Answer::Denied(reason) = &call.answer else { continue };
            let rule = match (reason.as_str(), &call.what) {
                (_, What::Verify { token, .. }) if by_the_clock(index, *token, call, reason) => None,
                ("NO_SUCH_SESSION", What::Update { .. }) if stepped_by(index, call.span.ended) => None,
                ("REVOKED" | "SESSION_ENDED" | "SESSION_IDLE", What::Verify { token, .. }) => {
                    (!may_be_dead(index, session, Some(*token), call)).then_some(Rule::DiedWithoutCause)
                }
                ("REVOKED" | "SESSION_ENDED" | "SESSION_IDLE" | "REFRESH_REUSED", What::Refresh { .. })
                | ("NO_SUCH_SESSION", What::Update { .. }) => {
                    (!may_be_dead(index, session, None, call)).then_some(Rule::DiedWithoutCause)
                }
                ("STALE_CLAIMS", What::Verify { token, .. }) => {
                    (!may_be_stale(index, session, *token, call)).then_some(Rule::StaleWithoutCause)
                }
                _ => Some(Rule::WrongDenial),
            };
            found.extend(rule.map(|rule| Violation { rule, calls: vec![number] }));
        }
    }
}

/// A clock that stands wrong ends what it takes to be over, while it does; what is made by it is too young once it is right.
fn by_the_clock(index: &Index<'_>, token: TokenNo, call: &Call, reason: &str) -> bool {
    match reason {
        "EXPIRED" | "SESSION_IDLE" | "SESSION_ENDED" => !call.probe && stepped_by(index, call.span.ended),
        "NOT_YET_VALID" => stepped_by(index, index.history.tokens[token.0].made.ended),
        _ => false,
    }
}

fn stepped_by(index: &Index<'_>, then: Duration) -> bool {
    index.history.steps.iter().any(|at| *at <= then)
}

/// When an effect of the call can have come at the latest.
fn latest(call: &Call) -> Duration {
    match call.answer {
        Answer::Lost(_) | Answer::Undecided(_) => Duration::MAX,
        _ => call.span.ended,
    }
}

fn may_be_dead(index: &Index<'_>, session: SessionNo, token: Option<TokenNo>, denied: &Call) -> bool {
    let opened = index.history.sessions[session.0].opened;
    let revoked = index.calls(session).any(|(_, call)| {
        let What::Revoke(target) = &call.what else { return false };
        let hits = match target {
            Target::Token(only) => Some(*only) == token,
            Target::Session(_) => true,
            Target::Subject { .. } | Target::Issuer => {
                !spares(target, session) && opened.began < latest(call)
            }
        };
        hits && call.span.began < denied.span.ended
    });
    // The session itself was written after what the store went back to.
    let forgotten = index.lost(opened.ended, true, denied.span.ended).is_some();
    revoked || forgotten || misused(index, session, denied.span.ended)
}

/// Whether a refresh token was presented, before then, by a client that does not keep to the rules: a second time, and not
/// certainly within the grace window of the first time it was exchanged.
fn misused(index: &Index<'_>, session: SessionNo, before: Duration) -> bool {
    let presented: Vec<_> = index
        .calls(session)
        .filter_map(|(_, call)| {
            let What::Refresh { token } = call.what else { return None };
            let Kind::Refresh { generation } = index.kind(token) else { return None };
            // One that comes back itself was not exchanged.
            let young = call.answer == Answer::Refreshed { generation };
            (call.span.began < before && !young).then_some((generation, call.span))
        })
        .collect();
    presented.iter().enumerate().any(|(this, (generation, span))| {
        presented.iter().enumerate().any(|(other, (same, first))| {
            let stepped = index.history.steps.iter().any(|at| first.began <= *at && *at <= span.ended);
            other != this
                && same == generation
                && first.began < span.ended
                && (stepped || span.ended + STAMP >= first.began + index.history.grace)
        })
    })
}

fn may_be_stale(index: &Index<'_>, session: SessionNo, token: TokenNo, denied: &Call) -> bool {
    let made = index.history.tokens[token.0].made;
    let changed = index.calls(session).any(|(_, call)| {
        matches!(call.what, What::Update { .. })
            && call.span.began < denied.span.ended
            && latest(call) > made.began
    });
    // A version given back is above the one a store that lost it mints by.
    let while_lost = |loss: &Loss| loss.at <= denied.span.ended && denied.span.began <= loss.healed_by;
    changed || index.history.losses.iter().any(while_lost)
}
