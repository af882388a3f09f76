//! The keys of one issuer as they are now: a snapshot that verification reads without waiting, and the upkeep behind it.
//!
//! All fetching happens in [`KeyRing::run`]. Who misses a key only orders a fetch and waits for its end, so a caller that
//! goes away takes nobody's fetch with it, and callers on any runtime share one.

use crate::clock::Clock;
use crate::keys::fetch::{FetchError, Fetcher};
use crate::keys::jwk::Origin;
use crate::keys::key_set::{KeySet, KeySetError, LARGEST_SET};
use crate::keys::schedule::{Periods, Schedule, Sought};
use crate::keys::settings::{Settings, Source};
use crate::keys::signing::{Causes, SigningKeys};
use crate::keys::url::{BadUrl, FetchUrl};
use crate::keys::watched::{Watched, follow, read_whole};
use crate::token::{Issuer, Secret, random_bytes};
use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The longest the upkeep sleeps, so that it notices a machine that was suspended.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// Seekers wait for a fetch's own deadline and this much more.
const SEEK_SLACK: Duration = Duration::from_secs(1);

/// Why a ring can't be opened, or a read of its source failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// No algorithm is allowed.
    #[error("no algorithm is allowed for the issuer")]
    NoAlgorithms,
    /// An HMAC algorithm with keys that come over the network.
    #[error("an HMAC algorithm needs a secret from a file, not remote keys")]
    RemoteSecret,
    /// The secret's algorithm is not among the allowed.
    #[error("the secret's algorithm is not among the allowed ones")]
    SecretAlgorithm,
    /// Discovery, for an issuer that is no URL to fetch from.
    #[error("the issuer's OpenID configuration can't be fetched")]
    Issuer(#[source] BadUrl),
    /// The file can't be read.
    #[error("{}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was read is no usable key set.
    #[error("the key set can't be used")]
    KeySet(#[from] KeySetError),
    /// Fetching failed.
    #[error("the key set can't be fetched")]
    Fetch(#[from] FetchError),
}

/// A key set in force.
#[derive(Debug)]
pub struct Published {
    /// The keys.
    pub set: KeySet,
    /// Unique in this process and never 0; another set of keys has another.
    pub generation: u64,
}

/// How often things happened since the ring was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Good fetches.
    pub fetched: u64,
    /// Failed fetches, those of an unusable set included.
    pub failed: u64,
    /// Lookups that met more than one key.
    pub ambiguous: u64,
}

/// One issuer's keys; share it by `Arc`.
pub struct KeyRing {
    settings: Settings,
    upkeep: Upkeep,
    clock: Clock,
    published: ArcSwapOption<Published>,
    generation: AtomicU64,
    state: Mutex<State>,
    ordered: Notify,
    ended: watch::Sender<()>,
    fetched: AtomicU64,
    failed: AtomicU64,
    ambiguous: AtomicU64,
}

enum Upkeep {
    Fetch { fetcher: Fetcher, url: FetchUrl, discovery: bool },
    Follow(PathBuf),
    Own(Arc<SigningKeys>),
}

struct State {
    schedule: Schedule,
    /// Outlives its being too old, so that the same keys fetched again are the same generation.
    last_good: Option<Arc<Published>>,
}

impl KeyRing {
    /// Opens a ring. Files are read at once; what is fetched starts empty, and [`Self::run`] fetches it.
    ///
    /// # Errors
    /// [`KeyRingError`]: settings that contradict each other, or a file that can't be used.
    pub fn open(settings: Settings, clock: Clock) -> Result<Self, KeyRingError> {
        check(&settings)?;
        let fetch = |url, discovery| -> Result<Upkeep, KeyRingError> {
            let fetcher = Fetcher::new(settings.ca_file.clone(), settings.fetch_timeout)?;
            Ok(Upkeep::Fetch { fetcher, url, discovery })
        };
        let upkeep = match &settings.source {
            Source::JwksFile(path) | Source::PemFile(path) | Source::SecretFile { path, .. } => {
                Upkeep::Follow(path.clone())
            }
            Source::JwksUrl(url) => fetch(url.clone(), false)?,
            Source::Discovery => {
                fetch(FetchUrl::discovery(&settings.issuer).map_err(KeyRingError::Issuer)?, true)?
            }
            Source::Own(keys) => Upkeep::Own(Arc::clone(keys)),
        };
        let periods = Periods {
            refresh_every: settings.refresh_every,
            cool_down: settings.cool_down,
            max_age: settings.max_age,
        };
        let ring = Self {
            settings,
            upkeep,
            clock,
            published: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            state: Mutex::new(State { schedule: Schedule::new(periods), last_good: None }),
            ordered: Notify::new(),
            ended: watch::Sender::new(()),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            ambiguous: AtomicU64::new(0),
        };
        match &ring.upkeep {
            Upkeep::Follow(path) => ring.take(Ok(ring.parse_file(path, read_whole(path, LARGEST_SET))?)),
            Upkeep::Own(keys) => ring.take(Ok(keys.verifying_set()?)),
            Upkeep::Fetch { .. } => {}
        }
        Ok(ring)
    }

    /// Whose keys these are.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.settings.issuer
    }

    /// How they are come by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The keys in force. `None`: none were loaded yet, or the last good fetch is past the hard age; either way it can't be
    /// told whether a signature is good.
    ///
    /// Cheap: no lock and no clock. Don't keep the guard across an await.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Option<Arc<Published>>> {
        self.published.load()
    }

    /// The generation in force, 0 for none: one atomic read. What was accepted under another generation must be verified
    /// anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks for fresher keys because of an unknown `kid`, of which nothing is remembered.
    ///
    /// All who ask while a fetch is under way wait for that one; within the cool-down after it nobody waits. Takes no longer
    /// than a fetch may, and can be dropped at any point. Needs [`Self::run`] to be running somewhere.
    pub async fn seek(&self) -> Sought {
        let Upkeep::Fetch { fetcher, .. } = &self.upkeep else { return Sought::NotFetchable };
        let mut ended = {
            let mut state = self.state.lock();
            // An end is told under the same lock, so none falls between asking and listening.
            let ended = self.ended.subscribe();
            if let Some(sought) = state.schedule.seek(self.clock.now().elapsed) {
                return sought;
            }
            ended
        };
        self.ordered.notify_one();
        match tokio::time::timeout(fetcher.deadline().saturating_add(SEEK_SLACK), ended.changed()).await {
            Ok(Ok(())) => self.state.lock().schedule.outcome(),
            Ok(Err(_)) | Err(_) => Sought::Failed,
        }
    }

    /// Notes that a lookup met more than one key.
    pub fn count_ambiguous(&self) {
        self.ambiguous.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            fetched: self.fetched.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            ambiguous: self.ambiguous.load(Ordering::Relaxed),
        }
    }

    /// How long ago the last good fetch was sent. `None`: never, or the source is not fetched.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.state.lock().schedule.age(self.clock.now().elapsed)
    }

    /// Keeps the keys up to date until cancelled: fetches, follows the file, or follows our own keys.
    ///
    /// Whatever goes wrong leaves the last good keys in force, those that are fetched for at most the hard age.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let upkeep = async {
            match &self.upkeep {
                Upkeep::Fetch { .. } => loop {
                    let nap = self.turn().await.min(LONGEST_NAP);
                    tokio::select! {
                        () = self.ordered.notified() => {}
                        () = tokio::time::sleep(nap) => {}
                    }
                },
                Upkeep::Follow(path) => {
                    let watched = Watched::new(path.clone(), LARGEST_SET);
                    follow(watched, |read| self.take(self.parse_file(path, read))).await;
                }
                Upkeep::Own(keys) => {
                    let mut changes = keys.subscribe();
                    self.take(keys.verifying_set().map_err(KeyRingError::KeySet));
                    while changes.changed().await.is_ok() {
                        self.take(keys.verifying_set().map_err(KeyRingError::KeySet));
                    }
                }
            }
        };
        cancel.run_until_cancelled(upkeep).await;
    }

    /// Fetches once, now, whatever the schedule says: for a command line that does not keep the ring running. Does nothing
    /// where the source is not fetched.
    ///
    /// # Errors
    /// [`KeyRingError::Fetch`], [`KeyRingError::KeySet`]; the last good keys stay in force.
    pub async fn refresh(&self) -> Result<(), KeyRingError> {
        let began = self.clock.now().elapsed;
        let Some(fetched) = self.fetch().await else { return Ok(()) };
        let count = if fetched.is_ok() { &self.fetched } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        let jitter = random_bytes().map_or(0, |[byte]| byte);
        let outcome = {
            let mut state = self.state.lock();
            let outcome = fetched.map(|set| self.publish(&mut state, set));
            state.schedule.end(began, self.clock.now().elapsed, outcome.is_ok(), jitter);
            self.ended.send_replace(());
            outcome
        };
        outcome.map(|news| self.tell(news))
    }

    /// Does what is due and says how long nothing will be.
    async fn turn(&self) -> Duration {
        self.expire();
        let due = self.state.lock().schedule.begin(self.clock.now().elapsed);
        if due {
            if let Err(error) = self.refresh().await {
                tracing::warn!(issuer = %self.settings.issuer, error = %Causes(&error), "keys not refreshed");
            }
            self.expire();
        }
        self.state.lock().schedule.idle(self.clock.now().elapsed)
    }

    async fn fetch(&self) -> Option<Result<KeySet, KeyRingError>> {
        let Upkeep::Fetch { fetcher, url, discovery } = &self.upkeep else { return None };
        let fetched = if *discovery {
            fetcher.discovered_jwks(&self.settings.issuer, url).await
        } else {
            fetcher.jwks(url).await
        };
        let parse = |bytes: bytes::Bytes| {
            KeySet::from_jwks(&bytes, &self.settings.algorithms, Origin::Remote).map_err(KeyRingError::from)
        };
        Some(fetched.map_err(KeyRingError::from).and_then(parse))
    }

    fn parse_file(&self, path: &Path, read: io::Result<Secret>) -> Result<KeySet, KeyRingError> {
        let content = read.map_err(|source| KeyRingError::Read { path: path.to_owned(), source })?;
        let (content, allowed) = (content.expose(), self.settings.algorithms.as_slice());
        Ok(match &self.settings.source {
            Source::SecretFile { algorithm, .. } => KeySet::from_secret(content, *algorithm)?,
            Source::PemFile(_) => KeySet::from_pem(content, allowed)?,
            Source::JwksFile(_) | Source::JwksUrl(_) | Source::Discovery | Source::Own(_) => {
                KeySet::from_jwks(content, allowed, Origin::Local)?
            }
        })
    }

    fn take(&self, set: Result<KeySet, KeyRingError>) {
        match set {
            Ok(set) => {
                let news = self.publish(&mut self.state.lock(), set);
                self.tell(news);
            }
            Err(error) => {
                tracing::warn!(issuer = %self.settings.issuer, error = %Causes(&error), "keys not reloaded");
            }
        }
    }

    /// Puts a set in force; the same keys as before stay the same generation. Other keys are handed back, to be told of
    /// when the lock is gone.
    fn publish(&self, state: &mut State, set: KeySet) -> Option<Arc<Published>> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let same = state.last_good.take().filter(|last| last.set.same_keys(&set));
        let is_news = same.is_none();
        let published = same.unwrap_or_else(|| {
            Arc::new(Published { set, generation: GENERATIONS.fetch_add(1, Ordering::Relaxed) })
        });
        state.last_good = Some(Arc::clone(&published));
        self.published.store(Some(Arc::clone(&published)));
        self.generation.store(published.generation, Ordering::Release);
        is_news.then_some(published)
    }

    fn tell(&self, news: Option<Arc<Published>>) {
        let Some(published) = news else { return };
        let (issuer, set) = (&self.settings.issuer, &published.set);
        tracing::info!(%issuer, keys = set.keys().len(), "keys in force");
        for rejected in set.rejected() {
            tracing::warn!(%issuer, index = rejected.index, why = %rejected.why, "a key was skipped");
        }
        if set.ambiguities() > 0 {
            tracing::warn!(%issuer, names = set.ambiguities(), "different keys share a name and are not used");
        }
    }

    /// Takes fetched keys that are past the hard age out of force.
    fn expire(&self) {
        let state = self.state.lock();
        if self.generation() != 0 && !state.schedule.usable(self.clock.now().elapsed) {
            self.generation.store(0, Ordering::Release);
            self.published.store(None);
            tracing::error!(issuer = %self.settings.issuer, "the last good keys are too old to be used");
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("settings", &self.settings)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

fn check(settings: &Settings) -> Result<(), KeyRingError> {
    if settings.algorithms.is_empty() {
        return Err(KeyRingError::NoAlgorithms);
    }
    if settings.source.is_remote() && settings.algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
        return Err(KeyRingError::RemoteSecret);
    }
    if let Source::SecretFile { algorithm, .. } = &settings.source
        && !settings.algorithms.contains(algorithm)
    {
        return Err(KeyRingError::SecretAlgorithm);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
