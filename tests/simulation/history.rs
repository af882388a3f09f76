//! What was asked and answered in a run, as those who asked saw it.

use crate::engine::{Loss, Rotation};
use crate::schedule::Mode;
use crate::wire::HeadRead;
use countersign::clock::Timestamp;
use countersign::revocation::Entry;
use countersign::token::{Reason, Revision, SessionId};
use std::fmt;

/// An access token, as its holder knows it.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) session: SessionId,
    pub(crate) subject: usize,
    pub(crate) logged_in_at: Timestamp,
    pub(crate) version: u64,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// The login it goes back to, in virtual milliseconds: when it was asked for, and when it was answered.
    pub(crate) login: (u64, u64),
    /// Its minter's clock was wrong by an hour.
    pub(crate) misdated: bool,
}

/// One call on one sidecar. Times are virtual milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) by: (usize, u32),
    pub(crate) begin: u64,
    /// `None`: nobody ever heard.
    pub(crate) end: Option<u64>,
    pub(crate) asked: Asked,
    pub(crate) answer: Answer,
    /// The sidecar's wall clock stood wrong at some time during the call.
    pub(crate) stepped: bool,
    /// What its clock would have said at the end, had nobody stepped it.
    pub(crate) counted: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asked {
    Login { subject: usize },
    Verify { token: usize, mode: Mode, revision: Option<Revision> },
    Refresh { session: SessionId, generation: u64 },
    Revoke { scope: Scope },
    Update { session: SessionId },
}

/// What a revocation was to hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scope {
    Token { token: usize },
    Session { session: SessionId },
    Subject { subject: usize, except: Option<SessionId> },
    Issuer,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    None,
    Undecided(Reason),
    Denied(Reason),
    Accepted,
    Opened { session: SessionId, token: usize },
    Renewed { generation: u64, token: usize },
    Revoked { entry: Option<Entry>, revision: Revision },
    Updated { entry: Option<Entry>, version: u64 },
}

#[derive(Default)]
pub(crate) struct History {
    pub(crate) calls: Vec<Call>,
    pub(crate) tokens: Vec<Access>,
    /// Faults as they set in and ended, for people.
    pub(crate) faults: Vec<(u64, String)>,
    pub(crate) setbacks: Vec<u64>,
    pub(crate) losses: Vec<Loss>,
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) head_reads: Vec<HeadRead>,
    /// What was not as it should be when all had been quiet for long enough.
    pub(crate) unsettled: Vec<String>,
    /// By the store's clock.
    pub(crate) ended: Timestamp,
    /// Incarnations that never died.
    pub(crate) survivors: Vec<(usize, u32)>,
    /// Entries in the log at the end.
    pub(crate) logged: Vec<Entry>,
    pub(crate) counts: Counts,
}

/// That a run exercised something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) restored: u64,
    pub(crate) resyncs: u64,
    pub(crate) fast_forwards: u32,
    pub(crate) full: u64,
}

impl History {
    /// In the order of time, with what concerns `token` alone where one is named.
    pub(crate) fn told(&self, session: Option<SessionId>) -> String {
        let concerns = |call: &&Call| match (session, call.asked) {
            (None, _) => true,
            (Some(one), Asked::Refresh { session, .. } | Asked::Update { session }) => one == session,
            (Some(one), Asked::Verify { token, .. }) => self.tokens[token].session == one,
            (Some(one), Asked::Revoke { scope }) => match scope {
                Scope::Token { token } => self.tokens[token].session == one,
                Scope::Session { session } => session == one,
                Scope::Subject { .. } | Scope::Issuer => true,
            },
            (Some(one), Asked::Login { .. }) => {
                matches!(call.answer, Answer::Opened { session, .. } if session == one)
            }
        };
        let mut lines: Vec<_> =
            self.faults.iter().map(|(at, what)| (*at, format!("{at:>7} {what}"))).collect();
        lines.extend(self.calls.iter().filter(concerns).map(|call| (call.begin, call.to_string())));
        for loss in &self.losses {
            let kind = loss.entry.kind;
            lines.push((
                loss.at,
                format!("{:>7} lost {kind:?}, held by {:?}, back {:?}", loss.at, loss.holders, loss.back),
            ));
        }
        lines.sort();
        lines.into_iter().map(|(_, line)| line + "\n").collect()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sidecar, incarnation) = self.by;
        write!(f, "{:>7}", self.begin)?;
        match self.end {
            Some(end) => write!(f, "–{end:<7}")?,
            None => write!(f, "–?      ")?,
        }
        write!(f, " {sidecar}.{incarnation} {:?} → {:?}", self.asked, self.answer)
    }
}
