//! Holds a history to the rules that must always hold.
//!
//! The checker knows what was asked and answered, when, and what the store lost. It does not look into a denylist, but
//! for who held an entry at the moment the store lost it. What happened in one and the same millisecond it takes to have
//! happened in either order.

use crate::engine::{Loss, session_key};
use crate::history::{Access, Answer, Asked, Call, History, Scope};
use crate::schedule::Mode;
use crate::sidecar::{BOUND, GRACE, LEEWAY, SETTLE, token_key};
use countersign::revocation::{DenialKey, Entry, EntryKind};
use countersign::token::{Reason, Revision, SessionId};
use std::time::Duration;

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) told: String,
    pub(crate) session: Option<SessionId>,
}

/// Something was taken back, and whoever asked for it was told so.
struct Denied {
    by: (usize, u32),
    begin: u64,
    end: u64,
    takes: Takes,
    entry: Option<Entry>,
    revision: Option<Revision>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    Back(Scope),
    /// Tokens with older attributes.
    Older {
        session: SessionId,
        version: u64,
    },
}

pub(crate) fn check(history: &History) -> Vec<Violation> {
    let denied = denied(history);
    let mut violations = Vec::new();
    for call in &history.calls {
        let broken = match call.asked {
            Asked::Verify { token, mode, revision } => {
                verified(history, &denied, call, (token, mode, revision))
            }
            Asked::Refresh { session, generation } => {
                refreshed(history, &denied, call, (session, generation))
            }
            Asked::Login { .. } | Asked::Revoke { .. } | Asked::Update { .. } => None,
        };
        violations.extend(broken.map(|(rule, why)| Violation {
            rule,
            told: format!("{call}: {why}"),
            session: session_of(history, call),
        }));
    }
    let end = |(rule, told): (&'static str, String)| Violation { rule, told, session: None };
    violations.extend(successors(history).map(end));
    violations.extend(healed(history).map(end));
    violations.extend(history.unsettled.iter().map(|told| end(("liveness", told.clone()))));
    violations
}

type Broken = Option<(&'static str, String)>;

fn verified(
    history: &History,
    denied: &[Denied],
    call: &Call,
    (token, mode, revision): (usize, Mode, Option<Revision>),
) -> Broken {
    let access = &history.tokens[token];
    let end = call.end?;
    if let Answer::Denied(reason) = call.answer {
        return unfounded(history, call, access, token, reason)
            .then(|| ("denied without cause", reason.to_string()));
    }
    if call.answer != Answer::Accepted {
        return None;
    }
    if call.counted >= access.expires_at.after(LEEWAY) {
        return Some(("a step of the clock revives nothing", format!("{:?}", access.expires_at)));
    }
    let from = if mode == Mode::MinimizeLatency { end } else { call.begin }.saturating_sub(millis(BOUND));
    let whole = history
        .head_reads
        .iter()
        .any(|read| read.by == call.by && read.sent >= from && read.delivered <= end && read.age >= SETTLE);
    if !whole {
        return Some(("no answer without a fresh and whole denylist", format!("none since {from}")));
    }
    for one in denied.iter().filter(|one| one.hits(history, access, token)) {
        let at_once = one.by == call.by
            || matches!(mode, Mode::ToTheHead | Mode::FullyConsistent)
            || (mode == Mode::AtLeastAsFresh && covered(revision, one.revision));
        let bound = if at_once { 0 } else { millis(BOUND) };
        if one.end + bound < call.begin && !excused(history, one, call, mode, bound) {
            return Some(("revoked stays revoked", format!("{:?} was answered at {}", one.takes, one.end)));
        }
    }
    None
}

fn covered(asked: Option<Revision>, revision: Option<Revision>) -> bool {
    asked.zip(revision).is_some_and(|(asked, revision)| asked.covers(&revision))
}

/// Whether the store lost the entry, and nobody who held it could give it back in time.
fn excused(history: &History, denied: &Denied, call: &Call, mode: Mode, bound: u64) -> bool {
    if denied.by == call.by {
        return false;
    }
    let Some(entry) = denied.entry else { return false };
    history.losses.iter().filter(|loss| loss.entry == entry && loss.at <= call.end.unwrap_or(u64::MAX)).any(
        |loss| {
            // Others accept nothing until they had time.
            let in_time = loss.back.is_some_and(|back| back < loss.at + millis(SETTLE));
            let strict = in_time && !matches!(mode, Mode::FullyConsistent | Mode::AtLeastAsFresh);
            let healed = loss.back.is_some_and(|back| back + bound.max(millis(BOUND)) <= call.begin);
            !loss.holders.contains(&call.by) && !strict && !healed
        },
    )
}

fn refreshed(
    history: &History,
    denied: &[Denied],
    call: &Call,
    (session, presented): (SessionId, u64),
) -> Broken {
    let end = call.end?;
    match call.answer {
        Answer::Renewed { generation, .. } => {
            for one in denied.iter().filter(|one| one.end < call.begin && one.ends(history, session)) {
                if !excused_refresh(history, one, call) {
                    let why = format!("{:?} was answered at {}", one.takes, one.end);
                    return Some(("no revoked session refreshes", why));
                }
            }
            if !history.setbacks.is_empty() {
                return None;
            }
            if generation < presented || generation > presented + 1 {
                return Some(("one successor", format!("{presented} became {generation}")));
            }
            let replayed = history.calls.iter().any(|other| {
                let Asked::Refresh { session: same, .. } = other.asked else { return false };
                let Answer::Renewed { generation, .. } = other.answer else { return false };
                let Some(ended) = other.end.filter(|_| same == session) else { return false };
                (generation >= presented + 2 && ended < call.begin)
                    || (generation == presented + 1 && ended + millis(GRACE) < call.begin)
            });
            replayed
                .then(|| ("a replay after grace ends the session", format!("{presented} was used before")))
        }
        Answer::Denied(Reason::RefreshReused) => {
            let calm = |from: u64| !history.setbacks.iter().any(|at| (from..=end).contains(at));
            let same =
                |other: &&Call| matches!(other.asked, Asked::Refresh { session: one, .. } if one == session);
            let of = |other: &Call| match other.asked {
                Asked::Refresh { generation, .. } => generation,
                _ => 0,
            };
            let calls: Vec<_> = history.calls.iter().filter(same).collect();
            let first = calls.iter().filter(|other| of(other) == presented).map(|other| other.begin).min()?;
            let moved_on = calls.iter().any(|other| of(other) > presented && other.begin <= end);
            let retried = end - first < millis(GRACE) && !moved_on && calm(first.saturating_sub(60_000));
            retried.then(|| ("a retry within grace logs nobody out", format!("first presented at {first}")))
        }
        Answer::Denied(reason) => {
            let founded = reason_to_end(history, session, call);
            (!founded).then(|| ("denied without cause", reason.to_string()))
        }
        _ => None,
    }
}

/// The store itself lets nobody in that it knows to be revoked; it lost the entry, and did not get it back.
fn excused_refresh(history: &History, denied: &Denied, call: &Call) -> bool {
    let Some(entry) = denied.entry else { return false };
    let end = call.end.unwrap_or(u64::MAX);
    denied.by != call.by
        && history.losses.iter().any(|loss| {
            let healed = loss.back.is_some_and(|back| back < call.begin);
            loss.entry == entry && loss.at <= end && !healed && !loss.holders.contains(&call.by)
        })
}

/// Whether nothing in the history explains why a token was refused.
fn unfounded(history: &History, call: &Call, access: &Access, token: usize, reason: Reason) -> bool {
    let begun = |other: &&Call| Some(other.begin) <= call.end;
    let mut before = history.calls.iter().filter(begun);
    match reason {
        Reason::Expired => !call.stepped && call.counted < access.expires_at.after(LEEWAY),
        Reason::NotYetValid => !access.misdated,
        Reason::StaleClaims => {
            !before.any(|other| matches!(other.asked, Asked::Update { session } if session == access.session))
        }
        Reason::Revoked | Reason::SessionEnded => {
            let this = |other: &Call| matches!(other.asked, Asked::Revoke { scope: Scope::Token { token: one } } if one == token);
            // A record is judged by the clock that reads it, also where that is set right before the answer.
            let by_the_clock = reason == Reason::SessionEnded && call.stepped;
            !by_the_clock && !before.any(this) && !reason_to_end(history, access.session, call)
        }
        Reason::SessionIdle => false,
        _ => true,
    }
}

/// Whether something may have ended the session by the end of the call.
fn reason_to_end(history: &History, session: SessionId, call: &Call) -> bool {
    let end = call.end.unwrap_or(u64::MAX);
    let Some(access) = history.tokens.iter().find(|access| access.session == session) else { return true };
    // Idle or over: nobody has refreshed for long, or it is old.
    let idle = Duration::from_secs(90);
    if call.end >= Some(access.login.0 + millis(idle)) || !history.setbacks.is_empty() {
        return true;
    }
    history.calls.iter().filter(|other| other.begin <= end).any(|other| match other.asked {
        Asked::Revoke { scope } => match scope {
            Scope::Token { .. } => false,
            Scope::Session { session: one } => one == session,
            Scope::Subject { subject, except } => {
                subject == access.subject
                    && except != Some(session)
                    && other.end.is_none_or(|end| access.login.0 <= end)
            }
            Scope::Issuer => other.end.is_none_or(|end| access.login.0 <= end),
        },
        // A refresh whose answer nobody heard may have found a replay.
        Asked::Refresh { session: one, .. } => {
            one == session
                && matches!(
                    other.answer,
                    Answer::None | Answer::Undecided(_) | Answer::Denied(Reason::RefreshReused)
                )
        }
        _ => false,
    })
}

/// A generation is succeeded once.
fn successors(history: &History) -> impl Iterator<Item = (&'static str, String)> {
    let rotations = if history.setbacks.is_empty() { &history.rotations[..] } else { &[] };
    let again = rotations.iter().enumerate().filter(|(place, one)| rotations[..*place].contains(one));
    again.map(|(_, one)| ("one successor", format!("{one:?} twice")))
}

/// What the store lost came back, where anybody who held it lived to the end.
fn healed(history: &History) -> impl Iterator<Item = (&'static str, String)> {
    let lived = |loss: &&Loss| loss.holders.iter().any(|holder| history.survivors.contains(holder));
    let lasts = |loss: &&Loss| loss.back.is_none() && loss.entry.expires_at > history.ended;
    history.losses.iter().filter(lasts).filter(lived).map(|loss| {
        ("what the store lost is given back", format!("{:?} was lost at {}", loss.entry.kind, loss.at))
    })
}

fn denied(history: &History) -> Vec<Denied> {
    let mut all = Vec::new();
    for call in &history.calls {
        let Some(end) = call.end else { continue };
        let (takes, entry, revision) = match (call.asked, &call.answer) {
            (Asked::Revoke { scope }, Answer::Revoked { entry, revision }) => {
                (Takes::Back(scope), *entry, Some(*revision))
            }
            (Asked::Update { session }, Answer::Updated { entry, version }) => {
                (Takes::Older { session, version: *version }, *entry, None)
            }
            (Asked::Refresh { session, .. }, Answer::Denied(Reason::RefreshReused)) => {
                let key = session_key(session);
                let lost = history.losses.iter().map(|loss| loss.entry);
                let entry = lost.chain(history.logged.iter().copied()).find(|entry| names(entry, key));
                (Takes::Back(Scope::Session { session }), entry, None)
            }
            _ => continue,
        };
        all.push(Denied { by: call.by, begin: call.begin, end, takes, entry, revision });
    }
    all
}

fn names(entry: &Entry, key: DenialKey) -> bool {
    entry.kind == EntryKind::Session && entry.key == key
}

impl Denied {
    /// Whether it takes back the token, whatever the order in which the store saw things that went on at once.
    fn hits(&self, history: &History, access: &Access, token: usize) -> bool {
        match self.takes {
            Takes::Back(Scope::Token { token: one }) => {
                one == token && self.entry.is_none_or(|entry| entry.key == token_key(token))
            }
            Takes::Back(_) => self.ends(history, access.session),
            Takes::Older { session, version } => {
                session == access.session && access.version < version && !access.misdated
            }
        }
    }

    fn ends(&self, history: &History, session: SessionId) -> bool {
        let Some(access) = history.tokens.iter().find(|access| access.session == session) else {
            return false;
        };
        match self.takes {
            Takes::Back(Scope::Session { session: one }) => one == session,
            Takes::Back(Scope::Subject { subject, except }) => {
                subject == access.subject && except != Some(session) && self.comes_after(history, access)
            }
            Takes::Back(Scope::Issuer) => self.comes_after(history, access),
            Takes::Back(Scope::Token { .. }) | Takes::Older { .. } => false,
        }
    }
}

impl Denied {
    /// Whether a cut-off came after the login. A store that lost the login has lost its stamp as well; then the cut-off
    /// is no later than the new primary's clock, which may be behind.
    fn comes_after(&self, history: &History, access: &Access) -> bool {
        let after = access.login.1 < self.begin;
        let known = !history.setbacks.iter().any(|at| (access.login.0..=self.end).contains(at));
        let cutoff = self.entry.and_then(|entry| match entry.kind {
            EntryKind::SubjectBefore { cutoff, .. } | EntryKind::IssuerBefore { cutoff } => Some(cutoff),
            _ => None,
        });
        after && (known || cutoff.is_none_or(|cutoff| access.logged_in_at <= cutoff))
    }
}

fn session_of(history: &History, call: &Call) -> Option<SessionId> {
    match call.asked {
        Asked::Refresh { session, .. } | Asked::Update { session } => Some(session),
        Asked::Verify { token, .. } => Some(history.tokens[token].session),
        Asked::Login { .. } | Asked::Revoke { .. } => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}
