//! Once Revoke has returned OK, and once attributes have changed: who may still be let in, where, and until when.

use super::{Index, Rule, Violation};
use crate::history::{Answer, Call, How, Kind, SessionNo, Target, TokenNo, What};
use countersign::token::Revision;

/// What a call made invalid.
#[derive(Clone, Copy)]
enum Hits {
    Session,
    Token(TokenNo),
    /// The session's access tokens that were made before the call began.
    Older,
}

struct Cut {
    by: usize,
    hits: Hits,
    revision: Option<Revision>,
}

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    for session in index.sessions() {
        let cuts: Vec<Cut> =
            index.calls(session).filter_map(|(number, call)| cut(index, session, number, call)).collect();
        for (number, call) in index.calls(session) {
            let late = cuts.iter().find_map(|cut| Some((cut, broken(index, cut, call)?)));
            if let Some((cut, rule)) = late {
                found.push(Violation { rule, calls: vec![number, cut.by] });
            }
        }
    }
}

/// What the call has certainly made invalid of the session by its end.
fn cut(index: &Index<'_>, session: SessionNo, number: usize, call: &Call) -> Option<Cut> {
    let revision = match &call.answer {
        Answer::Done(revision) => Some(*revision),
        _ => None,
    };
    let hits = match (&call.what, &call.answer) {
        (What::Revoke(Target::Token(token)), Answer::Done(_)) => Hits::Token(*token),
        (What::Revoke(Target::Session(_)), Answer::Done(_)) => Hits::Session,
        (What::Revoke(target @ (Target::Subject { .. } | Target::Issuer)), Answer::Done(_)) => {
            let opened = index.history.sessions[session.0].opened;
            if spares(target, session) || opened.ended >= call.span.began {
                return None;
            }
            Hits::Session
        }
        (What::Refresh { .. }, Answer::Denied(reason)) if reason == "REFRESH_REUSED" => Hits::Session,
        // Whoever says so has it from the log.
        (What::Verify { token, .. }, Answer::Denied(reason)) if reason == "REVOKED" => Hits::Token(*token),
        (What::Update { .. }, Answer::Done(_)) => Hits::Older,
        _ => return None,
    };
    Some(Cut { by: number, hits, revision })
}

pub(super) fn spares(target: &Target, session: SessionNo) -> bool {
    matches!(target, Target::Subject { except, .. } if *except == Some(session))
}

/// The rule that the call breaks, being let in after the cut.
fn broken(index: &Index<'_>, cut: &Cut, call: &Call) -> Option<Rule> {
    let by = &index.history.calls[cut.by];
    if call.span.began <= by.span.ended {
        return None;
    }
    let (token, how) = match (&call.what, &call.answer) {
        (What::Verify { token, how }, Answer::Accepted) => (*token, Some(*how)),
        (What::Refresh { token }, Answer::Refreshed { .. }) => (*token, None),
        _ => return None,
    };
    let made = index.history.tokens[token.0].made;
    let hit = match cut.hits {
        Hits::Session => true,
        Hits::Token(only) => only == token,
        // A token from an hour ahead outlives the entry, which lives as long as a token of its own time.
        Hits::Older => {
            let of_its_time = !index.history.steps.iter().any(|at| *at <= made.ended);
            index.kind(token) == Kind::Access && made.ended < by.span.began && of_its_time
        }
    };
    // Who answered OK holds it, whatever the store loses. What was only read may not have been written for good.
    let acknowledged = !matches!(by.what, What::Verify { .. });
    let holds = call.sidecar == by.sidecar && !index.forgot(by.sidecar, by.span.began, call.span.ended);
    let excused = !holds
        && index
            .lost(by.span.ended, acknowledged, call.span.ended)
            .is_some_and(|loss| call.span.began <= loss.healed_by);
    if !hit || excused {
        return None;
    }
    match how {
        None => Some(Rule::RefreshedAfterRevoke),
        Some(_) if call.sidecar == by.sidecar => Some(Rule::RevokedHere),
        Some(How::Fully) => Some(Rule::NotFullyConsistent),
        Some(How::Fresh(asked)) if cut.revision.is_some_and(|made| asked.covers(&made)) => {
            Some(Rule::NotAsFreshAsAsked)
        }
        Some(How::Fresh(_) | How::Latency) => {
            (call.span.began > by.span.ended + index.history.bound).then_some(Rule::RevokedElsewhere)
        }
    }
}
