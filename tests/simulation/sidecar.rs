//! A sidecar of the simulation: the real rooms over a simulated store, on clocks that can be stepped, in a process that
//! can be stopped and killed.

use crate::breakage::Breakage;
use crate::chance::hash;
use crate::engine::{ISSUER, NOON};
use crate::schedule::Mode;
use crate::wire::{Network, Wire};
use countersign::clock::{Clock, ManualClock, Timestamp};
use countersign::keys::{HandleKeys, HandleKind, KeyFile, NewKey, SigningAlgorithm, SigningKeys};
use countersign::revocation::{DenialKey, Denylist, Feed, Marks, Revoker, denylist, feed};
use countersign::session::policy::{Overrides, Preset};
use countersign::session::{Found, Foundation, Policies, Policy, Reader, Sessions};
use countersign::token::{Reason, Revision, SessionId};
use countersign::verify::Freshness;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const BOUND: Duration = Duration::from_secs(10);
pub(crate) const SETTLE: Duration = Duration::from_secs(5);
pub(crate) const GRACE: Duration = Duration::from_secs(10);
pub(crate) const LEEWAY: Duration = Duration::from_secs(15);
const SMALL: usize = 3;
const PATIENCE: Duration = Duration::from_secs(1);

struct Keys {
    signing: Arc<SigningKeys>,
    handles: Arc<HandleKeys>,
    _directory: tempfile::TempDir,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let (signing, handles) = (directory.path().join("signing.json"), directory.path().join("handles.json"));
    let new = NewKey::Signing(SigningAlgorithm::EdDsa);
    KeyFile::generate(new, NOON).unwrap().create(&signing).unwrap();
    KeyFile::generate(NewKey::Handles, NOON).unwrap().create(&handles).unwrap();
    Keys {
        signing: Arc::new(SigningKeys::load(signing).unwrap()),
        handles: Arc::new(HandleKeys::load(handles).unwrap()),
        _directory: directory,
    }
});

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    let said = Overrides {
        access_token_life: Some(Duration::from_secs(40)),
        idle: Some(Duration::from_secs(90)),
        absolute: Some(Duration::from_secs(180)),
        staleness_bound: Some(BOUND),
        grace: Some(GRACE),
        ..Overrides::default()
    };
    let policy = Policy::new("shop", Preset::Medium, said, ISSUER).unwrap();
    Policies::new(vec![policy], "shop").unwrap()
});

/// The longest that anything can be accepted after its login.
pub(crate) fn longest_life() -> Duration {
    POLICIES.longest_life()
}

/// A process that can be stopped: none of its futures moves, while the world does.
#[derive(Default)]
pub(crate) struct Gate(Mutex<(u32, Vec<Waker>)>);

impl Gate {
    pub(crate) fn stop(&self) {
        self.0.lock().0 += 1;
    }

    pub(crate) fn go_on(&self) {
        let mut gate = self.0.lock();
        gate.0 -= 1;
        if gate.0 == 0 {
            gate.1.drain(..).for_each(Waker::wake);
        }
    }

    fn wait(&self, context: &Context<'_>) -> bool {
        let mut gate = self.0.lock();
        let stopped = gate.0 > 0;
        if stopped {
            gate.1.push(context.waker().clone());
        }
        stopped
    }
}

pub(crate) struct Gated<F> {
    gate: Arc<Gate>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.gate.wait(context) { Poll::Pending } else { self.inner.as_mut().poll(context) }
    }
}

/// One life of a sidecar.
pub(crate) struct Sidecar {
    pub(crate) number: usize,
    pub(crate) incarnation: u32,
    pub(crate) clock: Clock,
    pub(crate) hands: ManualClock,
    began: Timestamp,
    pub(crate) denylist: Arc<Denylist>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) revoker: Revoker,
    pub(crate) sessions: Sessions,
    reader: Reader,
    pub(crate) gate: Arc<Gate>,
    pub(crate) steps: Mutex<u32>,
    tasks: Mutex<JoinSet<()>>,
    breakage: Breakage,
}

impl Sidecar {
    pub(crate) fn start(
        network: &Arc<Network>,
        (number, incarnation): (usize, u32),
        (seed, small): (u64, bool),
        breakage: Breakage,
    ) -> Arc<Self> {
        let skew = 5_000 + hash(&[seed, 11, number as u64]) % 10_000;
        let began = NOON.after(Duration::from_millis(skew + network.now()));
        let (clock, hands) = Clock::manual(began);
        let own_seed = hash(&[seed, 12, number as u64, u64::from(incarnation)]);
        let limits = denylist::Settings {
            max_entries: if small { SMALL } else { 1000 },
            slack: Duration::from_secs(30),
        };
        let denylist = Arc::new(Denylist::seeded(limits, own_seed));
        let wire = Arc::new(Wire { network: Arc::clone(network), sidecar: number, incarnation });
        let settings = feed::Settings {
            confirm_every: Duration::from_secs(3),
            settle: if breakage == Breakage::NeverYoung { Duration::ZERO } else { SETTLE },
            page: 4,
            answer_within: Duration::from_secs(1),
            longest_pause: Duration::from_secs(2),
            jitter_seed: Some(own_seed),
            ..feed::Settings::default()
        };
        let feed = Arc::new(Feed::new(wire.clone(), Arc::clone(&denylist), clock.clone(), settings));
        let foundation = Foundation {
            store: wire.clone(),
            denylist: Arc::clone(&denylist),
            signing: Some(Arc::clone(&KEYS.signing)),
            handles: Some(Arc::clone(&KEYS.handles)),
            policies: POLICIES.clone(),
            issuer: ISSUER.into(),
            clock: clock.clone(),
        };
        let reader = Reader {
            store: wire.clone(),
            policies: POLICIES.clone(),
            issuer: ISSUER.into(),
            clock: clock.clone(),
        };
        let sidecar = Arc::new(Self {
            number,
            incarnation,
            clock,
            hands,
            began,
            feed,
            revoker: Revoker::new(wire, Arc::clone(&denylist)),
            denylist,
            sessions: Sessions::new(foundation),
            reader,
            gate: Arc::default(),
            steps: Mutex::new(0),
            tasks: Mutex::new(JoinSet::new()),
            breakage,
        });
        sidecar.spawn(Arc::clone(&sidecar.feed).run(CancellationToken::new()));
        sidecar
    }

    pub(crate) fn by(&self) -> (usize, u32) {
        (self.number, self.incarnation)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let gated = Gated { gate: Arc::clone(&self.gate), inner: Box::pin(task) };
        self.tasks.lock().spawn(gated);
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.tasks.lock().abort_all();
    }

    /// What its clock would say had nobody stepped it.
    pub(crate) fn counted(&self) -> Timestamp {
        self.began.after(self.clock.elapsed())
    }

    pub(crate) fn stepped(&self) -> bool {
        *self.steps.lock() > 0
    }

    pub(crate) fn generation(&self, refresh_token: &str) -> u64 {
        KEYS.handles.open(refresh_token).unwrap().generation
    }

    pub(crate) fn refresh_token(&self, session: SessionId, generation: u64) -> String {
        KEYS.handles.mint(HandleKind::Refresh, session, generation, self.clock.now().judged)
    }

    /// A verification after its signature was found good, as the verifier goes on: wait for what was asked, then
    /// standing, time, denylist, freshness.
    pub(crate) async fn verify(&self, credential: &Credential, mode: Mode) -> Result<(), Refused> {
        let undecided = |_| Refused::Undecided(Reason::NotFresh);
        let mut over = None;
        match mode {
            Mode::MinimizeLatency => {}
            _ if self.breakage == Breakage::NeverAsksTheStore => {}
            Mode::AtLeastAsFresh => {
                if let Some(revision) = credential.revision {
                    self.feed.catch_up(revision, PATIENCE).await.map_err(undecided)?;
                }
            }
            Mode::ToTheHead => self.feed.reach_head(PATIENCE).await.map_err(undecided)?,
            Mode::FullyConsistent => {
                let read = self.reader.read(credential.session, false);
                let (read, reached) = tokio::join!(read, self.feed.reach_head(PATIENCE));
                reached.map_err(undecided)?;
                let (found, _) = read.map_err(|_| Refused::Undecided(Reason::StoreUnavailable))?;
                over = match found {
                    Found::Live(live) => {
                        let old = live.record.attributes_version > credential.version;
                        old.then_some(Reason::StaleClaims)
                    }
                    Found::Ended => Some(Reason::SessionEnded),
                    Found::Idle => Some(Reason::SessionIdle),
                };
            }
        }
        let now = self.clock.now();
        let standing = self.denylist.standing(&now);
        if now.judged >= credential.expires_at.after(LEEWAY) {
            return Err(Refused::Denied(Reason::Expired));
        }
        if credential.issued_at > now.judged.after(LEEWAY) {
            return Err(Refused::Denied(Reason::NotYetValid));
        }
        if let Some(denial) = self.denylist.judge(&credential.marks, now.judged) {
            return Err(Refused::Denied(denial.reason()));
        }
        if let Some(reason) = over {
            return Err(Refused::Denied(reason));
        }
        let bound = if self.breakage == Breakage::IgnoresStaleness { Duration::MAX } else { BOUND };
        let freshness =
            Freshness { fully_consistent: false, bound, says_stale_after: bound, renew_before: None };
        freshness.judge(&standing).map(drop).map_err(Refused::Undecided)
    }
}

/// What the last step knows of a token.
pub(crate) struct Credential {
    pub(crate) session: SessionId,
    pub(crate) version: u64,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) marks: Marks,
    pub(crate) revision: Option<Revision>,
}

pub(crate) enum Refused {
    Denied(Reason),
    Undecided(Reason),
}

pub(crate) fn subject_name(subject: usize) -> String {
    format!("subject-{subject}")
}

/// Named by its place in the history and not by its `jti`, which is drawn anew in every run.
pub(crate) fn token_key(token: usize) -> DenialKey {
    DenialKey::token_id(ISSUER, &token.to_string())
}
