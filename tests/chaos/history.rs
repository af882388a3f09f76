//! What happened: every call with its instants and its answer, every fault, in one place while a round runs.

use countersign::token::Revision;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A session by its place in [`History::sessions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionNo(pub(crate) usize);

/// A token by its place in [`History::tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TokenNo(pub(crate) usize);

/// One session that a login opened.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) subject: String,
    pub(crate) opened: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A JWT.
    Access,
    /// A `css_` token.
    Opaque,
    Refresh {
        generation: u64,
    },
}

/// One token, and the call whose answer first held it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) session: SessionNo,
    pub(crate) kind: Kind,
    pub(crate) made: Span,
}

/// From just before a call was sent to just after its answer was there; since the round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
}

/// How fresh a verification was asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Latency,
    Fresh(Revision),
    Fully,
}

/// What a revocation was to hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// One access token, by possession.
    Token(TokenNo),
    /// By its id, or by possession of its refresh or session token.
    Session(SessionNo),
    Subject {
        subject: String,
        except: Option<SessionNo>,
    },
    Issuer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Login,
    Verify { token: TokenNo, how: How },
    Refresh { token: TokenNo },
    Revoke(Target),
    Update { session: SessionNo },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Opened(SessionNo),
    Accepted,
    /// The generation of the refresh token that came back.
    Refreshed {
        generation: u64,
    },
    /// Revoked or updated.
    Done(Revision),
    Denied(String),
    Undecided(String),
    /// No answer of the sidecar's: the call may have taken effect, then or later.
    Lost(String),
    /// No sidecar should say this.
    Wrong(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) span: Span,
    pub(crate) sidecar: usize,
    pub(crate) what: What,
    pub(crate) answer: Answer,
    /// After all faults, with time to recover: has to be decided.
    pub(crate) probe: bool,
}

/// What was done to the system.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) what: String,
}

/// The engine's durability class does not hold these writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    /// Also those that were acknowledged; else only what somebody read before it was.
    pub(crate) acknowledged: bool,
    /// Writes from then …
    pub(crate) from: Duration,
    /// … to then may be gone.
    pub(crate) until: Duration,
    /// When the store lost them.
    pub(crate) at: Duration,
    /// By then those who hold the revocations among them have given them back, and everybody has read that.
    pub(crate) healed_by: Duration,
}

/// A whole round.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) bound: Duration,
    pub(crate) grace: Duration,
    pub(crate) sessions: Vec<Session>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) calls: Vec<Call>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) losses: Vec<Loss>,
    /// When the wall clock was stepped.
    pub(crate) steps: Vec<Duration>,
    /// When a sidecar was killed, and which: it holds nothing of before any more.
    pub(crate) kills: Vec<(usize, Duration)>,
}

/// Collects a history from many tasks.
pub(crate) struct Recorder {
    start: Instant,
    state: Mutex<(History, HashMap<String, TokenNo>)>,
    /// Answered OK.
    revocations: AtomicUsize,
}

impl Recorder {
    pub(crate) fn new(bound: Duration, grace: Duration) -> Self {
        let history = History { bound, grace, ..History::default() };
        let state = Mutex::new((history, HashMap::new()));
        Self { start: Instant::now(), state, revocations: AtomicUsize::new(0) }
    }

    /// Monotonic, and the same clock that sidecars count by as long as the machine does not sleep.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn call(&self, call: Call) {
        if matches!((&call.what, &call.answer), (What::Revoke(_), Answer::Done(_))) {
            self.revocations.fetch_add(1, Ordering::SeqCst);
        }
        self.locked().0.calls.push(call);
    }

    pub(crate) fn session(&self, subject: &str, opened: Span) -> SessionNo {
        let sessions = &mut self.locked().0.sessions;
        sessions.push(Session { subject: subject.to_owned(), opened });
        SessionNo(sessions.len() - 1)
    }

    /// The same text is the same token.
    pub(crate) fn token(&self, text: &str, session: SessionNo, kind: Kind, made: Span) -> TokenNo {
        let (history, known) = &mut *self.locked();
        *known.entry(text.to_owned()).or_insert_with(|| {
            history.tokens.push(Token { session, kind, made });
            TokenNo(history.tokens.len() - 1)
        })
    }

    pub(crate) fn fault(&self, what: impl Into<String>) {
        let at = self.now();
        self.locked().0.faults.push(Fault { at, what: what.into() });
    }

    /// Heals in due time; see [`Self::healed`].
    pub(crate) fn loss(&self, acknowledged: bool, from: Duration, at: Duration, until: Duration) {
        let healed_by = Duration::MAX;
        self.locked().0.losses.push(Loss { acknowledged, from, at, until, healed_by });
    }

    pub(crate) fn killed(&self, sidecar: usize) {
        let at = self.now();
        self.locked().0.kills.push((sidecar, at));
    }

    /// Waits until another revocation was answered OK, so that what follows hits it when it is hardly anywhere yet.
    pub(crate) async fn until_revoked(&self, at_most: Duration) {
        let deadline = self.now() + at_most;
        let before = self.revocations.load(Ordering::SeqCst);
        while self.revocations.load(Ordering::SeqCst) == before && self.now() < deadline {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    pub(crate) fn step(&self) {
        let at = self.now();
        self.locked().0.steps.push(at);
    }

    /// Everything lost so far is given back.
    pub(crate) fn healed(&self) {
        let now = self.now();
        for loss in &mut self.locked().0.losses {
            loss.healed_by = loss.healed_by.min(now);
        }
    }

    pub(crate) fn finish(&self) -> History {
        let mut history = self.locked().0.clone();
        history.calls.sort_by_key(|call| call.span.began);
        history
    }

    fn locked(&self) -> MutexGuard<'_, (History, HashMap<String, TokenNo>)> {
        self.state.lock().unwrap()
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login => f.write_str("CreateSession"),
            Self::Verify { token, how: How::Latency } => write!(f, "Verify t{}", token.0),
            Self::Verify { token, how: How::Fully } => write!(f, "Verify t{} fully_consistent", token.0),
            Self::Verify { token, how: How::Fresh(revision) } => {
                write!(f, "Verify t{} at_least_as_fresh {revision}", token.0)
            }
            Self::Refresh { token } => write!(f, "Refresh t{}", token.0),
            Self::Revoke(Target::Token(token)) => write!(f, "Revoke token t{}", token.0),
            Self::Revoke(Target::Session(session)) => write!(f, "Revoke session s{}", session.0),
            Self::Revoke(Target::Subject { subject, except }) => {
                write!(f, "Revoke subject {subject} except {except:?}")
            }
            Self::Revoke(Target::Issuer) => f.write_str("Revoke issuer"),
            Self::Update { session } => write!(f, "UpdateSession s{}", session.0),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(session) => write!(f, "OK, s{}", session.0),
            Self::Accepted => f.write_str("OK"),
            Self::Refreshed { generation } => write!(f, "OK, generation {generation}"),
            Self::Done(revision) => write!(f, "OK, {revision}"),
            Self::Denied(reason) => write!(f, "denied: {reason}"),
            Self::Undecided(reason) => write!(f, "undecided: {reason}"),
            Self::Lost(what) => write!(f, "no answer: {what}"),
            Self::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { began, ended } = self.span;
        let (began, ended) = (began.as_secs_f64(), ended.as_secs_f64());
        write!(f, "{began:9.4}–{ended:9.4} s  sidecar {}  {} → {}", self.sidecar, self.what, self.answer)
    }
}
