//! A few connections, shared by all calls; opened one at a time, with growing pauses while that fails.
//!
//! Work runs to its end on the runtime that the store was made in, whoever waits for it and whether or not they still do:
//! a caller that goes away costs no connection.

use super::address::Host;
use super::failed::Failed;
use super::heads::Heads;
use super::link::{Canceller, Link, channel, patience};
use super::pause::{Pause, by_chance};
use super::{Address, namespace};
use crate::revocation::StoreError;
use crate::store::{Access, ServerFault};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// How long other hosts are waited for once one has answered as a primary.
const LOOK_FURTHER: Duration = Duration::from_millis(300);
/// A read of the log is given up after this, whatever other calls may take: the next one has to be sent.
const LONGEST_READ: Duration = Duration::from_secs(5);
/// How often work that collided with other work is tried.
const TRIES: u32 = 8;

/// The connections to one namespace.
pub(in crate::store) struct Pool {
    pub(super) address: Address,
    pub(super) access: Access,
    /// The database is an application's, and nothing in it ours: sets up a connection for this schema of its.
    of_others: Option<String>,
    pub(super) heads: Arc<Heads>,
    pub(super) runtime: Handle,
    slots: Arc<Semaphore>,
    /// Whoever follows the log waits for no other call: verification lives by it.
    followers: Arc<Semaphore>,
    idle: Mutex<Vec<Link>>,
    dialing: Arc<tokio::sync::Mutex<Pause>>,
    /// The host that was connected to last.
    good_host: AtomicUsize,
    /// Which incarnation is right, as far as was seen. Where there are several hosts, links to another are not used.
    incarnation: Mutex<String>,
    /// This process has used the namespace.
    known: AtomicBool,
    announcing: AtomicBool,
    to_announce: AtomicBool,
}

/// What a new connection is for, which says what is looked at or done first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Work: the namespace is made ready.
    Use { known: bool },
    /// To say whether work would do; changes nothing.
    Look,
    /// To migrate the namespace.
    Migrate,
}

/// Work on a connection, in a form that can be tried again.
pub(in crate::store) trait Work<T>:
    for<'a> Fn(&'a Link) -> BoxFuture<'a, Result<T, Failed>> + Send + Sync + 'static
{
}
impl<T, F> Work<T> for F where
    F: for<'a> Fn(&'a Link) -> BoxFuture<'a, Result<T, Failed>> + Send + Sync + 'static
{
}

impl Pool {
    pub(super) fn new(address: Address, access: Access, runtime: Handle) -> Self {
        Self {
            address,
            heads: Arc::new(Heads::new()),
            runtime,
            slots: Arc::new(Semaphore::new(access.connections.clamp(1, 1000))),
            followers: Arc::new(Semaphore::new(1)),
            idle: Mutex::default(),
            dialing: Arc::default(),
            good_host: AtomicUsize::new(0),
            incarnation: Mutex::default(),
            known: AtomicBool::new(false),
            announcing: AtomicBool::new(false),
            to_announce: AtomicBool::new(false),
            of_others: None,
            access,
        }
    }

    /// To a database in which no namespace of ours is looked for.
    pub(in crate::store) fn of_others(
        address: Address,
        access: Access,
        runtime: Handle,
        schema: &str,
    ) -> Self {
        // Its triggers may count on the path.
        let path = format!("SET search_path = pg_catalog, \"{}\"", schema.replace('"', "\"\""));
        Self { of_others: Some(path), ..Self::new(address, access, runtime) }
    }

    /// Does the work, within the time a call may take.
    pub(in crate::store) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        self.run_in(&self.slots, self.access.answer_within, work).await
    }

    /// The same for the one that follows the log, whatever queues up otherwise.
    pub(super) async fn follow<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        self.run_in(&self.followers, self.access.answer_within.min(LONGEST_READ), work).await
    }

    async fn run_in<T: Send + 'static>(
        self: &Arc<Self>,
        slots: &Arc<Semaphore>,
        within: Duration,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let late = || StoreError::Unavailable("the store did not answer in time".into());
        let deadline = Instant::now() + within;
        let done = async {
            let slot = Arc::clone(slots).acquire_owned().await;
            let slot = slot.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
            let (reply, answer) = oneshot::channel();
            self.runtime.spawn(Arc::clone(self).carry_out(work, slot, deadline, reply));
            answer.await.map_err(|_| late())?
        };
        tokio::time::timeout_at(deadline, done).await.unwrap_or_else(|_| Err(late()))
    }

    async fn carry_out<T: Send + 'static>(
        self: Arc<Self>,
        work: impl Work<T>,
        slot: OwnedSemaphorePermit,
        deadline: Instant,
        reply: oneshot::Sender<Result<T, StoreError>>,
    ) {
        // What is late is dropped with its connection, which may be in the middle of a transaction.
        let under_way = Mutex::new(None);
        let done = tokio::time::timeout_at(deadline, self.attempt(&work, &under_way)).await;
        let Ok((link, answer)) = done else {
            drop(reply);
            let canceller: Option<Canceller> = under_way.into_inner();
            if let Some(canceller) = canceller {
                // The next read of the log does not wait for this; other calls do, so that a server that is busy with what was
                // given up is not given more.
                let _slot = (!Arc::ptr_eq(slot.semaphore(), &self.followers)).then_some(slot);
                if !canceller.cancel(self.access.answer_within).await {
                    // A server that is gone without a word answers on no connection.
                    self.idle.lock().clear();
                }
            }
            return;
        };
        // Nobody may wait any more.
        let _ = reply.send(answer);
        let Some(link) = link else { return };
        if link.take_appended() {
            self.to_announce.store(true, Ordering::SeqCst);
            // The next call need not wait for this.
            drop(slot);
            if !self.announce(&link).await {
                return;
            }
        }
        self.keep(link);
    }

    /// Back among the idle ones, unless the primary is another by now.
    fn keep(&self, link: Link) {
        if self.address.hosts().len() == 1 || *self.incarnation.lock() == link.about.incarnation {
            self.idle.lock().push(link);
        }
    }

    async fn attempt<T>(
        self: &Arc<Self>,
        work: &impl Work<T>,
        under_way: &Mutex<Option<Canceller>>,
    ) -> (Option<Link>, Result<T, StoreError>) {
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return (None, Err(error)),
        };
        *under_way.lock() = Some(link.canceller());
        let mut tries = 1;
        loop {
            let failed = match work(&link).await {
                Ok(done) => return (Some(link), Ok(done)),
                Err(failed) => failed,
            };
            let spared = failed.spares_connection()
                && !link.client.is_closed()
                && link.client.batch_execute("ROLLBACK").await.is_ok();
            if !spared {
                // The others lead to the same server.
                if link.client.is_closed() || matches!(failed, Failed::Stale(_)) {
                    self.idle.lock().clear();
                }
                return (None, Err(failed.told()));
            }
            if !failed.is_collision() || tries >= TRIES {
                return (Some(link), Err(failed.told()));
            }
            tokio::time::sleep(by_chance(Duration::from_millis(4 << tries))).await;
            tries += 1;
        }
    }

    /// An idle connection, or a new one.
    async fn link(self: &Arc<Self>) -> Result<Link, StoreError> {
        loop {
            if let Some(link) = self.take_idle() {
                return Ok(link);
            }
            let mut pause = Arc::clone(&self.dialing).lock_owned().await;
            // Somebody else may have opened one, or failed to.
            if let Some(link) = self.take_idle() {
                return Ok(link);
            }
            pause.over()?;
            let pool = Arc::clone(self);
            // Goes on when this call's time is up, so that a slow server is reached in the end.
            let dialed = self.runtime.spawn(async move {
                match pool.dial().await {
                    Ok(link) => {
                        *pause = Pause::default();
                        pool.keep(link);
                        Ok(())
                    }
                    Err(fault) => {
                        pause.grow(&fault);
                        Err(StoreError::Unavailable(fault.into()))
                    }
                }
            });
            dialed.await.map_err(|error| StoreError::Unavailable(error.into()))??;
        }
    }

    fn take_idle(&self) -> Option<Link> {
        let mut idle = self.idle.lock();
        while let Some(link) = idle.pop() {
            if !link.client.is_closed() {
                return Some(link);
            }
        }
        None
    }

    /// A connection on which the namespace is ready.
    pub(super) async fn dial(&self) -> Result<Link, ServerFault> {
        let known = self.known.load(Ordering::SeqCst);
        let link = self.dial_to(Purpose::Use { known }).await?;
        self.known.store(true, Ordering::SeqCst);
        Ok(link)
    }

    /// A connection to the primary, made to serve the purpose.
    pub(super) async fn dial_to(&self, purpose: Purpose) -> Result<Link, ServerFault> {
        let (place, link) = self.primary().await?;
        self.settle_on(&link)?;
        let served = async {
            if let Some(path) = &self.of_others {
                let set = link.client.batch_execute(path).await;
                return set.map_err(|error| ServerFault::Odd(error.into()));
            }
            match purpose {
                Purpose::Use { known } => namespace::ready(&link, &self.access, known).await,
                Purpose::Look => namespace::check(&link, &self.access).await,
                Purpose::Migrate => Ok(()),
            }
        };
        let patience = patience(&self.address, &self.access);
        let Ok(served) = tokio::time::timeout(patience, served).await else {
            let fault = late(&link.about.server);
            let canceller = link.canceller();
            drop(link);
            canceller.cancel(self.access.answer_within).await;
            return Err(fault);
        };
        served?;
        self.good_host.store(place, Ordering::Relaxed);
        Ok(link)
    }

    /// Of several hosts all are asked at once. Two may answer as a primary, one of them promoted while the other was away and
    /// not told: the later timeline is right. A host that is slow to answer is not waited for long once one has.
    async fn primary(&self) -> Result<(usize, Link), ServerFault> {
        let first = self.good_host.load(Ordering::Relaxed);
        let mut asked: FuturesUnordered<_> =
            self.address.hosts().iter().enumerate().map(|(place, host)| self.open(place, host)).collect();
        let mut found: Option<(usize, Link)> = None;
        let mut worst: Option<ServerFault> = None;
        let mut until = None;
        while let Some(opened) = next_until(&mut asked, until).await {
            match opened {
                (place, Ok(link)) => {
                    until = until.or_else(|| Some(Instant::now() + LOOK_FURTHER));
                    let later = found.as_ref().is_none_or(|(other, best)| {
                        if best.about.is_before(&link.about.incarnation) {
                            true
                        } else if link.about.is_before(&best.about.incarnation) {
                            false
                        } else {
                            // Two clusters are a mistake in the address; whoever was used before goes on being used.
                            place == first && *other != first
                        }
                    });
                    if found.is_some() {
                        tracing::warn!(
                            server = link.about.server,
                            "more than one of the store's hosts is a primary; the one promoted last is used"
                        );
                    }
                    if later {
                        found = Some((place, link));
                    }
                }
                // That one of several is a replica is as it should be.
                (_, Err(fault)) if worst.is_none() || !matches!(fault, ServerFault::NotPrimary { .. }) => {
                    worst = Some(fault);
                }
                (_, Err(_)) => {}
            }
        }
        found.ok_or_else(|| worst.unwrap_or_else(|| ServerFault::Odd("no host".into())))
    }

    /// Refuses a primary from before a promotion that was seen, and parts with links to one.
    fn settle_on(&self, link: &Link) -> Result<(), ServerFault> {
        if self.address.hosts().len() == 1 {
            return Ok(());
        }
        let mut seen = self.incarnation.lock();
        if *seen == link.about.incarnation {
            return Ok(());
        }
        if link.about.is_before(&seen) {
            return Err(ServerFault::NotPrimary { server: link.about.server.clone() });
        }
        seen.clone_from(&link.about.incarnation);
        self.idle.lock().clear();
        Ok(())
    }

    async fn open(&self, place: usize, host: &Host) -> (usize, Result<Link, ServerFault>) {
        let opened = Link::open(&self.address, host, &self.access, &self.heads);
        let opened = tokio::time::timeout(patience(&self.address, &self.access), opened).await;
        (place, opened.unwrap_or_else(|_| Err(late(&host.to_string()))))
    }

    /// Tells the other sidecars that the head moved, outside any writing transaction because notifying takes a lock of the
    /// whole database when it commits. One at a time; what comes meanwhile is told together. Whether the connection is
    /// still good.
    async fn announce(&self, link: &Link) -> bool {
        let channel = channel(&self.access);
        // Not waited for until it is on disk, or anywhere else.
        let text = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; \
             SELECT pg_notify('{channel}', lpad(to_hex(epoch), 16, '0') || '.' || seq) FROM head; COMMIT"
        );
        let until = Instant::now() + self.access.answer_within;
        let in_time = || Instant::now() < until;
        while in_time()
            && self.to_announce.load(Ordering::SeqCst)
            && !self.announcing.swap(true, Ordering::SeqCst)
        {
            let _done = Announcing(&self.announcing);
            // What comes after that is the next one's to tell.
            while in_time() && self.to_announce.swap(false, Ordering::SeqCst) {
                let told = link.client.batch_execute(&text);
                if !matches!(tokio::time::timeout(self.access.answer_within, told).await, Ok(Ok(()))) {
                    return false;
                }
            }
        }
        true
    }
}

/// Lets the next one announce, also when this one is dropped in the middle.
struct Announcing<'a>(&'a AtomicBool);

impl Drop for Announcing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn late(server: &str) -> ServerFault {
    ServerFault::Unreachable { server: server.to_owned(), source: "not connected in time".into() }
}

/// The next one, or `None` when there is none more or it is time.
async fn next_until<F: Future>(asked: &mut FuturesUnordered<F>, until: Option<Instant>) -> Option<F::Output> {
    match until {
        Some(until) => tokio::time::timeout_at(until, asked.next()).await.ok().flatten(),
        None => asked.next().await,
    }
}
