//! Redis or Valkey: the revocation log and the sessions of a fleet on one primary.
//!
//! Everything is a script, so that a session's change and the log entry that tells of it are one step, and each script
//! begins by judging what it finds: a server that was restarted, promoted or put back, and a namespace from which
//! something was taken, get a new epoch, upon which sidecars give back what was lost. What an acknowledged write
//! survives is the server's settings' to say, and [`Durability`]'s.

mod address;
mod dial;
mod fault;
mod inspect;
mod line;
mod log;
mod reply;
mod script;
mod sessions;
mod watch;

pub use address::{Address, BadAddress};

use crate::clock::Timestamp;
use crate::revocation::{Appended, DenialKey, Draft, Entry, Page, RevocationLog, StoreError};
use crate::session::LeaseStore;
use crate::session::record::{Attributes, SessionRecord};
use crate::session::rotation::{Decision, Rules, decide};
use crate::session::store::{CreateOutcome, ListCursor, NewSession, Rotated, SessionStore, Updated};
use crate::store::shared::{Access, Durability, JudgeBy, Migration, Report, ServerFault, Shared};
use crate::token::{Revision, SessionId, TokenDigest, random_bytes};
use dial::{Dialler, Link};
use line::{Call, Line, run, run_and_wait};
use log::Anchor;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, Value};
use reply::{Arguments, Reply, hexadecimal};
use script::{SCHEMA, Source};
use sessions::Looked;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// A session that changes more often than this while one refresh is decided is being attacked, or the store is.
const ATTEMPTS: usize = 64;

/// One namespace of one server. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct RedisStore(Arc<Shop>);

struct Shop {
    dialler: Arc<Dialler>,
    /// Before each key's name.
    key: String,
    reads: Arc<Line>,
    /// Writes that wait for replicas or a disk hold up what follows them on their connection.
    writes: Vec<Arc<Line>>,
    turn: AtomicUsize,
    /// Whether the namespace was ever there for us: then its absence is a loss, and not a mistake.
    seen: AtomicBool,
    anchor: Mutex<Option<Anchor>>,
    watch: Watch,
}

/// What becomes of an absent namespace.
#[derive(Clone, Copy)]
enum Absent {
    Refuse,
    /// It was lost a moment ago.
    BeginNow,
    /// It is a new one: nobody holds what it lost.
    BeginOld,
}

impl RedisStore {
    /// Reads the TLS files and connects nowhere. Has to be called inside a Tokio runtime, on which the connections
    /// will live; calls can come from any.
    ///
    /// # Errors
    /// [`ServerFault::File`].
    pub fn new(address: Address, access: Access) -> Result<Self, ServerFault> {
        let key = format!("{{{}}}:", access.namespace);
        let durable = access.durability != Durability::Acknowledged;
        let more = if durable { access.connections.saturating_sub(1) } else { 0 };
        let dialler = Arc::new(Dialler::new(address, access)?);
        let line = || Arc::new(Line::new(Arc::clone(&dialler)));
        let reads = line();
        let mut writes: Vec<_> = (0..more).map(|_| line()).collect();
        if writes.is_empty() {
            writes.push(Arc::clone(&reads));
        }
        Ok(Self(Arc::new(Shop {
            dialler,
            key,
            reads,
            writes,
            turn: AtomicUsize::new(0),
            seen: AtomicBool::new(false),
            anchor: Mutex::new(None),
            watch: Watch::new(),
        })))
    }
}

impl Shop {
    fn access(&self) -> &Access {
        &self.dialler.access
    }

    /// The five arguments that each script takes, and its own. `waited`: its write is waited for.
    fn call(
        &self,
        script: &'static Source,
        own: &Arguments,
        link: &Link,
        now: Timestamp,
        absent: Absent,
        waited: bool,
    ) -> Result<Call<'_>, RedisError> {
        let no_epoch = |_| RedisError::from((ErrorKind::Client, "no randomness for an epoch"));
        let fresh = random_bytes().map(u64::from_be_bytes).map_err(no_epoch)?;
        let common =
            Arguments::default().text(&link.server.run_id).text(&hexadecimal(fresh)).text(match absent {
                Absent::Refuse => "refuse",
                Absent::BeginNow => "now",
                Absent::BeginOld => "old",
            });
        let common = match self.access().judge_by {
            JudgeBy::Store => common.nothing(),
            JudgeBy::Caller => common.at(now),
        };
        let common = common.flag(waited);
        let arguments = common.iter().chain(own.iter()).map(<[u8]>::to_vec).collect();
        Ok(Call { script, key: &self.key, arguments })
    }

    fn absent(&self) -> Absent {
        if self.access().migrate || self.seen.load(Ordering::Relaxed) {
            Absent::BeginNow
        } else {
            Absent::Refuse
        }
    }

    /// Runs a script that reads, or whose write need not outlive the server.
    async fn ask(
        &self,
        script: &'static Source,
        own: Arguments,
        now: Timestamp,
        place: &'static str,
    ) -> Result<Reply, StoreError> {
        let absent = self.absent();
        let work = async |mut link: Link| {
            let call = self.call(script, &own, &link, now, absent, false)?;
            run(&mut link, &call).await
        };
        let answer = self.reads.ask(work).await?;
        self.seen.store(true, Ordering::Relaxed);
        Reply::new(answer, place)
    }

    /// Runs a script that writes, and waits until the write is as safe as asked for.
    async fn write(
        &self,
        script: &'static Source,
        own: Arguments,
        now: Timestamp,
        place: &'static str,
    ) -> Result<Reply, StoreError> {
        let Some(wait) = self.wait() else { return self.ask(script, own, now, place).await };
        let absent = self.absent();
        let work = async |mut link: Link| {
            let call = self.call(script, &own, &link, now, absent, true)?;
            run_and_wait(&mut link, &call, &wait).await
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.writes.len().max(1);
        let line = self.writes.get(turn).unwrap_or(&self.reads);
        let (answer, waited) = line.ask(work).await?;
        self.seen.store(true, Ordering::Relaxed);
        self.check_kept(&waited)?;
        Reply::new(answer, place)
    }

    /// The command that waits; it gives up early enough to be told so, also where a server that did not know the script
    /// makes us wait twice.
    fn wait(&self) -> Option<Cmd> {
        let patience = self.access().answer_within.mul_f64(0.4).as_millis().max(1).to_string();
        let mut wait = Cmd::new();
        match self.access().durability {
            Durability::Acknowledged => return None,
            Durability::Replicated(replicas) => wait.arg("WAIT").arg(replicas).arg(patience),
            Durability::Fsynced => wait.arg("WAITAOF").arg(1).arg(0).arg(patience),
        };
        Some(wait)
    }

    /// The commands answer with a count also when time is up.
    fn check_kept(&self, waited: &Value) -> Result<(), StoreError> {
        let (kept, needed, by) = match (self.access().durability, waited) {
            (Durability::Acknowledged, _) => return Ok(()),
            (Durability::Replicated(needed), Value::Int(kept)) => (*kept, i64::from(needed), "replicas"),
            (Durability::Fsynced, Value::Array(counts)) => match counts.first() {
                Some(Value::Int(kept)) => (*kept, 1, "disks"),
                Some(_) | None => return Err(StoreError::Corrupt("the answer to WAITAOF")),
            },
            (Durability::Replicated(_) | Durability::Fsynced, _) => {
                return Err(StoreError::Corrupt("the answer to WAIT"));
            }
        };
        if kept >= needed {
            return Ok(());
        }
        let said = format!("written, but {kept} {by} of the {needed} asked for have it in time");
        Err(StoreError::Unavailable(said.into()))
    }

    /// A session as it is now, the log's head, and the time to judge it by.
    async fn look(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<(Option<Looked>, Revision, Timestamp), StoreError> {
        let own = Arguments::default().bytes(id.as_bytes());
        let mut reply = self.ask(&script::LOOK, own, now, "a session").await?;
        let revision = reply.revision()?;
        let now = reply.at()?;
        let looked = reply.optional("a session")?.map(|fields| sessions::record(fields, id)).transpose()?;
        Ok((looked, revision, now))
    }

    /// Writes what was decided; `None` where the record is no longer the one that was read.
    async fn turn(
        &self,
        looked: Looked,
        session_key: DenialKey,
        decision: Decision,
        now: Timestamp,
    ) -> Result<Option<Rotated>, StoreError> {
        let generation = match decision {
            Decision::Rotate { to } | Decision::FastForward { to } => Some(to),
            Decision::Reused
            | Decision::Repeat { .. }
            | Decision::Ended
            | Decision::Idle
            | Decision::Missing => None,
        };
        let own = sessions::turn(&looked, generation, now);
        let mut reply = self.write(&script::TURN, own, now, "a refresh").await?;
        let revision = reply.revision()?;
        if reply.number()? == 0 {
            return Ok(None);
        }
        let Some(generation) = generation else {
            let expires_at = log::expiry(&mut reply)?;
            let kind = crate::revocation::EntryKind::Session;
            let denied = Some(Entry { kind, key: session_key, expires_at });
            return Ok(Some(Rotated { decision, record: None, denied, revision }));
        };
        let Looked { mut record, .. } = looked;
        record.generation = generation;
        record.generation_began_at = now;
        record.last_active_at = record.last_active_at.max(now);
        Ok(Some(Rotated { decision, record: Some(record), denied: None, revision }))
    }
}

#[tonic::async_trait]
impl RevocationLog for RedisStore {
    async fn append(&self, draft: Draft) -> Result<Appended, StoreError> {
        let now = log::draft_now(&draft);
        log::appended(self.0.write(&script::APPEND, log::draft(&draft), now, "an append").await?, &draft)
    }

    async fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Result<Page, StoreError> {
        let limit = limit.max(1);
        let anchor = self.0.anchor.lock().clone();
        let own = log::read(cursor, limit, anchor.as_ref());
        let reply = self.0.ask(&script::READ, own, Timestamp::default(), "a page of the log").await?;
        let (page, anchor) = log::page(reply, limit, anchor)?;
        *self.0.anchor.lock() = anchor;
        Ok(page)
    }

    async fn restore(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        for batch in entries.chunks(log::BATCH) {
            self.0.write(&script::RESTORE, log::entries(batch), Timestamp::default(), "a restore").await?;
        }
        Ok(())
    }

    async fn changed(&self, cursor: Revision, at_most: Duration) {
        self.0.watch.moved_from(cursor, at_most).await;
    }
}

#[tonic::async_trait]
impl SessionStore for RedisStore {
    async fn create(&self, new: NewSession) -> Result<CreateOutcome, StoreError> {
        let own = sessions::login(&new)?;
        sessions::created(self.0.write(&script::CREATE, own, new.now, "a login").await?, &new)
    }

    async fn rotate(
        &self,
        id: SessionId,
        session_key: DenialKey,
        presented: u64,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Rotated, StoreError> {
        for _ in 0..ATTEMPTS {
            let (looked, revision, now) = self.0.look(id, now).await?;
            let decision = decide(looked.as_ref().map(|looked| &looked.record), presented, rules, now);
            let writes = match decision {
                Decision::Rotate { .. } | Decision::FastForward { .. } | Decision::Reused => true,
                Decision::Repeat { .. } | Decision::Ended | Decision::Idle | Decision::Missing => false,
            };
            let looked = match looked {
                Some(looked) if writes => looked,
                looked => {
                    let record = looked.map(|looked| looked.record);
                    return Ok(Rotated { decision, record, denied: None, revision });
                }
            };
            if let Some(rotated) = self.0.turn(looked, session_key, decision, now).await? {
                return Ok(rotated);
            }
        }
        Err(StoreError::Unavailable("the session changes too often".into()))
    }

    async fn update(
        &self,
        id: SessionId,
        session_key: DenialKey,
        attributes: Attributes,
        token_life: Duration,
        now: Timestamp,
    ) -> Result<Option<Updated>, StoreError> {
        let own =
            Arguments::default().bytes(id.as_bytes()).text(&sessions::json(&attributes)?).span(token_life);
        sessions::updated(self.0.write(&script::UPDATE, own, now, "an update").await?, id, session_key)
    }

    async fn touch(&self, id: SessionId, update_age: Duration, now: Timestamp) -> Result<(), StoreError> {
        let own = Arguments::default().bytes(id.as_bytes()).span(update_age);
        self.0.ask(&script::TOUCH, own, now, "a touch").await.map(drop)
    }

    async fn find(&self, id: SessionId) -> Result<(Option<SessionRecord>, Revision), StoreError> {
        let (looked, revision, _) = self.0.look(id, Timestamp::default()).await?;
        Ok((looked.map(|looked| looked.record), revision))
    }

    async fn list(
        &self,
        subject_key: DenialKey,
        after: Option<ListCursor>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let own = sessions::listing(subject_key, after, limit);
        sessions::listed(self.0.ask(&script::LIST, own, now, "a list").await?)
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let own = Arguments::default().at(now).number(u64::from(limit));
        let mut reply = self.0.ask(&script::PURGE, own, now, "a purge").await?;
        reply.revision()?;
        u32::try_from(reply.number()?).map_err(|_| reply.odd())
    }
}

#[tonic::async_trait]
impl LeaseStore for RedisStore {
    async fn lease(
        &self,
        key: TokenDigest,
        now: Timestamp,
    ) -> Result<(Option<Vec<u8>>, Timestamp), StoreError> {
        let own = Arguments::default().bytes(key.as_bytes());
        let mut reply = self.0.ask(&script::LEASE, own, now, "a lease").await?;
        reply.revision()?;
        let now = reply.at()?;
        let register = if reply.left() == 0 { None } else { Some(reply.bytes()?) };
        Ok((register, now))
    }

    async fn put_lease(
        &self,
        key: TokenDigest,
        seen: Option<Vec<u8>>,
        register: Vec<u8>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let own = Arguments::default()
            .bytes(key.as_bytes())
            .bytes(&seen.unwrap_or_default())
            .bytes(&register)
            .at(expires_at);
        let mut reply = self.0.write(&script::PUT_LEASE, own, now, "a lease").await?;
        reply.revision()?;
        Ok(reply.number()? == 1)
    }

    async fn purge_leases(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let own = Arguments::default().at(now).number(u64::from(limit));
        let mut reply = self.0.ask(&script::PURGE_LEASES, own, now, "a purge of leases").await?;
        reply.revision()?;
        u32::try_from(reply.number()?).map_err(|_| reply.odd())
    }
}

#[tonic::async_trait]
impl Shared for RedisStore {
    async fn inspect(&self) -> Result<Report, ServerFault> {
        inspect::inspect(&self.0.dialler, &self.0.key).await
    }

    async fn migrate(&self) -> Result<Migration, ServerFault> {
        let shop = &self.0;
        let mut link = shop.dialler.dial().await?;
        let (own, now) = (Arguments::default(), Timestamp::default());
        let call = shop.call(&script::MIGRATE, &own, &link, now, Absent::BeginOld, false);
        let call = call.map_err(|error| shop.dialler.fault(error))?;
        let late = |_| RedisError::from((ErrorKind::Io, "no answer in time"));
        let answered = tokio::time::timeout(shop.access().answer_within, run(&mut link, &call)).await;
        let answer =
            answered.map_err(late).and_then(|answer| answer).map_err(|error| shop.dialler.fault(error))?;
        shop.seen.store(true, Ordering::Relaxed);
        let from = Reply::new(answer, "a migration").and_then(|mut reply| {
            reply.revision()?;
            reply.number()
        });
        let from = from.map_err(|error| ServerFault::Odd(error.into()))?;
        Ok(Migration { from: u32::try_from(from).unwrap_or(u32::MAX), to: SCHEMA })
    }

    async fn listen(&self, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.0.watch.listen(&self.0.dialler, &self.0.key)).await;
    }
}

#[cfg(test)]
mod tests;
