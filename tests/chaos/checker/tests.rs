//! Histories made by hand: for each rule one that keeps it and one that breaks it, so that the checker can fail.

use super::{Rule, check, explain};
use crate::history::{
    Answer, Call, Fault, History, How, Kind, Loss, Session, SessionNo, Span, Target, Token, TokenNo, What,
};
use countersign::token::Revision;
use std::time::Duration;

const ACCESS: TokenNo = TokenNo(0);
const FIRST: TokenNo = TokenNo(1);
const SECOND: TokenNo = TokenNo(2);
const ONE: SessionNo = SessionNo(0);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn span(began: u64, ended: u64) -> Span {
    Span { began: ms(began), ended: ms(ended) }
}

fn revision(seq: u64) -> Revision {
    Revision { epoch: 7, seq }
}

/// One session with an access token and three generations, opened in the first 10 ms; bound 1 s, grace 2 s.
fn opened() -> History {
    let made = span(0, 10);
    let token = |kind| Token { session: ONE, kind, made };
    let mut history = History {
        bound: ms(1000),
        grace: ms(2000),
        sessions: vec![Session { subject: "alice".into(), opened: made }],
        tokens: vec![token(Kind::Access)],
        ..History::default()
    };
    history.tokens.extend((1..=3).map(|generation| token(Kind::Refresh { generation })));
    history.with(0, 0, 10, What::Login, Answer::Opened(ONE))
}

impl History {
    fn with(mut self, sidecar: usize, began: u64, ended: u64, what: What, answer: Answer) -> Self {
        self.calls.push(Call { span: span(began, ended), sidecar, what, answer, probe: false });
        self
    }

    fn verified(self, sidecar: usize, began: u64, how: How, answer: Answer) -> Self {
        self.with(sidecar, began, began + 5, What::Verify { token: ACCESS, how }, answer)
    }

    fn revoked(self, began: u64, target: Target) -> Self {
        self.with(0, began, began + 10, What::Revoke(target), Answer::Done(revision(5)))
    }

    fn refreshed(self, began: u64, token: TokenNo, answer: Answer) -> Self {
        self.with(1, began, began + 5, What::Refresh { token }, answer)
    }
}

fn denied(reason: &str) -> Answer {
    Answer::Denied(reason.to_owned())
}

fn generation(generation: u64) -> Answer {
    Answer::Refreshed { generation }
}

#[track_caller]
fn assert_good(history: &History) {
    let found = check(history);
    assert!(found.is_empty(), "{}", explain(history, &found[0]));
}

#[track_caller]
fn assert_breaks(history: &History, rule: Rule) {
    let found = check(history);
    assert_eq!(found.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [rule]);
}

#[test]
fn the_revoking_sidecar_lets_in_nobody_after_ok() {
    let revoked = || opened().revoked(100, Target::Session(ONE));
    assert_good(&revoked().verified(0, 105, How::Latency, Answer::Accepted));
    assert_breaks(&revoked().verified(0, 111, How::Latency, Answer::Accepted), Rule::RevokedHere);
}

#[test]
fn others_let_in_nobody_later_than_the_bound() {
    let revoked = || opened().revoked(100, Target::Session(ONE));
    assert_good(&revoked().verified(1, 1109, How::Latency, Answer::Accepted));
    assert_breaks(&revoked().verified(1, 1111, How::Latency, Answer::Accepted), Rule::RevokedElsewhere);
}

#[test]
fn each_target_hits_what_it_names() {
    let subject = |except| Target::Subject { subject: "alice".into(), except };
    for target in [Target::Token(ACCESS), subject(None), Target::Issuer] {
        let history = opened().revoked(100, target).verified(0, 200, How::Latency, Answer::Accepted);
        assert_breaks(&history, Rule::RevokedHere);
    }
    let bob = Target::Subject { subject: "bob".into(), except: None };
    for target in [Target::Token(FIRST), subject(Some(ONE)), bob] {
        assert_good(&opened().revoked(100, target).verified(0, 200, How::Latency, Answer::Accepted));
    }
    let login_beside_it = opened().revoked(5, subject(None));
    assert_good(&login_beside_it.verified(0, 200, How::Latency, Answer::Accepted));
}

#[test]
fn fully_consistent_and_as_fresh_as_the_revocation_mean_it() {
    let revoked = || opened().revoked(100, Target::Session(ONE));
    assert_breaks(&revoked().verified(1, 111, How::Fully, Answer::Accepted), Rule::NotFullyConsistent);
    let fresh = |seq| revoked().verified(1, 111, How::Fresh(revision(seq)), Answer::Accepted);
    assert_breaks(&fresh(5), Rule::NotAsFreshAsAsked);
    assert_good(&fresh(4));
}

#[test]
fn who_said_revoked_once_says_so_for_good() {
    let unknown = opened().with(
        0,
        100,
        110,
        What::Revoke(Target::Session(ONE)),
        Answer::Lost("connection reset".into()),
    );
    let told = unknown.verified(1, 200, How::Latency, denied("REVOKED"));
    assert_breaks(&told.verified(1, 300, How::Latency, Answer::Accepted), Rule::RevokedHere);
}

#[test]
fn what_the_engine_may_lose_is_excused_until_it_was_given_back() {
    let lost = |from, began| {
        let mut history = opened().revoked(100, Target::Session(ONE));
        history.losses.push(Loss {
            acknowledged: true,
            from: ms(from),
            until: ms(120),
            at: ms(120),
            healed_by: ms(3000),
        });
        history.verified(1, began, How::Fully, Answer::Accepted)
    };
    assert_good(&lost(50, 2000));
    assert_breaks(&lost(50, 3001), Rule::NotFullyConsistent);
    assert_breaks(&lost(115, 2000), Rule::NotFullyConsistent);
}

#[test]
fn changed_attributes_make_older_access_tokens_stale_and_no_others() {
    let updated = |began| {
        let what = What::Update { session: ONE };
        opened().with(0, began, began + 10, what, Answer::Done(revision(5)))
    };
    assert_breaks(&updated(100).verified(0, 200, How::Latency, Answer::Accepted), Rule::RevokedHere);
    assert_good(&updated(100).verified(0, 200, How::Latency, denied("STALE_CLAIMS")));
    assert_good(&updated(9).verified(0, 200, How::Latency, Answer::Accepted));
    let unchanged = opened().verified(0, 200, How::Latency, denied("STALE_CLAIMS"));
    assert_breaks(&unchanged, Rule::StaleWithoutCause);
}

#[test]
fn no_revoked_session_refreshes() {
    let revoked = || opened().revoked(3000, Target::Session(ONE));
    assert_good(&revoked().refreshed(3009, FIRST, generation(2)));
    assert_breaks(&revoked().refreshed(3011, FIRST, generation(2)), Rule::RefreshedAfterRevoke);
}

#[test]
fn a_generation_has_one_successor() {
    assert_breaks(&opened().refreshed(3000, FIRST, generation(3)), Rule::Successors);
    assert_breaks(&opened().refreshed(3000, SECOND, generation(1)), Rule::Successors);
    let moved_on = || opened().refreshed(3000, FIRST, generation(2)).refreshed(5100, SECOND, generation(3));
    assert_good(&moved_on());
    assert_breaks(&moved_on().refreshed(5200, FIRST, generation(2)), Rule::Successors);
}

#[test]
fn an_exchanged_token_is_answered_within_grace_alone() {
    let exchanged = || opened().refreshed(3000, FIRST, generation(2));
    assert_good(&exchanged().refreshed(4900, FIRST, generation(2)));
    assert_breaks(&exchanged().refreshed(5100, FIRST, generation(2)), Rule::Successors);
    assert_good(&exchanged().refreshed(5100, FIRST, denied("REFRESH_REUSED")));
}

#[test]
fn reuse_ends_the_session() {
    let reused = || {
        let exchanged = opened().refreshed(3000, FIRST, generation(2));
        exchanged.refreshed(5100, FIRST, denied("REFRESH_REUSED"))
    };
    assert_good(&reused().verified(0, 5200, How::Latency, denied("REVOKED")));
    assert_breaks(&reused().verified(1, 5200, How::Latency, Answer::Accepted), Rule::RevokedHere);
    assert_breaks(&reused().refreshed(5200, SECOND, generation(3)), Rule::RefreshedAfterRevoke);
}

#[test]
fn nobody_who_keeps_to_the_rules_is_logged_out() {
    let retried = || {
        let lost = opened().refreshed(3000, FIRST, Answer::Undecided("STORE_UNAVAILABLE".into()));
        lost.refreshed(3500, FIRST, generation(2))
    };
    for reason in ["REFRESH_REUSED", "SESSION_ENDED", "REVOKED", "SESSION_IDLE"] {
        assert_breaks(&retried().refreshed(5600, SECOND, denied(reason)), Rule::DiedWithoutCause);
    }
    for reason in ["SESSION_ENDED", "REVOKED"] {
        let history = retried().verified(0, 5600, How::Latency, denied(reason));
        assert_breaks(&history, Rule::DiedWithoutCause);
    }
    let late = retried().refreshed(5100, FIRST, denied("REFRESH_REUSED"));
    assert_good(&late);
    let unknown = What::Revoke(Target::Session(ONE));
    let revoked = retried().with(0, 100, 110, unknown, Answer::Lost("killed".into()));
    assert_good(&revoked.verified(0, 5600, How::Latency, denied("REVOKED")));
}

#[test]
fn a_session_that_the_store_lost_with_its_class_may_be_gone() {
    let mut history = opened().verified(0, 500, How::Fully, denied("SESSION_ENDED"));
    history.losses.push(Loss {
        acknowledged: true,
        from: ms(5),
        until: ms(100),
        at: ms(100),
        healed_by: ms(900),
    });
    assert_good(&history);
    history.losses[0].from = ms(11);
    assert_breaks(&history, Rule::DiedWithoutCause);
}

#[test]
fn a_class_that_holds_what_was_acknowledged_excuses_nothing_that_was() {
    let mut history = opened().revoked(100, Target::Session(ONE));
    history.losses.push(Loss {
        acknowledged: false,
        from: ms(0),
        until: ms(120),
        at: ms(120),
        healed_by: ms(3000),
    });
    assert_good(&history.clone().verified(1, 200, How::Latency, denied("REVOKED")));
    assert_breaks(&history.verified(1, 2000, How::Fully, Answer::Accepted), Rule::NotFullyConsistent);
}

#[test]
fn who_revoked_holds_what_the_store_lost_until_it_is_killed() {
    let mut history = opened().revoked(100, Target::Session(ONE));
    history.losses.push(Loss {
        acknowledged: true,
        from: ms(50),
        until: ms(120),
        at: ms(120),
        healed_by: ms(3000),
    });
    let mut history = history.verified(0, 200, How::Latency, Answer::Accepted);
    assert_breaks(&history, Rule::RevokedHere);
    history.kills.push((0, ms(150)));
    assert_good(&history);
}

#[test]
fn a_genuine_token_has_no_other_fault() {
    for reason in ["BAD_SIGNATURE", "UNKNOWN_KEY", "MALFORMED", "EXPIRED"] {
        assert_breaks(&opened().verified(0, 500, How::Latency, denied(reason)), Rule::WrongDenial);
    }
    let mut stepped = opened().verified(0, 500, How::Latency, denied("EXPIRED"));
    stepped.steps.push(ms(400));
    assert_good(&stepped);
    stepped.calls[1].probe = true;
    assert_breaks(&stepped, Rule::WrongDenial);
    let mut young = opened().verified(0, 500, How::Latency, denied("NOT_YET_VALID"));
    young.steps.push(ms(400));
    assert_breaks(&young, Rule::WrongDenial);
    young.steps.push(ms(0));
    assert_good(&young);
    let odd = opened().verified(0, 500, How::Latency, Answer::Wrong("INTERNAL".into()));
    assert_breaks(&odd, Rule::WrongAnswer);
}

#[test]
fn undecided_is_allowed_while_faults_last_and_no_longer() {
    let mut history = opened().verified(0, 500, How::Latency, Answer::Undecided("TOO_STALE".into()));
    assert_good(&history);
    history.calls[1].probe = true;
    assert_breaks(&history, Rule::NotRecovered);
}

#[test]
fn a_violation_is_told_with_what_led_to_it() {
    let mut history = opened().revoked(100, Target::Session(ONE));
    history.faults.push(Fault { at: ms(150), what: "sidecar 1 frozen".into() });
    let history = history.verified(1, 1200, How::Latency, Answer::Accepted);
    let text = explain(&history, &check(&history)[0]);
    for told in ["RevokedElsewhere", "Revoke session s0", "sidecar 1 frozen", "Verify t0 → OK"] {
        assert!(text.contains(told), "{text}");
    }
}
