//! Between a sidecar and the store: time passes, requests and replies get lost, and what was sent takes effect even
//! when whoever sent it is stopped, gone or tired of waiting.

use crate::chance::hash;
use crate::engine::{Engine, Setback, down};
use countersign::clock::Timestamp;
use countersign::revocation::{Appended, DenialKey, Draft, Entry, Page, RevocationLog, StoreError};
use countersign::session::rotation::Rules;
use countersign::session::store::{ListCursor, Rotated, Updated};
use countersign::session::{Attributes, CreateOutcome, NewSession, SessionRecord, SessionStore};
use countersign::token::{Revision, SessionId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// A client of the store gives up after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How one sidecar's way to the store is at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Partitions in force.
    pub(crate) cut: u32,
    /// Requests and replies in a hundred that go wrong.
    pub(crate) flaky: u64,
}

/// A read that reached the log's head, as the sidecar came to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadRead {
    pub(crate) by: (usize, u32),
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) age: Duration,
}

pub(crate) struct Network {
    seed: u64,
    began: Instant,
    pub(crate) engine: Mutex<Engine>,
    pub(crate) weather: Mutex<Vec<Weather>>,
    /// The store is down while this is not zero.
    pub(crate) down: Mutex<u32>,
    pub(crate) head_reads: Mutex<Vec<HeadRead>>,
    moved: Notify,
}

/// What becomes of one request.
struct Fate {
    there: Duration,
    back: Duration,
    request: Luck,
    reply: Luck,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Luck {
    Arrives,
    /// The connection breaks, and both ends notice.
    Breaks,
    /// Nobody hears anything.
    Vanishes,
}

impl Network {
    pub(crate) fn new(seed: u64, sidecars: usize, engine: Engine) -> Arc<Self> {
        Arc::new(Self {
            seed,
            began: Instant::now(),
            engine: Mutex::new(engine),
            weather: Mutex::new(vec![Weather::default(); sidecars]),
            down: Mutex::new(0),
            head_reads: Mutex::new(Vec::new()),
            moved: Notify::new(),
        })
    }

    /// Virtual milliseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// The store goes back in time; what is lost by it.
    pub(crate) fn set_back(&self, setback: Setback, ahead: Duration) -> Vec<Entry> {
        let lost = self.engine.lock().at(self.now()).set_back(setback, ahead);
        self.moved.notify_waiters();
        lost
    }

    pub(crate) fn purge(&self) {
        self.engine.lock().at(self.now()).purge();
    }

    fn reachable(&self, sidecar: usize) -> bool {
        *self.down.lock() == 0 && self.weather.lock()[sidecar].cut == 0
    }

    fn fate(&self, sidecar: usize, kind: u64) -> Fate {
        let flaky = self.weather.lock()[sidecar].flaky;
        let drawn = |n| hash(&[self.seed, sidecar as u64, kind, self.now(), n]);
        let slow = if flaky > 0 { 300 } else { 5 };
        let spike = if drawn(0) % 100 < 2 { 700 } else { 0 };
        let luck = |n| match drawn(n) % 200 {
            draw if draw < flaky => Luck::Breaks,
            draw if draw < 2 * flaky => Luck::Vanishes,
            _ => Luck::Arrives,
        };
        Fate {
            there: Duration::from_millis(1 + drawn(1) % slow + spike),
            back: Duration::from_millis(1 + drawn(2) % slow),
            request: luck(3),
            reply: luck(4),
        }
    }
}

/// One sidecar's client of the store.
pub(crate) struct Wire {
    pub(crate) network: Arc<Network>,
    pub(crate) sidecar: usize,
    pub(crate) incarnation: u32,
}

impl Wire {
    async fn ask<T: Send + 'static>(
        &self,
        kind: u64,
        apply: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (network, sidecar) = (Arc::clone(&self.network), self.sidecar);
        let Fate { there, back, request, reply } = network.fate(sidecar, kind);
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            sleep(there).await;
            if request == Luck::Breaks || *network.down.lock() > 0 {
                let _ = answer.send(Err(down("the request broke")));
                return;
            }
            if request == Luck::Vanishes || !network.reachable(sidecar) {
                sleep(ANSWER_WITHIN * 2).await;
                return;
            }
            let result = {
                let mut engine = network.engine.lock();
                let before = engine.head();
                let result = apply(engine.at(network.now()));
                if engine.head() != before {
                    network.moved.notify_waiters();
                }
                result
            };
            sleep(back).await;
            if reply == Luck::Breaks {
                let _ = answer.send(Err(down("the reply broke")));
                return;
            }
            if reply == Luck::Vanishes || network.weather.lock()[sidecar].cut > 0 {
                sleep(ANSWER_WITHIN * 2).await;
                return;
            }
            let _ = answer.send(Ok(result));
        });
        match timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(down("no answer in time")),
        }
    }
}

#[tonic::async_trait]
impl RevocationLog for Wire {
    async fn append(&self, draft: Draft) -> Result<Appended, StoreError> {
        self.ask(1, move |engine| engine.append(&draft)).await
    }

    async fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Result<Page, StoreError> {
        let sent = self.network.now();
        let (page, age) = self.ask(2, move |engine| (engine.read_after(cursor, limit), engine.age())).await?;
        if page.cursor == page.head {
            let by = (self.sidecar, self.incarnation);
            let delivered = self.network.now();
            self.network.head_reads.lock().push(HeadRead { by, sent, delivered, age });
        }
        Ok(page)
    }

    async fn restore(&self, mut entries: Vec<Entry>) -> Result<(), StoreError> {
        entries.sort_by_key(|entry| (entry.key, entry.expires_at));
        self.ask(3, move |engine| engine.restore(&entries)).await
    }

    async fn changed(&self, cursor: Revision, at_most: Duration) {
        let network = &self.network;
        // One hint in eight is never sent.
        if hash(&[network.seed, 4, self.sidecar as u64, network.now()]).is_multiple_of(8) {
            return sleep(at_most).await;
        }
        let moved = async {
            loop {
                let moved = network.moved.notified();
                let at_cursor = network.engine.lock().head() == cursor;
                if network.reachable(self.sidecar) && !at_cursor {
                    break sleep(Duration::from_millis(1)).await;
                }
                moved.await;
            }
        };
        let _ = timeout(at_most, moved).await;
    }
}

#[tonic::async_trait]
impl SessionStore for Wire {
    async fn create(&self, new: NewSession) -> Result<CreateOutcome, StoreError> {
        self.ask(5, move |engine| engine.create(new)).await
    }

    async fn rotate(
        &self,
        id: SessionId,
        session_key: DenialKey,
        presented: u64,
        rules: Rules,
        _now: Timestamp,
    ) -> Result<Rotated, StoreError> {
        self.ask(6, move |engine| engine.rotate(id, session_key, presented, rules)).await
    }

    async fn update(
        &self,
        id: SessionId,
        session_key: DenialKey,
        attributes: Attributes,
        token_life: Duration,
        _now: Timestamp,
    ) -> Result<Option<Updated>, StoreError> {
        self.ask(7, move |engine| engine.update(id, session_key, attributes, token_life)).await
    }

    async fn touch(&self, _: SessionId, _: Duration, _: Timestamp) -> Result<(), StoreError> {
        unreachable!("no policy here counts verifications as use")
    }

    async fn find(&self, id: SessionId) -> Result<(Option<SessionRecord>, Revision), StoreError> {
        self.ask(8, move |engine| engine.find(id)).await
    }

    async fn list(
        &self,
        _: DenialKey,
        _: Option<ListCursor>,
        _: u32,
        _: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        unreachable!("nothing is listed here")
    }

    async fn purge(&self, _now: Timestamp, _limit: u32) -> Result<u32, StoreError> {
        self.ask(9, Engine::purge).await
    }
}
