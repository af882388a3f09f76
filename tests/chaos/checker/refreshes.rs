//! One live successor per generation, and no answer to a generation that the session has moved past.

use super::{Index, Rule, STAMP, Violation};
use crate::history::{Answer, Call, Kind, SessionNo, What};

struct Renewal<'a> {
    number: usize,
    call: &'a Call,
    presented: u64,
    given: u64,
}

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    for session in index.sessions() {
        let renewals = renewals(index, session);
        for renewal in &renewals {
            let evidence = if renewal.given == renewal.presented || renewal.given == renewal.presented + 1 {
                renewals.iter().find(|earlier| moved_past(index, earlier, renewal)).map(|by| by.number)
            } else {
                Some(renewal.number)
            };
            if let Some(evidence) = evidence {
                let rule = Rule::Successors;
                found.push(Violation { rule, calls: vec![renewal.number, evidence] });
            }
        }
    }
}

fn renewals<'a>(index: &Index<'a>, session: SessionNo) -> Vec<Renewal<'a>> {
    let renewal = |(number, call): (usize, &'a Call)| {
        let What::Refresh { token } = call.what else { return None };
        let (Kind::Refresh { generation: presented }, Answer::Refreshed { generation: given }) =
            (index.kind(token), &call.answer)
        else {
            return None;
        };
        Some(Renewal { number, call, presented, given: *given })
    };
    index.calls(session).filter_map(renewal).collect()
}

/// Whether `earlier` shows that the session had moved past what `later` presented, before `later` began.
fn moved_past(index: &Index<'_>, earlier: &Renewal<'_>, later: &Renewal<'_>) -> bool {
    let known = earlier.call.span.ended;
    if known >= later.call.span.began || index.lost(known, false, later.call.span.ended).is_some() {
        return false;
    }
    let two_on = earlier.given >= later.presented + 2;
    let grace_over = known + index.history.grace + STAMP < later.call.span.began;
    let stepped = index.history.steps.iter().any(|at| *at <= later.call.span.ended);
    two_on || (earlier.given > later.presented && grace_over && !stepped)
}
