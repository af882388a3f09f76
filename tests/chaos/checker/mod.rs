//! Judges a whole history, offline, by the rules that must always hold (ARCHITECTURE.md: 1, 2, 6, 7 and 8).
//!
//! Everything is inferred from what clients saw: a call takes effect somewhere between its beginning and its end, or, if
//! no answer came, at any time after it began. Only what contradicts every such order is a violation.

mod cuts;
mod deaths;
mod refreshes;
#[cfg(test)]
mod tests;

use crate::history::{Answer, Call, History, Kind, Loss, SessionNo, Target, TokenNo, What};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::time::Duration;

/// Stores stamp in whole milliseconds.
const STAMP: Duration = Duration::from_millis(10);

/// Which rule a history breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// OK on the sidecar that revoked.
    RevokedHere,
    /// OK elsewhere, later than the staleness bound.
    RevokedElsewhere,
    /// OK although it had to be as fresh as the revocation.
    NotAsFreshAsAsked,
    /// OK after the revocation, fully consistent.
    NotFullyConsistent,
    /// Refreshed after its session was revoked.
    RefreshedAfterRevoke,
    /// A generation with two successors, or an old one that was answered.
    Successors,
    /// A session ended that nobody ended.
    DiedWithoutCause,
    /// Denied as stale, and nothing was changed.
    StaleWithoutCause,
    /// A reason that no genuine token can have.
    WrongDenial,
    /// Something no sidecar should say.
    WrongAnswer,
    /// Still undecided when all faults were long over.
    NotRecovered,
}

impl Rule {
    fn is_about_a_cause(self) -> bool {
        matches!(
            self,
            Self::DiedWithoutCause | Self::StaleWithoutCause | Self::Successors | Self::NotRecovered
        )
    }
}

/// A broken rule, with the calls that show it.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) calls: Vec<usize>,
}

/// Everything wrong with the history.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let index = Index::new(history);
    let mut found = Vec::new();
    cuts::check(&index, &mut found);
    refreshes::check(&index, &mut found);
    deaths::check(&index, &mut found);
    for (number, call) in history.calls.iter().enumerate() {
        let rule = match &call.answer {
            Answer::Wrong(_) => Rule::WrongAnswer,
            Answer::Undecided(_) | Answer::Lost(_) if call.probe => Rule::NotRecovered,
            _ => continue,
        };
        found.push(Violation { rule, calls: vec![number] });
    }
    found
}

/// The shortest history that shows it: the calls that touch its token or session, and the faults between.
pub(crate) fn explain(history: &History, violation: &Violation) -> String {
    let index = Index::new(history);
    let mut shown: BTreeSet<usize> = violation.calls.iter().copied().collect();
    let session = violation.calls.iter().find_map(|number| index.session_of(&history.calls[*number].what));
    if let Some(session) = session {
        let opened = |call: &Call| call.answer == Answer::Opened(session);
        shown.extend(history.calls.iter().position(opened));
        // Two calls show by themselves that one came too late. Where a cause is missing, what touched the session just before
        // and after each of them shows that it is.
        let touching = index.of_session.get(&session).map(Vec::as_slice).unwrap_or_default();
        for number in violation.calls.iter().filter(|_| violation.rule.is_about_a_cause()) {
            let at = touching.partition_point(|other| other < number);
            shown.extend(&touching[at.saturating_sub(6)..(at + 3).min(touching.len())]);
        }
    }
    let mut text = format!("{:?}\n", violation.rule);
    if let Some(session) = session {
        let _ = writeln!(text, "session s{} of {}", session.0, history.sessions[session.0].subject);
    }
    let mut lines: Vec<(Duration, String)> = Vec::new();
    for number in &shown {
        let call = &history.calls[*number];
        let mark = if violation.calls.contains(number) { "→" } else { " " };
        lines.push((call.span.began, format!("{mark} {call}")));
    }
    let (first, last) = (lines.iter().map(|line| line.0).min(), history.calls[violation.calls[0]].span.ended);
    for fault in &history.faults {
        if first.is_some_and(|first| fault.at >= first) && fault.at <= last {
            lines.push((fault.at, format!("* {:9.4} s  {}", fault.at.as_secs_f64(), fault.what)));
        }
    }
    lines.sort();
    for (_, line) in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The history by session.
struct Index<'a> {
    history: &'a History,
    /// Calls that name the session or a token of it, or that can hit it.
    of_session: HashMap<SessionNo, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(history: &'a History) -> Self {
        let mut index = Self { history, of_session: HashMap::new() };
        for (number, call) in history.calls.iter().enumerate() {
            match (&call.what, index.session_of(&call.what)) {
                (_, Some(session)) => index.of_session.entry(session).or_default().push(number),
                (What::Revoke(target), None) => {
                    for (no, session) in history.sessions.iter().enumerate() {
                        let named = match target {
                            Target::Subject { subject, .. } => *subject == session.subject,
                            Target::Issuer => true,
                            Target::Token(_) | Target::Session(_) => false,
                        };
                        if named {
                            index.of_session.entry(SessionNo(no)).or_default().push(number);
                        }
                    }
                }
                (_, None) => {}
            }
        }
        index
    }

    fn session_of(&self, what: &What) -> Option<SessionNo> {
        match what {
            What::Verify { token, .. } | What::Refresh { token } | What::Revoke(Target::Token(token)) => {
                Some(self.history.tokens[token.0].session)
            }
            What::Revoke(Target::Session(session)) | What::Update { session } => Some(*session),
            What::Login | What::Revoke(Target::Subject { .. } | Target::Issuer) => None,
        }
    }

    fn calls(&self, session: SessionNo) -> impl Iterator<Item = (usize, &'a Call)> {
        let numbers = self.of_session.get(&session).cloned().unwrap_or_default();
        numbers.into_iter().map(|number| (number, &self.history.calls[number]))
    }

    fn sessions(&self) -> impl Iterator<Item = SessionNo> {
        (0..self.history.sessions.len()).map(SessionNo)
    }

    fn kind(&self, token: TokenNo) -> Kind {
        self.history.tokens[token.0].kind
    }

    /// A write that ended then may have been undone before `by`.
    fn lost(&self, written: Duration, acknowledged: bool, by: Duration) -> Option<Loss> {
        let fits = |loss: &&Loss| {
            (loss.acknowledged || !acknowledged)
                && (loss.from..=loss.until).contains(&written)
                && loss.at <= by
        };
        // The one that was made good last.
        self.history.losses.iter().filter(fits).max_by_key(|loss| loss.healed_by).copied()
    }

    /// Whether the sidecar may have forgotten since then what it knew.
    fn forgot(&self, sidecar: usize, since: Duration, by: Duration) -> bool {
        self.history.kills.iter().any(|(killed, at)| *killed == sidecar && since <= *at && *at <= by)
    }
}
